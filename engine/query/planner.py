"""The planner: which access paths can answer a query best, and the plans that they make of it.

Invariants:
- A plan changes how many entries are read, never which documents match or their order.
- What is planned depends on the schema, the shape of the filter and the order, not on the values:
  a Statement is kept and used for other values. What it takes from a view, which indexes are
  complete and which have several entries per document, is asked of each view.
- A path is left out only if another one reads no more, whatever the values are. choice.py decides
  among the others.
- A sparse index serves only filters that exclude None and missing values in all of its fields.
- While a collection is being migrated, its indexes hold entries of the older documents, so no index
  is used but the documents' own tree.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from amberdb.engine.query.access import (
    PREFIXES_FEW,
    Access,
    by_expiry,
    by_id,
    by_index,
    keys_of,
    upper,
)
from amberdb.engine.query.condition import FieldBounds
from amberdb.engine.query.filter import Filter
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.expiry_index import ExpiryIndex
from amberdb.engine.schema.ordered_index import MULTI, CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.source import Place, Range, Source

_CHOSEN_MAX: Final = 16
"""States of the indexes for which a Statement keeps its paths: an index is built once, and gets its
mark once."""
_UNUSABLE, _SINGLE, _MULTIPLE = range(3)
"""States of an index at a view."""


@dataclass(slots=True)
class Plan:
    """An access path with the ranges and the residual filter of a query."""

    access: Access
    ranges: tuple[Range, ...]
    """Ascending and disjoint."""
    residual: Filter
    heads: Sequence[bytes] = ()
    """Of ranges that are merged: what the keys of each begin with, before the fields of the order;
    ascending. None is the beginning of another one."""

    @property
    def index(self) -> CompiledIndex | None:
        """None: the documents are read, by id."""
        return self.access.index

    @property
    def is_multi(self) -> bool:
        return self.access.is_multi

    @property
    def is_sorted(self) -> bool:
        return self.access.is_sorted

    @property
    def reverse(self) -> bool:
        return self.access.reverse

    @property
    def is_full_scan(self) -> bool:
        return self.access.index is None and not self.access.used

    def rank(self, place: Place) -> bytes:
        """The part of a place that puts it in the order of the scan."""
        heads = self.heads
        return place[len(heads[bisect_right(heads, place) - 1]) :] if heads else place

    @property
    def by_ids(self) -> bool:
        """Whether each range is the key of one document."""
        return self.access.index is None and bool(self.access.equals)

    def explain(self, order: tuple[OrderField, ...]) -> dict[str, Any]:
        access = self.access
        is_named = not self.is_full_scan or (bool(order) and access.is_sorted)
        return {
            "index": access.name if is_named else None,
            "equals": len(access.equals),
            "range": access.range is not None,
            "ranges": len(self.ranges),
            "direction": "descending" if access.reverse else "ascending",
            "order": "none" if not order else "index" if access.is_sorted else "sort",
            "filter": self.residual.shape,
        }


@final
class Statement:
    """A query without its values: the access paths that can answer it."""

    __slots__ = ("_chosen", "_documents", "_fields", "_order", "_relevant", "_sole")

    def __init__(
        self,
        schema: Schema,
        fields: Mapping[str, FieldBounds],
        order: tuple[OrderField, ...],
    ) -> None:
        """`fields` are those of any filter of this shape."""
        self._fields = fields
        self._order = order
        self._relevant = () if schema.migration is not None else _relevant(schema, fields, order)
        self._documents = by_id(schema.prefix, fields, order)
        self._chosen: dict[tuple[int, ...], tuple[Access, ...]] = {}
        self._sole: Access | None = None

    def paths(self, source: Source) -> tuple[Access, ...]:
        """The access paths of which none reads less than another one for all values; at least one.
        Those that give the order are the first, and that of most fields before the others."""
        if self._documents.is_point or not self._relevant:
            return (self._documents,)
        sole = self._sole
        if sole is not None and sole.index is not None and _state(source, sole.index) == _SINGLE:
            return (sole,)
        states = tuple([_state(source, index) for index in self._relevant])
        chosen = self._chosen.get(states)
        if chosen is None:
            if len(self._chosen) >= _CHOSEN_MAX:
                self._chosen.clear()
            chosen = self._chosen[states] = self._choose(states)
        return chosen

    def documents(self) -> Access:
        """The path over the tree of the documents."""
        return self._documents

    def path_over(self, source: Source, number: int) -> Access | None:
        """The path over the index with this number that gives the order, if there is one."""
        for index in self._relevant:
            if index.number == number:
                paths = self._paths_over(index, _state(source, index))
                return next((path for path in paths if path.is_sorted), None)
        return None

    def _paths_over(self, index: CompiledIndex, state: int) -> list[Access]:
        """The paths over one index. Those that give an order give it by the same places, the first
        of them with the fewest entries; without an order all give that of the index."""
        if state == _UNUSABLE:
            return []
        if isinstance(index, ExpiryIndex):
            return [by_expiry(index, self._fields, self._order)]
        is_multi = state == _MULTIPLE
        path = by_index(index, self._fields, self._order, is_multi=is_multi)
        paths = [path]
        if path.prefixes > PREFIXES_FEW:
            paths.append(
                by_index(index, self._fields, self._order, is_multi=is_multi, prefixes_max=1)
            )
        halves = [upper(path) for path in paths]
        return [*paths, *[half for half in halves if half is not None]]

    def find_sole(self) -> None:
        """Finds the path that, while its index is complete and has one entry per document, makes
        all others needless in whatever state they are: most queries have one."""
        best, *others = self._choose((_SINGLE,) * len(self._relevant))
        multiple = self._choose((_MULTIPLE,) * len(self._relevant))
        if best.index is not None and not others and all(map(best.outdoes, multiple)):
            self._sole = best

    def _choose(self, states: tuple[int, ...]) -> tuple[Access, ...]:
        paths: list[Access] = []
        for index, state in zip(self._relevant, states, strict=True):
            over_index = self._paths_over(index, state)
            if over_index and over_index[0].is_point:
                return (over_index[0],)
            paths += over_index
        documents = self._documents
        usable = [path for path in paths if path.used or (self._order and path.is_sorted)]
        if documents.used or (self._order and documents.is_sorted):
            usable.insert(0, documents)
        best: list[Access] = []
        for path in sorted(usable, key=_rank):
            if not any(other.outdoes(path) for other in best):
                best.append(path)
        return tuple(best) or (documents,)


def _relevant(
    schema: Schema, fields: Mapping[str, FieldBounds], order: tuple[OrderField, ...]
) -> tuple[CompiledIndex, ...]:
    """The indexes whose first field the filter narrows, or is the first of the order; the expiry
    index after those that were declared."""
    first = order[0].path if order else None

    def narrows(path: str) -> bool:
        return path in fields and fields[path].narrows

    declared = [
        index
        for index in schema.indexes
        if index not in schema.queues
        and (index.encoder.paths[0] == first or narrows(index.encoder.paths[0]))
        and (not index.spec.sparse or _is_dense(index, fields))
    ]
    expiry = schema.expiry
    if expiry is None or not narrows(expiry.encoder.paths[0]) or not _is_dense(expiry, fields):
        return tuple(declared)
    return (*declared, expiry)


def _is_dense(index: CompiledIndex, fields: Mapping[str, FieldBounds]) -> bool:
    """Whether a sparse index has an entry for every document that matches."""
    return all(path in fields and fields[path].excludes_none for path in index.encoder.paths)


def _state(source: Source, index: CompiledIndex) -> int:
    if isinstance(index, ExpiryIndex):
        return _SINGLE
    if not source.is_built(index):
        return _UNUSABLE
    return _SINGLE if source.get(MULTI + index.prefix) is None else _MULTIPLE


def _rank(path: Access) -> tuple[int, ...]:
    """Sorts paths: those that give the order first, then by the fields that they use, equalities
    before ranges; of equal ones the tree of the documents, and then the index of fewer fields."""
    fields = 0 if path.index is None else len(path.index.spec.fields)
    return -path.is_sorted, -len(path.equals), -len(path.used), path.prefixes, fields


def plan_of(path: Access, where: Filter) -> Plan:
    """The plan of a path for a parsed filter."""
    bounds = {name: keys_of(where.fields[name]) for name in path.used}
    heads = sorted(path.heads(bounds)) if path.is_merged else ()
    return Plan(path, path.ranges(bounds), where.without(path.decided), heads)
