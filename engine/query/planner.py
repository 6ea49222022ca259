"""The planner: chooses the index for a filter and an order, and the key ranges to scan.

Invariants:
- A plan changes how many entries are read, never which documents match or their order: conditions
  that the ranges do not decide stay in the residual filter, and an index serves an order only if it
  breaks ties as the order does.
- Ties of an order are broken by rowid, in the direction of its last field.
- A sparse index serves only filters that exclude None and missing values in all of its fields.
- While a collection is being migrated, its indexes hold entries of the older documents, so no index
  is used.
"""

from dataclasses import dataclass
from typing import Any

from amberdb.engine.query.condition import FieldBounds
from amberdb.engine.query.filter import Filter
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import MULTI, CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.source import Range, Source
from amberdb.index.ordered.keys import class_range, class_range_desc, encode, encode_desc

PREFIXES_MAX = 200
"""The most ranges that $in conditions open in one index; further conditions stay in the residual
filter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The index, the ranges and the residual filter of a query."""

    index: CompiledIndex | None
    """None: a scan of the documents, by id."""
    ranges: tuple[Range, ...]
    """Ascending and disjoint."""
    reverse: bool
    is_sorted: bool
    """The scan yields the order of the query, if it has one."""
    residual: Filter
    is_multi: bool
    """A document may have several entries, so it is yielded at its first entry in the ranges."""
    equals: int = 0
    """How many leading fields of the index the ranges fix by equality."""
    has_range: bool = False

    @property
    def is_full_scan(self) -> bool:
        return self.index is None and not self.has_range

    def explain(self, order: tuple[OrderField, ...]) -> dict[str, Any]:
        name = "id" if self.index is None else self.index.spec.name
        return {
            "index": None if self.is_full_scan else name,
            "equals": self.equals,
            "range": self.has_range,
            "ranges": len(self.ranges),
            "direction": "descending" if self.reverse else "ascending",
            "order": "none" if not order else "index" if self.is_sorted else "sort",
            "filter": self.residual.shape,
        }


def choose(
    source: Source, schema: Schema, where: Filter, order: tuple[OrderField, ...], has_limit: bool
) -> Plan:
    """The best plan by rule. Most fields fixed by equality first; then, with a limit, an index in
    the order of the query before a range, and without a limit a range before the order."""
    if _ids(where) is not None:
        return by_documents(schema, where, order)
    best: Plan | None = None
    best_score: tuple[int, ...] = (0, 0, 0, 0)
    for index in _candidates(source, schema, where, order):
        if best_score[0] and not _narrows_first(index, where):
            break  # the other candidates only serve the order, and fix no field
        plan = _match(index, where, order, is_multi=False)
        score = _score(plan, order, has_limit)
        if score[:3] > (0, 0, 0) and score > best_score:
            best, best_score = plan, score
    if best is None or best.index is None:
        return by_documents(schema, where, order)
    if source.get(MULTI + best.index.prefix) is not None:
        return _match(best.index, where, order, is_multi=True)
    return best


def _candidates(
    source: Source, schema: Schema, where: Filter, order: tuple[OrderField, ...]
) -> list[CompiledIndex]:
    """Usable indexes whose first field the filter narrows, then those whose first field is the
    first of the order. This test is cheaper than _match()."""
    narrowed: list[CompiledIndex] = []
    ordered: list[CompiledIndex] = []
    if schema.migration is not None:
        return narrowed
    for index in schema.indexes:
        if _narrows_first(index, where):
            matching = narrowed
        elif order and order[0].path == index.encoder.paths[0]:
            matching = ordered
        else:
            continue
        if index in schema.queues:
            continue
        if source.is_built(index) and (not index.spec.sparse or _is_dense(index, where)):
            matching.append(index)
    return narrowed + ordered


def _narrows_first(index: CompiledIndex, where: Filter) -> bool:
    bounds = where.fields.get(index.encoder.paths[0])
    return bounds is not None and bounds.narrows


def by_documents(schema: Schema, where: Filter, order: tuple[OrderField, ...]) -> Plan:
    """The plan without an index: the documents whose ids the filter names, or all documents."""
    ids = _ids(where)
    if ids is None:
        whole = (schema.prefix, end_of(schema.prefix))
        return Plan(None, (whole,), False, not order, where, False)
    ranges = tuple((schema.prefix + id, schema.prefix + id + b"\0") for id in ids)
    return Plan(None, ranges, False, not order, where, False, equals=1, has_range=True)


def by_index(
    source: Source, schema: Schema, number: int, where: Filter, order: tuple[OrderField, ...]
) -> Plan | None:
    """The plan over the index with this number; None if it was dropped or is not usable."""
    for index in schema.indexes if schema.migration is None else ():
        if index.number == number and source.is_built(index):
            is_multi = source.get(MULTI + index.prefix) is not None
            return _match(index, where, order, is_multi=is_multi)
    return None


def _score(plan: Plan, order: tuple[OrderField, ...], has_limit: bool) -> tuple[int, ...]:
    serves = int(bool(order) and plan.is_sorted)
    fields = -len(plan.index.spec.fields) if plan.index is not None else 0
    if has_limit:
        return plan.equals, serves, int(plan.has_range), fields
    return plan.equals, int(plan.has_range), serves, fields


def _is_dense(index: CompiledIndex, where: Filter) -> bool:
    """Whether a sparse index has an entry for every document that matches."""
    bounds = where.fields
    return all(path in bounds and bounds[path].excludes_none for path in index.encoder.paths)


def _ids(where: Filter) -> list[bytes] | None:
    """The ids that the filter names, as bytes, ascending; None if it does not fix the id."""
    bounds = where.fields.get("id")
    if bounds is None or bounds.equals is None:
        return None
    return sorted(value.encode() for value in bounds.equals if type(value) is str)


def _match(
    index: CompiledIndex, where: Filter, order: tuple[OrderField, ...], *, is_multi: bool
) -> Plan:
    encoder = index.encoder
    prefixes = [index.prefix]
    fixed: set[str] = set()
    exact: list[str] = []
    ranges: list[Range] | None = None
    equals = 0
    for position, path in enumerate(encoder.paths):
        bounds = where.fields.get(path)
        if bounds is None or not bounds.narrows:
            break
        if bounds.equals is None:
            descends = encoder.descending[position]
            ranges = [range_of(prefix, bounds, descends, is_multi) for prefix in prefixes]
        elif len(bounds.equals) * len(prefixes) <= PREFIXES_MAX:
            encode = encoder.encoders[position]
            keys = {encode(value) for value in bounds.equals}
            prefixes = [prefix + key for prefix in prefixes for key in keys]
            equals += 1
            if len(keys) == 1:
                fixed.add(path)
        else:
            break
        # An empty list has the entry of None, but {x: None} does not match it.
        if bounds.exact and (bounds.equals is None or None not in bounds.equals):
            exact.append(path)
        if ranges is not None:
            break
    has_range = ranges is not None
    if ranges is None:
        ranges = [(prefix, end_of(prefix)) for prefix in prefixes]
    ranges = sorted({(low, high) for low, high in ranges if low < high})
    is_sorted, reverse = not order, False
    if order and len(prefixes) == 1 and not (is_multi and has_range):
        is_sorted, reverse = _serves(index, order, set() if is_multi else fixed, equals)
    residual = where if is_multi else where.without(exact)
    return Plan(index, tuple(ranges), reverse, is_sorted, residual, is_multi, equals, has_range)


def range_of(prefix: bytes, bounds: FieldBounds, descending: bool, is_multi: bool) -> Range:
    """The range of keys between the bounds of one field, under a prefix of fixed fields."""
    low, high = bounds.low, bounds.high
    if low is not None and high is not None and is_multi and not bounds.is_one:
        high = None  # one element of a list may meet the low bound and another the high one
    some = low if low is not None else high
    if descending:
        first, last = class_range_desc(some)
        start, end = prefix + first, prefix + last
        if high is not None:
            key = prefix + encode_desc(high)
            start = key if bounds.high_inclusive else end_of(key)
        if low is not None:
            key = prefix + encode_desc(low)
            end = end_of(key) if bounds.low_inclusive else key
        return start, end
    first, last = class_range(some)
    start, end = prefix + first, prefix + last
    if low is not None:
        key = prefix + encode(low)
        start = key if bounds.low_inclusive else end_of(key)
    if high is not None:
        key = prefix + encode(high)
        end = end_of(key) if bounds.high_inclusive else key
    return start, end


def _serves(
    index: CompiledIndex, order: tuple[OrderField, ...], fixed: set[str], equals: int
) -> tuple[bool, bool]:
    """(whether a scan after `equals` fixed fields gives the order, whether it runs backwards)"""
    paths = index.encoder.paths[equals:]
    descending = index.encoder.descending[equals:]
    wanted = [field for field in order if field.path not in fixed]
    if tuple(field.path for field in wanted) != paths:
        return False, False
    last_descends = index.encoder.descending[-1]
    turned = {
        field.descending != stored for field, stored in zip(wanted, descending, strict=True)
    } or {order[-1].descending != last_descends}
    if len(turned) > 1:
        return False, False
    (reverse,) = turned
    return (last_descends != reverse) == order[-1].descending, reverse
