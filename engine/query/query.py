"""A query: a filter and an order over one collection, parsed, planned and answered.

Invariants:
- A cursor continues the scan it came from: of the same index, of the documents, or of the sorted
  result. The plan that would be chosen for the query now does not matter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any, TypeAlias

from amberdb._errors import CursorError, QueryError
from amberdb._types import FieldPath, Order, Where
from amberdb.engine.query.filter import Filter, parse
from amberdb.engine.query.order import OrderField, parse_order, sorter
from amberdb.engine.query.page import (
    Identity,
    Page,
    Records,
    open_cursor,
    projector,
    record_of,
)
from amberdb.engine.query.planner import Plan, by_documents, by_index, choose
from amberdb.engine.query.scan import Found, count_entries, documents, entry_ids
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import rowid_of
from amberdb.engine.schema.documents import Projection
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.source import Place, Source
from amberdb.index.ordered.keys import encode_rowid, encode_rowid_desc

_DOCUMENTS = 0
_SORTED = -1
"""Origins of a cursor in place of the number of an index: a scan of the documents, a sorted
result."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one collection, parsed."""

    schema: Schema
    where: Where | None
    filter: Filter
    order: tuple[OrderField, ...]

    @classmethod
    def of(cls, schema: Schema, where: Where | None, order_by: Order | None = None) -> "Query":
        """Parses and checks a query. Raises QueryError."""
        parsed, order = parse(where, schema.options), parse_order(order_by)
        if schema.vectors:
            refuse_vectors(schema, parsed, order)
        return cls(schema, where, parsed, order)

    @property
    def identity(self) -> Identity:
        """The collection's number, the filter and the order, to which a cursor is bound."""
        return self.schema.definition.number, self.where or None, self.order

    def find(
        self,
        source: Source,
        limit: int | None,
        after: str | None,
        fields: Sequence[FieldPath] | None,
        *,
        records: bool = False,
    ) -> Page | Records:
        """A page of the documents that match, in order; with `records` of their records. Raises
        QueryError, CursorError."""
        if limit is not None and (type(limit) is not int or limit < 0):
            raise QueryError(f"limit must be None or an int of at least 0, not {limit!r}")
        take = _taker(fields, records)
        if after is None:
            origin, place = None, None
        else:
            origin, place = open_cursor(after, self.identity)
        plan = self._plan(source, limit, origin)
        page: Page | Records = Records() if records else Page()
        found: Iterator[Found]
        if plan.is_sorted and origin != _SORTED:
            if take is not None and fields == ["id"] and not records and self._has_ids(plan):
                pairs = entry_ids(source, plan, place)
                found = ((at, b"", Projection(id=id)) for at, id in pairs)
                take = None
            else:
                found = documents(source, self.schema, plan, place, shape=self._shape(plan))
            self._scan(page, take, found, plan, limit)
        else:
            self._sort(page, take, source, plan, limit, place)
        return page

    def count(self, source: Source) -> int:
        """The number of documents that match and have not expired."""
        schema = self.schema
        if self.filter.is_empty:
            count = CollectionCounters.unpack(source.get(schema.counters_key)).documents
            if schema.expires_at is not None:
                high = schema.expiry_bound(source.now_us)
                count -= sum(1 for _ in source.scan(schema.expiry_prefix, high))
            return count
        plan = choose(source, schema, self.filter, (), False)
        if self._has_ids(plan):
            return count_entries(source, plan)
        return sum(1 for _ in documents(source, schema, plan, shape=self._shape(plan)))

    def ids(self, source: Source) -> list[str]:
        """The ids of all documents that match."""
        plan = choose(source, self.schema, self.filter, (), False)
        if self._has_ids(plan):
            return [id for _, id in entry_ids(source, plan)]
        matches = documents(source, self.schema, plan, shape=self._shape(plan))
        return [document["id"] for _, _, document in matches]

    def explain(self, source: Source) -> dict[str, Any]:
        """The plan of find() with a limit, as a map for the user."""
        return choose(source, self.schema, self.filter, self.order, True).explain(self.order)

    # -- inside ------------------------------------------------------------------------------

    def _has_ids(self, plan: Plan) -> bool:
        """Whether the entries of the plan are those of the documents that match, one for each."""
        return plan.residual.is_empty and not plan.is_multi and self.schema.expires_at is None

    def _shape(self, plan: Plan) -> str:
        """The query in the words of a full-scan warning; empty, which means no warning, when an
        index is used or when the query asks for all documents."""
        if not plan.is_full_scan or (self.filter.is_empty and not self.order):
            return ""
        order = ", ".join("-" * field.descending + field.path for field in self.order)
        return f"{self.filter.shape} order_by=[{order}]" if order else self.filter.shape

    def _plan(self, source: Source, limit: int | None, origin: int | None) -> Plan:
        """The plan of the cursor's origin; without a cursor the best plan. Raises CursorError."""
        if origin is None or origin == _SORTED:
            return choose(source, self.schema, self.filter, self.order, limit is not None)
        if origin == _DOCUMENTS:
            return by_documents(self.schema, self.filter, self.order)
        plan = by_index(source, self.schema, origin, self.filter, self.order)
        if plan is None or not plan.is_sorted:
            raise CursorError(
                "the index that this cursor continues was dropped or is being rebuilt: start again"
            )
        return plan

    def _scan(
        self,
        page: Page | Records,
        take: "_Take | None",
        found: Iterator[Found],
        plan: Plan,
        limit: int | None,
    ) -> None:
        """Fills a page from a scan that is in the query's order."""
        if limit == 0:
            return
        append: Callable[[Any], None] = page.append
        match: Found | None = None
        for match in islice(found, limit):
            append(match[2] if take is None else take(match))
        if match is not None and len(page) == limit:
            origin = _DOCUMENTS if plan.index is None else plan.index.number
            page.stop_at(self.identity, origin, match[0])

    def _sort(
        self,
        page: Page | Records,
        take: "_Take | None",
        source: Source,
        plan: Plan,
        limit: int | None,
        after: Place | None,
    ) -> None:
        """Fills a page from all documents that match, sorted in memory."""
        key = sorter(self.order)
        rowid = encode_rowid_desc if self.order[-1].descending else encode_rowid

        def keyed() -> Iterator[Found]:
            for _, value, document in documents(source, self.schema, plan, shape=self._shape(plan)):
                place = key(document, value) + rowid(rowid_of(value))
                if after is None or place > after:
                    yield place, b"" if take is None else value, document

        by_place: Callable[[Found], bytes] = _first
        if limit is None:
            best = sorted(keyed(), key=by_place)
        else:
            best = nsmallest(limit, keyed(), key=by_place)
        extend: Callable[[Iterable[Any]], None] = page.extend
        extend(match[2] if take is None else take(match) for match in best)
        if best and len(best) == limit:
            page.stop_at(self.identity, _SORTED, best[-1][0])


_Take: TypeAlias = Callable[[Found], Any]
"""From a match to an item of the page."""


def _taker(fields: Sequence[FieldPath] | None, records: bool) -> _Take | None:
    """None for the document itself. Raises QueryError."""
    project = None if fields is None else projector(fields)
    if records:
        return lambda match: record_of(
            match[1], match[2], match[2] if project is None else project(match[2])
        )
    return None if project is None else lambda match: project(match[2])


def refuse_vectors(schema: Schema, where: Filter, order: tuple[OrderField, ...] = ()) -> None:
    """Raises QueryError for a filter or an order that compares vectors."""
    where.refuse_vectors(schema.vectors)
    for path, _ in order:
        if path in schema.vectors:
            raise QueryError(f"{path!r} holds vectors, which have no order")


def _first(item: Found) -> bytes:
    return item[0]
