"""check(): the proof that everything derived equals a rebuild from the documents.

Invariants:
- It reads one snapshot and changes nothing; writers go on meanwhile.
- What is wrong is noted, and the check goes on behind it.
- Every document is decoded (its checksum with it); every entry it should have is looked up, and
  entries are counted: all there and no more means equal, in memory that does not grow.
"""

from dataclasses import dataclass, field
from typing import final

from amberdb._errors import AmberError, LogTruncatedError
from amberdb._types import NO_LSN, Lsn, Progress
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import NEVER, StoredDocument, unpack
from amberdb.engine.schema.keyspace import APPLIED, LAST_TIME, end_of
from amberdb.engine.schema.ordered_index import MULTI, entry_pairs
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.readable import Readable, ReadableLog
from amberdb.engine.storage.store import EngineError
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.wal import Record

PROBLEMS_MAX = 100


@final
@dataclass(slots=True)
class CheckReport:
    """What check() found: `ok`, and otherwise a line for each problem (the first hundred), with
    file and place."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    """What is no damage, but worth knowing: a torn tail that the next opening will cut."""
    collections: int = 0
    documents: int = 0
    entries: int = 0
    log_records: int = 0
    lsn: Lsn = NO_LSN

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def add(self, problem: str) -> None:
        """For check(): notes a problem, up to PROBLEMS_MAX of them."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


def check(source: Readable, searchers: Searchers, progress: Progress | None = None) -> CheckReport:
    """Checks documents, indexes, counters, caches and log of an open database."""
    report = CheckReport()
    with source.view() as view:
        try:
            applied = Lsn(int.from_bytes(view.get_stored(APPLIED) or b""))
            if applied > source.log.durable_lsn:
                durable = source.log.durable_lsn
                report.add(f"LMDB is at Lsn {applied}, and only {durable} is durable")
            elif applied:
                for record in source.log.read(Lsn(applied - 1), upto=applied):
                    check_applied(view, record, report)
        except LogTruncatedError:
            pass  # recycled
        except (AmberError, EngineError) as error:
            _note(view, report, "the last applied record", error)
        check_view(view, report, progress)
        try:
            for problem in searchers.problems(view):
                report.add(f"{problem}: close the database and delete the folder cache/")
        except (AmberError, EngineError) as error:
            _note(view, report, "the files in cache/", error)
    _check_log(source.log, report)
    return report


def check_applied(view: View, record: Record, report: CheckReport) -> None:
    """LMDB has what this record, its last one, says. Nothing else covers the applied Lsn and the
    time beside it, and too high an Lsn would hide the records behind the true one."""
    time = view.get_stored(LAST_TIME)
    if time is not None and time != record.time_us.to_bytes(8):
        report.add(f"LMDB has the time {time.hex()} for Lsn {record.lsn}, not {record.time_us} us")
    documents = view.catalog.by_keyspace()
    for key, value in decode_effects(record.payload).items():
        if key[:KEYSPACE_BYTES] in documents and view.get_stored(key) != value:
            report.add(
                f"{documents[key[:KEYSPACE_BYTES]].name}: LMDB is said to have Lsn {record.lsn}, "
                f"and has not what that says of {key[KEYSPACE_BYTES:]!r}"
            )


def check_view(view: View, report: CheckReport, progress: Progress | None) -> None:
    """Every collection of a view against its own documents."""
    report.lsn = Lsn(view.lsn)
    for schema in view.catalog.schemas.values():
        report.collections += 1
        expected = dict.fromkeys((index.prefix for index in schema.indexes), 0)
        expected.update(dict.fromkeys(schema.row_prefixes, 0))
        expected[schema.expiry_prefix] = 0
        try:
            _check_documents(view, schema, expected, report, progress)
        except (AmberError, EngineError) as error:
            _note(view, report, schema.name, error)
        usable = [index.prefix for index in schema.indexes if view.is_built(index)]
        rows = [index for index in schema.row_indexes if view.is_built(index)]
        usable += [index.entry_prefix for index in rows]
        for prefix in (*usable, schema.expiry_prefix):
            try:
                _check_count(view, schema, prefix, expected[prefix], report)
            except (AmberError, EngineError) as error:
                number = int.from_bytes(prefix[:KEYSPACE_BYTES])
                _note(view, report, f"{schema.name}: tree {number}", error)
        for index in rows:
            from amberdb.engine.integrity.search_check import check_rows  # brings numpy

            try:
                check_rows(view, schema, index, report.add)
            except (AmberError, EngineError) as error:
                _note(view, report, f"{schema.name}: {index.spec.name}", error)


def _note(view: View, report: CheckReport, what: str, error: Exception) -> None:
    """The error, with its file."""
    try:
        view.raise_typed(error)
    except AmberError as typed:
        error = typed
    report.add(f"{what}: {error}")


def _check_documents(
    view: View,
    schema: Schema,
    expected: dict[bytes, int],
    report: CheckReport,
    progress: Progress | None,
) -> None:
    count = 0
    rowid_max = 0
    for key, value in view.scan(schema.prefix, end_of(schema.prefix)):
        count += 1
        if progress is not None and not count % 1000:
            progress(schema.name, count)
        try:
            stored = unpack(key, value)
            _check_document(view, schema, key, stored, expected, report)
        except (AmberError, EngineError) as error:
            _note(view, report, schema.name, error)
            continue
        rowid_max = max(rowid_max, stored.rowid)
    report.documents += count
    head = CollectionCounters.unpack(view.get(schema.counters_key))
    if head.documents != count:
        report.add(f"{schema.name}: the head counts {head.documents} documents, there are {count}")
    if rowid_max >= head.next_rowid:
        report.add(f"{schema.name}: rowid {rowid_max} is in use, the next is {head.next_rowid}")


def _check_document(
    view: View,
    schema: Schema,
    key: bytes,
    stored: StoredDocument,
    expected: dict[bytes, int],
    report: CheckReport,
) -> None:
    id_bytes = key[KEYSPACE_BYTES:]
    document = stored.document()
    if document.get("id") != id_bytes.decode():
        report.add(f"{schema.name}: {id_bytes!r} holds a document with id {document.get('id')!r}")
    if stored.version > view.lsn:
        report.add(f"{schema.name}: {id_bytes!r} has version {stored.version} above {view.lsn}")
    for index in schema.indexes:
        if not view.is_built(index):
            continue
        for entry, wanted in entry_pairs(index, document, id_bytes, stored.rowid).items():
            if not entry.startswith(MULTI):
                expected[index.prefix] += 1
            if view.get(entry) != wanted:
                report.add(f"{schema.name}: {id_bytes!r} has no entry in {index.spec.name}")
    for row_index in schema.row_indexes:
        if view.is_built(row_index) and row_index.content(document) is not None:
            expected[row_index.entry_prefix] += 1
            if view.get(row_index.key(stored.rowid)) != id_bytes:
                report.add(f"{schema.name}: {id_bytes!r} has no entry in {row_index.spec.name}")
    if stored.expires_us != NEVER:
        expected[schema.expiry_prefix] += 1
        if view.get(schema.expiry_key(stored.expires_us, stored.rowid)) != id_bytes:
            report.add(f"{schema.name}: {id_bytes!r} has no entry in the expiry index")


def _check_count(
    view: View, schema: Schema, prefix: bytes, expected: int, report: CheckReport
) -> None:
    found = sum(1 for _ in view.scan(prefix, end_of(prefix)))
    report.entries += found
    if found != expected:
        report.add(
            f"{schema.name}: tree {int.from_bytes(prefix[:KEYSPACE_BYTES])} has {found} entries, "
            f"the documents make {expected}"
        )


def _check_log(log: ReadableLog, report: CheckReport) -> None:
    """Every durable record that is kept can be read and decoded."""
    after = Lsn(log.first_lsn - 1)
    while True:
        try:
            for record in log.read(after):
                decode_effects(record.payload)
                report.log_records += 1
                after = record.lsn
            return
        except LogTruncatedError as error:  # by a checkpoint, this moment
            after = error.resume
        except AmberError as error:
            report.add(f"log: {error}")
            return
