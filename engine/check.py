"""check(): the proof that everything derived equals a rebuild from the documents.

Invariants:
- It reads one snapshot and changes nothing; writers go on meanwhile.
- Every document is decoded (its checksum with it); every entry it should have is looked up, and
  entries are counted: all there and no more means equal, in memory that does not grow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from amberdb._errors import AmberError, CorruptionError
from amberdb._types import NO_LSN, Lsn
from amberdb.engine.codec import decode_effects
from amberdb.engine.commit import Committer
from amberdb.engine.planner import is_usable
from amberdb.engine.schema import MULTI, Head, Schema, entry_pairs
from amberdb.engine.stored import NEVER, Stored, unpack
from amberdb.engine.trees import TREE_SIZE, end_of
from amberdb.engine.view import View

PROBLEMS_MAX = 100

Progress = Callable[[str, int], None]
"""Called with a collection's name and the count of documents checked so far."""


@final
@dataclass(slots=True)
class CheckReport:
    """What check() found: `ok`, and otherwise a line for each problem (the first hundred)."""

    problems: list[str] = field(default_factory=list[str])
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


def check(committer: Committer, progress: Progress | None = None) -> CheckReport:
    """Documents, indexes, heads and log of an open database."""
    report = CheckReport()
    with committer.view() as view:
        report.lsn = Lsn(view.lsn)
        applied = committer.store.applied_lsn
        if applied > committer.log.durable_lsn:
            report.add(f"LMDB is at Lsn {applied}, and only {committer.log.durable_lsn} is durable")
        for schema in view.catalog.schemas.values():
            report.collections += 1
            try:
                _check_collection(view, schema, report, progress)
            except AmberError as error:
                report.add(f"{schema.name}: {error}")
    _check_log(committer, report)
    return report


def _check_collection(
    view: View, schema: Schema, report: CheckReport, progress: Progress | None
) -> None:
    expected = dict.fromkeys((index.prefix for index in schema.indexes), 0)
    expected[schema.expiry_prefix] = 0
    count = 0
    rowid_max = 0
    for key, value in view.scan(schema.prefix, end_of(schema.prefix)):
        count += 1
        if progress is not None and not count % 1000:
            progress(schema.name, count)
        try:
            stored = unpack(key, value)
            _check_document(view, schema, key, stored, expected, report)
        except CorruptionError as error:
            report.add(str(error))
            continue
        rowid_max = max(rowid_max, stored.rowid)
    report.documents += count
    head = Head.unpack(view.get(schema.head_key))
    if head.documents != count:
        report.add(f"{schema.name}: the head counts {head.documents} documents, there are {count}")
    if rowid_max >= head.next_rowid:
        report.add(f"{schema.name}: rowid {rowid_max} is in use, the next is {head.next_rowid}")
    for index in schema.indexes:
        if is_usable(view, index):
            _check_count(view, schema, index.prefix, expected[index.prefix], report)
    _check_count(view, schema, schema.expiry_prefix, expected[schema.expiry_prefix], report)


def _check_document(
    view: View,
    schema: Schema,
    key: bytes,
    stored: Stored,
    expected: dict[bytes, int],
    report: CheckReport,
) -> None:
    id_bytes = key[TREE_SIZE:]
    document = stored.document()
    if document.get("id") != id_bytes.decode():
        report.add(f"{schema.name}: {id_bytes!r} holds a document with id {document.get('id')!r}")
    if stored.version > view.lsn:
        report.add(f"{schema.name}: {id_bytes!r} has version {stored.version} above {view.lsn}")
    for index in schema.indexes:
        if not is_usable(view, index):
            continue
        for entry, wanted in entry_pairs(index, document, id_bytes, stored.rowid).items():
            if not entry.startswith(MULTI):
                expected[index.prefix] += 1
            if view.get(entry) != wanted:
                report.add(f"{schema.name}: {id_bytes!r} has no entry in {index.spec.name}")
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
            f"{schema.name}: tree {int.from_bytes(prefix)} has {found} entries, "
            f"the documents make {expected}"
        )


def _check_log(committer: Committer, report: CheckReport) -> None:
    """Every durable record that is kept can be read and decoded."""
    log = committer.log
    try:
        for record in log.read(Lsn(log.first_lsn - 1)):
            decode_effects(record.payload)
            report.log_records += 1
    except AmberError as error:
        report.add(f"log: {error}")
