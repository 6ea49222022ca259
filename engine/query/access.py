"""Access paths: how one index, or the tree of the documents, can serve a filter and an order, and
the ranges of keys that the values of a filter give.

Invariants:
- An access path depends on the shape of a filter and not on its values, so it can be kept and used
  for other values.
- Every document that matches has an entry in the ranges. Conditions that the ranges do not decide
  are left to the residual filter.
- A path serves an order only if it breaks ties as the order does: by rowid, in the direction of the
  last field. An id has no ties.
- The documents' own tree is sorted by the UTF-8 of their ids, which is the order of the ids.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final, NamedTuple, TypeAlias, final

from amberdb.engine.query.condition import FieldBounds
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.expiry_index import ExpiryIndex
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.storage.source import Range
from amberdb.index.ordered.keys import TAG_DATETIME, TAG_STR, class_range, encode, inverted, text_of

PREFIXES_MAX: Final = 10_000
"""The most ranges that $in conditions open in one index; further conditions stay in the residual
filter."""
PREFIXES_FEW: Final = 16
"""With more ranges than this the entries of the fields in front of the $in may be fewer."""
MERGED_MAX: Final = 64
"""The most ranges whose entries are merged into one order: each has a cursor of its own."""


Route: TypeAlias = tuple[int, int, bool, bool]
"""Tells the access paths of one query apart, also those of another view: the number of the index
(0: the documents), the equalities, whether there is a range, and whether it is the upper half."""


class KeyBounds(NamedTuple):
    """The bounds of FieldBounds, all as keys."""

    equals: Sequence[bytes] | None
    low: bytes | None = None
    low_inclusive: bool = False
    high: bytes | None = None
    high_inclusive: bool = False


def keys_of(bounds: FieldBounds) -> KeyBounds:
    """The keys of the values of these bounds."""
    equals = bounds.equals
    return KeyBounds(
        None if equals is None else list(dict.fromkeys(map(encode, equals))),
        bounds.low, bounds.low_inclusive, bounds.high, bounds.high_inclusive,
    )  # fmt: skip


@final
class Access:
    """One access path. `index` is None for the tree of the documents."""

    __slots__ = (
        "decided",
        "equals",
        "index",
        "is_halved",
        "is_merged",
        "is_multi",
        "is_point",
        "is_sorted",
        "is_upper",
        "prefix",
        "prefixes",
        "range",
        "reverse",
        "used",
    )

    def __init__(
        self,
        index: CompiledIndex | None,
        prefix: bytes,
        equals: tuple[tuple[str, bool], ...],
        range: tuple[str, bool] | None,
    ) -> None:
        self.index = index
        self.prefix = prefix
        self.equals = equals
        """The leading fields, which the ranges fix by equality, and whether each descends."""
        self.range = range
        """The field after them, if the filter gives it a range."""
        self.used = frozenset(path for path, _ in (*equals, *([range] if range else [])))
        self.prefixes = 1
        """How many ranges the equalities open."""
        self.is_sorted = False
        """A scan gives the order of the query, if it has one."""
        self.reverse = False
        self.is_merged = False
        """It gives the order by merging its ranges, each of which is in the order."""
        self.is_multi = False
        """A document may have several entries, so it is yielded at its first entry in the
        ranges."""
        self.is_halved = False
        """Of a range with two bounds, in which a list may have an element for each, only that from
        the low one on is scanned."""
        self.is_upper = False
        """Instead of it that up to the high one."""
        self.is_point = False
        """At most one document is found."""
        self.decided: tuple[str, ...] = ()
        """The fields whose conditions the ranges decide."""

    @property
    def name(self) -> str:
        return "id" if self.index is None else self.index.name

    @property
    def route(self) -> Route:
        number = 0 if self.index is None else self.index.number
        return number, len(self.equals), self.range is not None, self.is_upper

    def outdoes(self, other: "Access") -> bool:
        """Whether this path reads no more than the other one, whatever the values, and gives the
        order if the other one does."""
        return (
            self.used >= other.used
            and (self.is_sorted or not other.is_sorted)
            and self.prefixes <= other.prefixes
            and (not self.is_multi or (other.is_multi and self.range is None))
        )

    def ranges(self, bounds: Mapping[str, KeyBounds]) -> tuple[Range, ...]:
        """The ranges of keys, ascending and disjoint."""
        if self.index is None:
            return self._id_ranges(bounds.get("id") if self.used else None)
        if isinstance(self.index, ExpiryIndex):
            return _time_ranges(self.index, bounds)
        prefixes = self.heads(bounds)
        if self.range is None:
            ranges = [(prefix, end_of(prefix)) for prefix in prefixes]
        else:
            path, descends = self.range
            within = self._half(bounds[path]) if self.is_halved else bounds[path]
            ranges = [range_of(prefix, within, descends) for prefix in prefixes]
        if len(ranges) > 1:
            ranges = sorted(set(ranges))
        return tuple([each for each in ranges if each[0] < each[1]])

    def heads(self, bounds: Mapping[str, KeyBounds]) -> list[bytes]:
        """What the keys of each range begin with: the keyspace and the fields that are fixed."""
        heads = [self.prefix]
        for path, descends in self.equals:
            keys = bounds[path].equals
            assert keys is not None
            if descends:
                keys = list(map(inverted, keys))
            heads = [head + key for head in heads for key in keys]
        return heads

    def _half(self, bounds: KeyBounds) -> KeyBounds:
        if self.is_upper:
            return bounds._replace(low=None, low_inclusive=False)
        return bounds._replace(high=None, high_inclusive=False)

    def _id_ranges(self, bounds: KeyBounds | None) -> tuple[Range, ...]:
        prefix = self.prefix
        if bounds is None:
            return ((prefix, end_of(prefix)),)
        if bounds.equals is not None:
            ids = sorted({text_of(key) for key in bounds.equals if key[0] == TAG_STR})
            return tuple([(prefix + id, prefix + id + b"\0") for id in ids])
        start, end = prefix, end_of(prefix)
        for key in (bounds.low, bounds.high):
            if key is not None and key[0] != TAG_STR:
                return ()  # every id is a str
        if bounds.low is not None:
            start += text_of(bounds.low) + (b"" if bounds.low_inclusive else b"\0")
        if bounds.high is not None:
            end = prefix + text_of(bounds.high) + (b"\0" if bounds.high_inclusive else b"")
        return ((start, end),) if start < end else ()


def by_index(
    index: CompiledIndex,
    fields: Mapping[str, FieldBounds],
    order: tuple[OrderField, ...],
    *,
    is_multi: bool,
    prefixes_max: int = PREFIXES_MAX,
) -> Access:
    """How an ordered index serves a filter with these bounds, and an order, with at most
    `prefixes_max` ranges."""
    encoder = index.encoder
    equals: list[tuple[str, bool]] = []
    range: tuple[str, bool] | None = None
    counts: list[int] = []
    decided: list[str] = []
    for path, descends in zip(encoder.paths, encoder.descending, strict=True):
        bounds = fields.get(path)
        if bounds is None or not bounds.narrows:
            break
        if bounds.equals is None:
            range = (path, descends)
        elif prod(counts) * len(bounds.equals) <= prefixes_max:
            equals.append((path, descends))
            counts.append(len(bounds.equals))
        else:
            break
        # An empty list has the entry of None, but {x: None} does not match it.
        if bounds.exact and (bounds.equals is None or None not in bounds.equals):
            decided.append(path)
        if range is not None:
            break
    access = Access(index, index.prefix, tuple(equals), range)
    access.prefixes = prod(counts)
    access.is_multi = is_multi
    access.is_halved = is_multi and range is not None and fields[range[0]].is_split
    access.is_sorted = not order
    fixed = {path for (path, _), count in zip(equals, counts, strict=True) if count == 1}
    if order and access.prefixes:
        _find_order(access, index, order, fixed)
    if not is_multi:
        access.decided = tuple(decided)
        access.is_point = index.is_unique and len(fixed) == len(encoder.paths)
    return access


def upper(access: Access) -> Access | None:
    """The other half of a path of which one half is scanned: up to the high bound, where the path
    itself begins at the low one. It gives no order."""
    if not access.is_halved:
        return None
    other = Access(access.index, access.prefix, access.equals, access.range)
    other.prefixes = access.prefixes
    other.is_multi = other.is_halved = other.is_upper = True
    return other


def by_expiry(
    index: ExpiryIndex, fields: Mapping[str, FieldBounds], order: tuple[OrderField, ...]
) -> Access:
    """How the expiry index serves a filter that narrows its field, and an order. Its ranges are
    wider than the bounds, so they decide no condition, and they give an order only where its times
    are those of the field."""
    (path,) = index.encoder.paths
    bounds = fields[path]
    access = Access(index, index.prefix, (), (path, False))
    access.prefixes = 1 if bounds.equals is None else len(bounds.equals)
    key = bounds.low or bounds.high
    is_exact = index.is_exact and key is not None and key[0] == TAG_DATETIME
    access.is_sorted = not order or (is_exact and [field.path for field in order] == [path])
    access.reverse = bool(order) and access.is_sorted and order[0].descending
    return access


def by_id(
    prefix: bytes, fields: Mapping[str, FieldBounds], order: tuple[OrderField, ...]
) -> Access:
    """How the tree of the documents serves a filter and an order."""
    bounds = fields.get("id")
    if bounds is None or not bounds.narrows:
        access = Access(None, prefix, (), None)
    elif bounds.equals is None:
        access = Access(None, prefix, (), ("id", False))
    else:
        access = Access(None, prefix, (("id", False),), None)
        access.prefixes = len(bounds.equals)
        access.is_point = access.prefixes == 1
    if access.used and bounds is not None and bounds.exact:
        access.decided = ("id",)
    access.is_sorted = not order or order[0].path == "id"
    access.reverse = bool(order) and access.is_sorted and order[0].descending
    return access


def range_of(prefix: bytes, bounds: KeyBounds, descends: bool) -> Range:
    """The range of keys between the bounds of one field, under a prefix of fixed fields."""
    _, low, low_inclusive, high, high_inclusive = bounds
    if descends:
        low, high = high and inverted(high), low and inverted(low)
        low_inclusive, high_inclusive = high_inclusive, low_inclusive
    some = low or high
    assert some is not None
    start, end = class_range(some)
    start, end = prefix + start, prefix + end
    if low is not None:
        key = prefix + low
        start = key if low_inclusive else end_of(key)
    if high is not None:
        key = prefix + high
        end = end_of(key) if high_inclusive else key
    return start, end


def _time_ranges(index: ExpiryIndex, bounds: Mapping[str, KeyBounds]) -> tuple[Range, ...]:
    """The ranges of the expiry index, those that overlap as one."""
    (field,) = bounds.values()
    if field.equals is None:
        ranges = [index.range_of(field.low, field.high)]
    else:
        ranges = [index.range_of(key, key) for key in field.equals]
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low < merged[-1][1]:
            low, high = merged[-1][0], max(high, merged.pop()[1])
        if low < high:
            merged.append((low, high))
    return tuple(merged)


def _find_order(
    access: Access, index: CompiledIndex, order: tuple[OrderField, ...], fixed: set[str]
) -> None:
    """Finds whether the ranges give the order: one after the other, since they ascend, that of all
    fields that are not fixed to one value; merged, that of the fields after the equalities."""
    encoder = index.encoder
    fields = list(zip(encoder.paths, encoder.descending, strict=True))
    behind = fields[len(access.equals) :]
    if access.is_multi:
        # A document with several entries may be in several ranges, and has more in each.
        if access.prefixes == 1 and access.range is None:
            access.is_sorted, access.reverse = _serves(index, behind, order, order)
        return
    wanted = tuple([field for field in order if field.path not in fixed])
    unfixed = [field for field in fields if field[0] not in fixed]
    access.is_sorted, access.reverse = _serves(index, unfixed, wanted, order)
    if not access.is_sorted and access.prefixes <= MERGED_MAX:
        access.is_sorted, access.reverse = _serves(index, behind, wanted, order)
        access.is_merged = access.is_sorted


def _serves(
    index: CompiledIndex,
    fields: list[tuple[str, bool]],
    wanted: tuple[OrderField, ...],
    order: tuple[OrderField, ...],
) -> tuple[bool, bool]:
    """(whether entries in the order of these fields of an index are in the order wanted, whether
    they are read backwards)"""
    if [field.path for field in wanted] != [path for path, _ in fields]:
        return False, False
    last_descends = index.encoder.descending[-1]
    turned = {
        field.descending != stored for field, (_, stored) in zip(wanted, fields, strict=True)
    } | {order[-1].descending != last_descends}
    if len(turned) > 1:
        return False, False
    (reverse,) = turned
    return (last_descends != reverse) == order[-1].descending, reverse
