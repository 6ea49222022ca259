"""A query: a filter and an order over one collection, checked, planned and answered.

Invariants:
- A cursor continues the order it came from: of an index, of the documents, or of the sorted result.
  Which plan finds the documents of a page does not matter.
- What a filter is checked for depends on its shape, which is checked once, or on single values,
  each of which is encoded or compiled whenever it is used.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from typing import Any, Final, TypeAlias, final

from amberdb._errors import CursorError, QueryError
from amberdb._types import Document, FieldPath, Order, Where
from amberdb.engine.query.access import Access, Route, by_id
from amberdb.engine.query.choice import at_once, narrowest, race, sorted_as
from amberdb.engine.query.covering import Covering
from amberdb.engine.query.filter import Filter, parse
from amberdb.engine.query.order import OrderField, parse_order, sorter
from amberdb.engine.query.page import (
    Identity,
    Page,
    open_cursor,
    parse_fields,
    projecting,
    record_of,
)
from amberdb.engine.query.planner import Plan, Statement, plan_of
from amberdb.engine.query.prepared import Prepared, prepared
from amberdb.engine.query.scan import Found, documents
from amberdb.engine.query.shape import shape_of
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import BODY, rowid_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import join_all
from amberdb.engine.storage.source import Place, Source
from amberdb.index.ordered.keys import encode_rowid, encode_rowid_desc
from amberdb.index.paths import Path

_DOCUMENTS = 0
_SORTED = -1
_JOINED = 128
"""Documents whose vectors are read at once."""
"""Origins of a cursor in place of the number of an index: a scan of the documents, a sorted
result."""
RANGES_MANY: Final = 200
"""Ranges whose number is compared with that of the documents."""

Stored: TypeAlias = tuple[bytes, bytes, Document]
"""A document's key, its value, and the document as it is stored."""
_Answer: TypeAlias = tuple[int, Iterable[Found]]
"""The origin of a cursor, and the matches in order."""


@final
class Query:
    """One query of one collection: checked, and planned as far as its shape allows."""

    __slots__ = (
        "_filter",
        "_prepared",
        "_shaped",
        "_statement",
        "order",
        "schema",
        "where",
    )

    def __init__(self, schema: Schema, where: Where | None, order: tuple[OrderField, ...]) -> None:
        self.schema = schema
        self.where = where
        self.order = order
        self._filter: Filter | None = None
        self._shaped = shaped = shape_of(where)
        self._prepared: Prepared | None = None
        if (
            shaped is not None
            and sum(shaped.sizes_bytes) <= schema.options.query_bytes_max
            and not (shaped.branches and schema.vectors)  # which no branch may compare
        ):
            self._prepared = prepared(schema, shaped.shape, order)
        if self._prepared is not None:
            self._statement = self._prepared.statement
        else:
            parsed = self.filter
            refuse_vectors(schema, parsed, order)
            self._statement = Statement(schema, parsed.fields, order)

    @classmethod
    def of(cls, schema: Schema, where: Where | None, order_by: Order | None = None) -> "Query":
        """Checks a query. Raises QueryError."""
        return cls(schema, where, parse_order(order_by))

    @property
    def filter(self) -> Filter:
        """The parsed filter."""
        if self._filter is None:
            self._filter = parse(self.where, self.schema.options)
        return self._filter

    @property
    def filter_shape(self) -> str:
        """The filter without its values."""
        if self._prepared is None or self._shaped is None or self._shaped.is_nested:
            return self.filter.shape
        return self._prepared.filter_shape

    @property
    def asks_all(self) -> bool:
        """Whether the filter has no condition."""
        return not self.where or (self._filter is not None and self._filter.is_empty)

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
    ) -> Page[Any]:
        """A page of the documents that match, in order; with `records` of their records. Raises
        QueryError, CursorError."""
        if limit is not None and (type(limit) is not int or limit < 0):
            raise QueryError(f"limit must be None or an int of at least 0, not {limit!r}")
        limit = None if limit is None else min(limit, sys.maxsize)
        paths = None if fields is None else parse_fields(fields)
        take = _taker(paths, records)
        if after is None:
            origin, place = None, None
        else:
            origin, place = open_cursor(after, self.identity)
        plans = self._plans(source, origin)
        kept = None if records else paths
        if not plans[0].is_sorted or origin == _SORTED:
            origin, found = self._sorted(source, narrowest(source, plans), limit, place)
        elif limit is None and place is None:
            origin, found = self._whole(source, plans, kept)
        else:
            origin, found = self._paged(source, plans, limit, place, kept)
        page: Page[Any] = Page()
        append: Callable[[Any], None] = page.append
        match: Found | None = None
        if vectors := self._vectors(paths):
            found = _joined(found, vectors, source)
        for match in found:
            append(match[2] if take is None else take(match))
        if match is not None and len(page) == limit:
            page.stop_at(self.identity, origin, match[0])
        return page

    def count(self, source: Source) -> int:
        """The number of documents that match and have not expired."""
        schema = self.schema
        if self.asks_all:
            count = CollectionCounters.unpack(source.get(schema.counters_key)).documents
            if schema.expires_at is not None:
                high = schema.expiry_bound(source.now_us)
                count -= sum(1 for _ in source.scan(schema.expiry_prefix, high))
            return count
        plan = self.narrowest(source)
        covering = Covering.of(source, schema, plan, ())
        if covering is not None:
            return covering.count()
        return sum(1 for _ in self._matches(source, plan))

    def stored(
        self, source: Source, after: tuple[Route, Place] | None = None
    ) -> tuple[Route, Iterator[tuple[Place, Stored]]]:
        """All documents that match, each with its place, and the route of the plan that finds them:
        in the order of a scan of that plan, or those past the place of an earlier scan. When its
        route is gone, all."""
        plan, start = None, None
        if after is not None:
            paths = [path for path in self._statement.paths(source) if path.route == after[0]]
            if paths:
                plan, start = self._plan(source, paths[0]), after[1]
        plan = plan or self.narrowest(source)
        prefix, decode = self.schema.prefix, self.schema.decode
        matches: Iterable[Found] = self._matches(source, plan, start)
        if self.schema.migration is not None:
            matches = ((place, value, decode(value[BODY])) for place, value, _ in matches)
        if self.schema.vectors:
            matches = _joined(matches, self.schema.vectors, source)
        found = (
            (place, (prefix + document["id"].encode(), value, document))
            for place, value, document in matches
        )
        return plan.access.route, found

    def narrowest(self, source: Source, entries_max: int | None = None) -> Plan:
        """The plan with the least work for all documents that match, in no order; any when all have
        more than `entries_max` entries."""
        return narrowest(source, self._plans(source), entries_max)

    def explain(self, source: Source, fields: Sequence[FieldPath] | None = None) -> dict[str, Any]:
        """How find() with a limit begins, as a map for the user. Raises QueryError."""
        kept = None if fields is None else parse_fields(fields)
        plans = self._plans(source)
        plan = plans[0]
        if len(plans) > 1:
            plan = at_once(source, plans) or (plan if plan.is_sorted else narrowest(source, plans))
        others = [each.access.name for each in plans if each is not plan]
        is_covering = (
            kept is not None
            and not others
            and plan.is_sorted
            and Covering.of(source, self.schema, plan, kept) is not None
        )
        return {**plan.explain(self.order), "covering": is_covering, "alternatives": others}

    # -- inside ------------------------------------------------------------------------------

    def _vectors(self, paths: Sequence[Path] | None) -> list[str]:
        """The vector fields among those that are returned."""
        vectors = self.schema.vectors
        if not vectors or paths is None:
            return list(vectors)
        return [path.segments[0] for path in paths if path.segments[0] in vectors]

    def _shape(self, plan: Plan) -> str:
        """The query in the words of a full-scan warning; empty, which means no warning, when an
        index is used or when the query asks for all documents."""
        if not plan.is_full_scan or (self.asks_all and (not self.order or plan.is_sorted)):
            return ""
        order = ", ".join("-" * field.descending + field.path for field in self.order)
        return f"{self.filter.shape} order_by=[{order}]" if order else self.filter.shape

    def _plans(self, source: Source, origin: int | None = None) -> list[Plan]:
        """The plans among which the values decide. After a cursor that of its origin is the first.
        Raises CursorError."""
        paths = self._statement.paths(source)
        if origin is not None and origin != _SORTED:
            first = self._origin(source, origin)
            paths = (first, *[path for path in paths if path.index is not first.index])
            return [self._plan(source, path) for path in paths]
        plans = [self._plan(source, path) for path in paths]
        for plan in plans:
            if len(plan.ranges) > RANGES_MANY:
                return self._without_many_ranges(source, plans)
        return plans

    def _origin(self, source: Source, number: int) -> Access:
        """The path of a cursor's origin. Raises CursorError."""
        path = self._statement.documents()
        if number != _DOCUMENTS:
            over_index = self._statement.path_over(source, number)
            if over_index is None:
                raise CursorError(
                    "the index that this cursor continues was dropped or is being rebuilt: start "
                    "again"
                )
            path = over_index
        return path

    def _plan(self, source: Source, path: Access) -> Plan:
        """The plan of a path for the values of this query."""
        if self._prepared is None or self._shaped is None:
            plan = plan_of(path, self.filter)
        else:
            plan = self._prepared.plan(path, self._shaped)
        expiry = self.schema.expiry
        if expiry is not None and path.index is expiry:  # documents that have expired are passed
            start = self.schema.expiry_bound(source.now_us)
            ranges = [(max(low, start), high) for low, high in plan.ranges if start < high]
            plan.ranges = tuple(ranges)
        return plan

    def _without_many_ranges(self, source: Source, plans: list[Plan]) -> list[Plan]:
        """The plans but those with more ranges than there are documents; without any the scan of
        all documents."""
        stored = CollectionCounters.unpack(source.get(self.schema.counters_key)).documents
        few = [plan for plan in plans if len(plan.ranges) <= stored]
        return few or [self._plan(source, by_id(self.schema.prefix, {}, self.order))]

    def _matches(
        self,
        source: Source,
        plan: Plan,
        after: Place | None = None,
        kept: Sequence[Path] | None = None,
    ) -> Iterator[Found]:
        """The documents that a plan finds, in its order; of which the paths that are `kept` will
        do."""
        if kept is not None:
            covering = Covering.of(source, self.schema, plan, kept)
            if covering is not None:
                return covering.documents(after)
        return documents(source, self.schema, plan, after, shape=self._shape(plan))

    def _whole(self, source: Source, plans: list[Plan], kept: Sequence[Path] | None) -> _Answer:
        """All documents that match."""
        plan = narrowest(source, plans)
        if plan.is_sorted:
            return _DOCUMENTS, self._matches(source, plan, kept=kept)
        if self.order:
            return self._sorted(source, plan, None, None)
        return _DOCUMENTS, sorted_as(plans[0], source, self.schema, plan)

    def _paged(
        self,
        source: Source,
        plans: list[Plan],
        limit: int | None,
        after: Place | None,
        kept: Sequence[Path] | None,
    ) -> _Answer:
        """A page in the order of the first plan, which is the query's."""
        plan = plans[0]
        found: Iterable[Found]
        if limit == 0:
            found = ()
        elif len(plans) == 1:
            found = islice(self._matches(source, plan, after, kept), limit)
        else:
            plan, found = race(source, self.schema, plans, limit, after)
        return _DOCUMENTS if plan.index is None else plan.index.number, found

    def _sorted(
        self, source: Source, plan: Plan, limit: int | None, after: Place | None
    ) -> _Answer:
        """A page from all documents that match, sorted in memory."""
        key = sorter(self.order)
        rowid = encode_rowid_desc if self.order[-1].descending else encode_rowid

        def placed() -> Iterator[Found]:
            for _, value, document in self._matches(source, plan):
                place = key(document, value) + rowid(rowid_of(value))
                if after is None or place > after:
                    yield place, value, document

        by_place: Callable[[Found], bytes] = _first
        if limit is None:
            return _SORTED, sorted(placed(), key=by_place)
        return _SORTED, nsmallest(limit, placed(), key=by_place)


def _joined(matches: Iterable[Found], fields: Iterable[str], source: Source) -> Iterator[Found]:
    """The matches, their vectors read, many at once."""
    matches = iter(matches)
    while block := list(islice(matches, _JOINED)):
        join_all((match[2] for match in block), fields, source)
        yield from block


_Take: TypeAlias = Callable[[Found], Any]
"""From a match to an item of the page."""


def _taker(paths: Sequence[Path] | None, records: bool) -> _Take | None:
    """None for the document itself."""
    project = None if paths is None else projecting(paths)
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
