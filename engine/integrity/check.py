"""check(): verifies that all derived data equals a rebuild from the documents.

Invariants:
- It reads one snapshot and changes nothing; writers are not blocked.
- A problem is added to the report, and the check continues after it.
- Every document is decoded, which verifies its checksum. The entries of ordered and unique indexes
  are compared by sums. Where these differ, every entry that a document should have is looked up,
  and entries are counted: all present and no more means equal, in constant memory.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import final

from amberdb._errors import AmberError, LogTruncatedError
from amberdb._public import public
from amberdb._types import NO_LSN, Lsn, Progress
from amberdb.engine.integrity.entry_sums import EntrySums
from amberdb.engine.integrity.vector_check import check_vectors
from amberdb.engine.schema.codec import decode_document, decode_effects
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import NEVER, StoredDocument, unpack
from amberdb.engine.schema.keyspace import APPLIED, LAST_TIME, META, end_of
from amberdb.engine.schema.ordered_index import entry_pairs
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import whole
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.readable import Readable, ReadableLog
from amberdb.engine.storage.store import EngineError
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.wal import Record

PROBLEMS_MAX = 100


@public
@final
@dataclass(slots=True)
class CheckReport:
    """The result of check(): `ok`, or a line for each problem (the first hundred) with its file and
    offset or key."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    """Findings that are not damage, such as a torn tail that the next open cuts."""
    collections: int = 0
    documents: int = 0
    entries: int = 0
    log_records: int = 0
    lsn: Lsn = NO_LSN
    damaged: list[int] = field(default_factory=list[int], repr=False)
    """The keyspaces of the indexes that problems are about."""
    are_documents_sound: bool = field(default=True, repr=False)
    """Whether all problems are about indexes, which the documents make again."""

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def add(self, problem: str, keyspace: int | None = None) -> None:
        """Adds a problem, up to PROBLEMS_MAX of them, and the keyspace if it is one of an index."""
        if keyspace is None:
            self.are_documents_sound = False
        elif keyspace not in self.damaged:
            self.damaged.append(keyspace)
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
                report.add(
                    f"LMDB has Lsn {applied} applied, and the log is durable up to {durable}"
                )
            elif applied:
                for record in source.log.read(Lsn(applied - 1), upto=applied):
                    check_applied(view, record, report)
        except LogTruncatedError:
            pass  # the segment with the record was recycled
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
    """Checks that LMDB contains the effects of the record with its applied Lsn. That Lsn and the
    time beside it have no checksum, and an Lsn that is too high would hide the records after the
    true one from replay."""
    time = view.get_stored(LAST_TIME)
    if time is not None and time != record.time_us.to_bytes(8):
        report.add(f"LMDB has the time {time.hex()} for Lsn {record.lsn}, not {record.time_us} us")
    documents = view.catalog.by_keyspace()
    for key, value in decode_effects(record.payload).items():
        schema = documents.get(key[:KEYSPACE_BYTES])
        if schema is not None and _stored_whole(view, key) != value:
            report.add(
                f"{schema.name}: LMDB has Lsn {record.lsn} applied, and "
                f"{key[KEYSPACE_BYTES:]!r} is not as in that record"
            )


def _stored_whole(view: View, key: bytes) -> bytes | None:
    """The value of a document in LMDB, as the log has it."""
    value = view.get_stored(key)
    return None if value is None else whole(key, value, view.vectors_at)


def check_view(view: View, report: CheckReport, progress: Progress | None) -> None:
    """Checks every collection of a view against its documents."""
    report.lsn = Lsn(view.lsn)
    for schema in view.catalog.schemas.values():
        report.collections += 1
        expected = dict.fromkeys((*schema.row_prefixes, schema.expiry_prefix), 0)
        sums = EntrySums(view, schema)
        try:
            _check_documents(view, schema, expected, sums, report, progress)
            check_vectors(view, schema, report.add)
        except (AmberError, EngineError) as error:
            _note(view, report, schema.name, error)
        _check_entries(view, schema, sums, report)
        rows = [index for index in schema.row_indexes if view.is_built(index)]
        for prefix in (*(index.entry_prefix for index in rows), schema.expiry_prefix):
            _check_count(view, schema, prefix, expected[prefix], report)
        foreign = schema.foreign
        for index in rows:
            from amberdb.engine.integrity.search_check import check_rows  # brings numpy

            add = partial(report.add, keyspace=index.number)
            try:
                check_rows(view, schema, index, add, with_terms=index.number not in foreign)
            except (AmberError, EngineError) as error:
                _note(view, report, f"{schema.name}: {index.spec.name}", error, index.number)


def _note(
    view: View, report: CheckReport, place: str, error: Exception, keyspace: int | None = None
) -> None:
    """Adds an error as a problem, with the name of its file."""
    try:
        view.raise_typed(error)
    except AmberError as typed:
        error = typed
    report.add(f"{place}: {error}", keyspace)


def _check_documents(
    view: View,
    schema: Schema,
    expected: dict[bytes, int],
    sums: EntrySums,
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
            _check_document(view, schema, key, stored, expected, sums, report)
        except (AmberError, EngineError) as error:
            _note(view, report, schema.name, error)
            continue
        rowid_max = max(rowid_max, stored.rowid)
    report.documents += count
    counters = CollectionCounters.unpack(view.get(schema.counters_key))
    if counters.documents != count:
        report.add(
            f"{schema.name}: the counter says {counters.documents} documents, there are {count}"
        )
    if rowid_max >= counters.next_rowid:
        report.add(f"{schema.name}: rowid {rowid_max} is in use, the next is {counters.next_rowid}")


def _check_document(
    view: View,
    schema: Schema,
    key: bytes,
    stored: StoredDocument,
    expected: dict[bytes, int],
    sums: EntrySums,
    report: CheckReport,
) -> None:
    id_bytes = key[KEYSPACE_BYTES:]
    document = schema.as_stored(stored, view.vectors_at)
    if document.get("id") != id_bytes.decode():
        report.add(f"{schema.name}: {id_bytes!r} has a document with the id {document.get('id')!r}")
    if stored.version > view.lsn:
        report.add(f"{schema.name}: {id_bytes!r} has version {stored.version} above {view.lsn}")
    sums.add(document, id_bytes, stored.rowid)
    for row_index in schema.row_indexes:
        if view.is_built(row_index) and row_index.content(document) is not None:
            expected[row_index.entry_prefix] += 1
            if view.get(row_index.key(stored.rowid)) != id_bytes:
                problem = f"{schema.name}: {id_bytes!r} has no entry in {row_index.spec.name}"
                report.add(problem, row_index.number)
    if stored.expires_us != NEVER:
        expected[schema.expiry_prefix] += 1
        if view.get(schema.expiry_key(stored.expires_us, stored.rowid)) != id_bytes:
            problem = f"{schema.name}: {id_bytes!r} has no entry in the expiry index"
            report.add(problem, schema.definition.expiry_keyspace)


def _check_entries(view: View, schema: Schema, sums: EntrySums, report: CheckReport) -> None:
    """Checks the ordered and unique indexes of a collection, whose documents are in `sums`."""
    try:
        if sums.agree():
            report.entries += sums.count
            return
    except (AmberError, EngineError):
        pass  # found again below, with its index
    expected = {index.prefix: 0 for index in schema.indexes if view.is_built(index)}
    try:
        for key, value in view.scan(schema.prefix, end_of(schema.prefix)):
            try:
                _look_up_entries(view, schema, key, unpack(key, value), expected, report)
            except (AmberError, EngineError):
                continue  # of the document: noted already
    except (AmberError, EngineError):
        pass
    for prefix, count in expected.items():
        _check_count(view, schema, prefix, count, report)


def _look_up_entries(
    view: View,
    schema: Schema,
    key: bytes,
    stored: StoredDocument,
    expected: dict[bytes, int],
    report: CheckReport,
) -> None:
    id_bytes = key[KEYSPACE_BYTES:]
    document = decode_document(stored.body)
    for index in schema.indexes:
        if index.prefix not in expected:
            continue
        for entry, value in entry_pairs(index, document, id_bytes, stored.rowid).items():
            if not entry.startswith(META):
                expected[index.prefix] += 1
            try:
                is_there = view.get(entry) == value
            except EngineError as error:
                _note(view, report, f"{schema.name}: {index.spec.name}", error, index.number)
                continue
            if not is_there:
                problem = f"{schema.name}: {id_bytes!r} has no entry in {index.spec.name}"
                report.add(problem, index.number)


def _check_count(
    view: View, schema: Schema, prefix: bytes, expected: int, report: CheckReport
) -> None:
    number = int.from_bytes(prefix[:KEYSPACE_BYTES])
    try:
        count = sum(1 for _ in view.scan(prefix, end_of(prefix)))
    except (AmberError, EngineError) as error:
        _note(view, report, f"{schema.name}: keyspace {number}", error, number)
        return
    report.entries += count
    if count != expected:
        report.add(
            f"{schema.name}: keyspace {number} has {count} entries, the documents make {expected}",
            number,
        )


def _check_log(log: ReadableLog, report: CheckReport) -> None:
    """Reads and decodes every durable record that the log still has."""
    after = Lsn(log.first_lsn - 1)
    while True:
        try:
            for record in log.read(after):
                decode_effects(record.payload)
                report.log_records += 1
                after = record.lsn
            return
        except LogTruncatedError as error:  # by a checkpoint meanwhile
            after = error.resume
        except AmberError as error:
            report.add(f"log: {error}")
            return
