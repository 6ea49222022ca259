"""check() of a database on a server: what is derived equals a rebuild from the documents.

Invariants:
- It reads one state of the server and changes nothing; nobody waits for it.
- A problem is added to the report, and the check goes on after it.
- A document that has expired may have its unique values still, or have given them up.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from amberdb._errors import AmberError
from amberdb._types import Lsn, Progress
from amberdb.engine.integrity.check import CheckReport
from amberdb.engine.schema.document_format import unpack
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.postgres.table import HEAD, KEY, PLACE, SIDES, Row, Table
from amberdb.postgres.view import PostgresView

_BATCH: Final = 1000
_Rows: TypeAlias = list[tuple[Any, ...]]


def check(view: PostgresView, progress: Progress | None) -> CheckReport:
    """Checks every collection of a view."""
    report = CheckReport(lsn=Lsn(view.lsn))
    for table in view.catalogue.tables.values():
        report.collections += 1
        _Checked(view, table, report).run(progress)
    return report


class _Checked:
    """The check of one collection."""

    def __init__(self, view: PostgresView, table: Table, report: CheckReport) -> None:
        self._view = view
        self._table = table
        self._report = report
        schema = table.schema
        self._names = {index.prefix: index.spec.name for index in schema.all_indexes}
        self._names[schema.expiry_prefix] = "the expiry index"
        self._read = Counter[str]()
        """Rows of the tables beside that have a document."""

    def run(self, progress: Progress | None) -> None:
        table, report = self._table, self._report
        columns = "".join(f", d.{name}" for name in table.columns.values())
        sql = (
            f"SELECT {HEAD}{columns} FROM {table.name} d WHERE d.key > %s ORDER BY d.key "
            f"LIMIT {_BATCH}"
        )
        last, count = b"", 0
        while found := self._view.query(sql, [last]):
            last, count = found[-1][KEY], count + len(found)
            self._batch(found)
            if progress is not None:
                progress(table.schema.name, count)
        report.documents += count
        self._compare_totals()
        for beside in (table.entries, table.values):
            ((total,),) = self._view.query(f"SELECT count(*) FROM {beside}", [])
            if total != self._read[beside]:
                report.add(
                    f"{table.schema.name}: {total - self._read[beside]} rows of {beside} have no "
                    "document"
                )

    # -- inside ------------------------------------------------------------------------------

    def _batch(self, found: _Rows) -> None:
        table = self._table
        keys = [row[KEY] for row in found]
        entries = self._beside(f"SELECT key, entry, value FROM {table.entries}", keys)
        values = self._beside(f"SELECT key, value FROM {table.values}", keys)
        self._read[table.entries] += sum(map(len, entries.values()))
        self._read[table.values] += sum(map(len, values.values()))
        rebuilt: list[Row] = []
        for row in found:
            key: bytes = row[KEY]
            try:
                stored = unpack(table.schema.prefix + key, table.value(row))
                document = table.schema.as_stored(stored, self._view.vectors_at)
                wanted = table.rebuilt(stored, document, stored.expires_us - 1)
            except AmberError as error:
                self._report.add(f"{table.schema.name}: {key!r}: {error}")
                continue
            rebuilt.append(wanted)
            self._compare_columns(key, row, wanted)
            self._compare(key, entries.get(key, []), wanted.entries)
            there, uniques = values.get(key, []), [(value,) for value in wanted.uniques]
            if stored.expires_us <= self._view.now_us:
                uniques = [each for each in uniques if each in there]
            self._compare(key, there, uniques)
            if not wanted.marks <= self._view.marks:
                self._report.add(f"{table.schema.name}: {key!r} has a mark that is not there")
        self._compare_searched(rebuilt)

    def _compare_searched(self, rebuilt: list[Row]) -> None:
        for vectors in self._table.vectors.values():
            has = [vectors.spec.vectors(row.document) is not None for row in rebuilt]
            self._read[vectors.name] += sum(has)
            self._report.entries += sum(has)
        for prefix, text in self._table.texts.items():
            rows = self._view.query(text.stored(), [[row.rowid for row in rebuilt]])
            found = {row[0]: text.of_stored(row) for row in rows}
            for row in rebuilt:
                made = text.row(row.rowid, row.document)
                self._read[text.names[0]] += made is not None
                self._report.entries += made is not None
                if found.get(row.rowid) != made:
                    self._add(row.key, prefix, is_missing=made is not None)

    def _compare_totals(self) -> None:
        for vectors in self._table.vectors.values():
            sql = f"SELECT count(DISTINCT rowid) FROM {vectors.name}"
            ((count,),) = self._view.query(sql, [])
            if count != self._read[vectors.name]:
                self._report.add(
                    f"{self._table.schema.name}: {vectors.spec.name} has vectors of {count} "
                    f"documents, {self._read[vectors.name]} have some"
                )
        for prefix, text in self._table.texts.items():
            ((count, units, documents, sum_units),) = self._view.query(text.totals(), [])
            if (count, units) != (documents, sum_units) or count != self._read[text.names[0]]:
                self._report.add(
                    f"{self._table.schema.name}: {self._names[prefix]} has {count} rows and counts "
                    f"{documents}, the documents make {self._read[text.names[0]]}",
                    int.from_bytes(prefix),
                )

    def _beside(self, select: str, keys: list[bytes]) -> dict[bytes, _Rows]:
        """The rows of a table beside, without their key, by it."""
        found: dict[bytes, _Rows] = {}
        for row in self._view.query(f"{select} WHERE key = ANY(%s)", [keys]):
            found.setdefault(row[0], []).append(row[1:])
        return found

    def _compare_columns(self, key: bytes, row: tuple[Any, ...], wanted: Row) -> None:
        if row[SIDES] != len(wanted.entries):
            self._report.add(
                f"{self._table.schema.name}: {key!r} counts {row[SIDES]} entries, and its document "
                f"makes {len(wanted.entries)}"
            )
        places = zip(self._table.columns, row[PLACE:], wanted.places, strict=True)
        for prefix, found, made in places:
            self._report.entries += made is not None
            if found != made:
                self._add(key, prefix, is_missing=made is not None)

    def _compare(self, key: bytes, found: Iterable[Any], made: Iterable[Any]) -> None:
        """Compares rows of a table beside, each of which begins with its keyspace."""
        there, wanted = set(found), set(made)
        self._report.entries += len(wanted)
        for missing in wanted - there:
            self._add(key, missing[0][:KEYSPACE_BYTES], is_missing=True)
        for more in there - wanted:
            self._add(key, more[0][:KEYSPACE_BYTES], is_missing=False)

    def _add(self, key: bytes, prefix: bytes, *, is_missing: bool) -> None:
        number = int.from_bytes(prefix)
        index = self._names.get(prefix, f"keyspace {number}")
        what = "lacks its entry" if is_missing else "has an entry that it does not make"
        self._report.add(f"{self._table.schema.name}: {key!r} {what} in {index}", number)
