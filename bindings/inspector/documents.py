"""A page of documents of a collection, with the plan that answers it.

Invariants:
- Paging is by the cursor of the engine: a page costs what its documents cost, however many there
  are before it. Nothing is counted.
- The plan is that of the shown filter and order: explain() of the same query.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from amberdb import Database, QueryError, Record, Where, value_at
from amberdb.inspector.filters import where_text
from amberdb.inspector.values import cell, kind_of

LIMIT: Final = 50
LIMIT_MAX: Final = 500
SCAN_DOCUMENTS: Final = 200_000
"""A scan of a collection with more takes seconds: a person is asked before one begins."""
COLUMNS: Final = 6
"""The columns that are shown when nobody has chosen any."""
_RECORD_COLUMNS: Final = ("$version", "$created_at", "$updated_at")
"""What orders name so: of the record, not of the document."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """How the query is answered, of explain()."""

    index: str | None
    """None: all documents are read."""
    order: str
    """ "index", "sort" or "none"."""
    filter: str
    """The conditions that are tested on each document."""
    facts: Mapping[str, Any]
    """All that explain() says."""

    @property
    def is_full_scan(self) -> bool:
        """Documents are read that may not be shown: a filter, or an order, without an index."""
        return self.index is None and (self.filter != "{}" or self.order == "sort")


@final
@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a row."""

    text: str
    kind: str


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A document of the page."""

    id: str
    cells: tuple[Cell, ...]
    record: Record


@final
@dataclass(frozen=True, slots=True)
class DocumentsPage:
    """A page of documents."""

    collection: str
    columns: tuple[str, ...]
    """The shown fields, dotted paths; the id is not among them, since each row has it."""
    fields: tuple[str, ...]
    """All fields at the top of the documents of this page: what can be chosen as a column."""
    rows: tuple[Row, ...]
    cursor: str | None
    """To the next page: `after`; None on the last one."""
    plan: Plan
    where: Where | None
    order_by: tuple[str, ...]
    took_ms: float

    @property
    def where_text(self) -> str:
        """The filter as JSON."""
        return where_text(self.where)


def read_plan(
    db: Database, collection: str, *, where: Where | None = None, order_by: Sequence[str] = ()
) -> Plan:
    """How a page of these documents would be answered; none is read. Raises
    CollectionMissingError, QueryError."""
    facts = db[collection].explain(where, order_by=list(order_by) or None)
    return Plan(facts["index"], facts["order"], facts["filter"], facts)


def read_page(
    db: Database,
    collection: str,
    *,
    where: Where | None = None,
    order_by: Sequence[str] = (),
    after: str | None = None,
    columns: Sequence[str] = (),
    limit: int = LIMIT,
) -> DocumentsPage:
    """A page of the documents that match. Raises CollectionMissingError, QueryError,
    CursorError."""
    began = time.perf_counter()
    if not 1 <= limit <= LIMIT_MAX:
        raise QueryError(f"limit={limit}: a page has 1 to {LIMIT_MAX} documents")
    source = db[collection]
    order = list(order_by) or None
    records = source.find(where, order_by=order, limit=limit, after=after, records=True)
    took_ms = (time.perf_counter() - began) * 1000
    fields = _fields(records)
    chosen = tuple(dict.fromkeys(name for name in columns if name and name != "id"))
    chosen = chosen or _default_columns(records, fields)
    return DocumentsPage(
        collection=collection,
        columns=chosen,
        fields=tuple(fields),
        rows=tuple(_row(record, chosen) for record in records),
        cursor=records.cursor,
        plan=read_plan(db, collection, where=where, order_by=order_by),
        where=where,
        order_by=tuple(order_by),
        took_ms=took_ms,
    )


def column_value(record: Record, column: str) -> Any:
    """The value of a column; None when the document has none, or the column is no path."""
    if column in _RECORD_COLUMNS:
        return getattr(record, column[1:])
    try:
        return value_at(record.document, column)
    except ValueError:
        return None


def _row(record: Record, columns: Sequence[str]) -> Row:
    values = [column_value(record, column) for column in columns]
    return Row(record.id, tuple(Cell(cell(value), kind_of(value)) for value in values), record)


def _fields(records: Sequence[Record]) -> list[str]:
    """The fields of the documents, in the order in which they are first seen. Those whose names
    are no paths, as of a key with a dot, are left out."""
    names = dict.fromkeys(name for record in records for name in record.document)
    names.pop("id", None)
    return [name for name in names if name and "." not in name and not name.startswith("$")]


def _default_columns(records: Sequence[Record], fields: Sequence[str]) -> tuple[str, ...]:
    """The fields that most documents have; vectors only where there is nothing else."""
    counts = Counter(name for record in records for name in record.document)
    is_vector = {
        name: any(kind_of(record.document.get(name)) == "vector" for record in records)
        for name in fields
    }
    ranked = sorted(fields, key=lambda name: (is_vector[name], -counts[name], fields.index(name)))
    kept = set(ranked[:COLUMNS])
    return tuple(name for name in fields if name in kept)
