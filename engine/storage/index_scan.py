"""Index scans: the entries of one ordered index, or of the documents, within ranges of keys.

Invariants:
- Entries come in the order of their full fields, then of their rowid, also where LMDB's limit cut
  the key: entries whose keys begin with the same CUT_BYTES are gathered and sorted by their full
  fields, whose rest is in the value.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain, islice
from typing import final

from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import CUT_ENTRY_SIZE, unpack_cut
from amberdb.engine.storage.source import Place, Range, Source
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import CUT_BYTES, KEYSPACE_BYTES, ROWID_BYTES

_CUT_KEY_SIZE = KEYSPACE_BYTES + CUT_ENTRY_SIZE
_PREFIX_SIZE = KEYSPACE_BYTES + CUT_BYTES
_LONG_SIZE = _PREFIX_SIZE + ROWID_BYTES
"""Entries longer than this are gathered by their first _PREFIX_SIZE bytes and sorted."""

_COUNTED = 4096
"""Keys that are in memory at once while they are counted."""

Entry = tuple[Place, bytes]
"""(place, id) of an index entry: the place is LMDB's key, or, where that is cut, the whole key. Of
the documents (key, value)."""


def entries(
    source: Source,
    ranges: Sequence[Range],
    *,
    of_index: bool = True,
    reverse: bool = False,
    after: Place | None = None,
) -> Iterator[Entry]:
    """The entries in the ranges (ascending, disjoint), or those past the place `after`. Without
    `of_index` the documents, by key."""
    ranges = _ranges_after(ranges, reverse, after)
    scan = _index_entries if of_index else _stored_documents
    if len(ranges) == 1:  # saves one generator per entry
        return scan(source, *ranges[0], reverse, after)
    return chain.from_iterable(scan(source, low, high, reverse, after) for low, high in ranges)


def points(
    source: Source, ranges: Sequence[Range], *, reverse: bool = False, after: Place | None = None
) -> Iterator[Entry]:
    """entries() of documents where each range has one key: by point reads, which need no cursor."""
    keys = [key for key, _ in _ranges_after(ranges, reverse, after) if key != after]
    return source.points(keys)


def merged(
    source: Source,
    heads: Sequence[bytes],
    ranges: Sequence[Range],
    *,
    reverse: bool,
    after: bytes | None,
) -> Iterator[Entry]:
    """The entries in ranges of an index, in the order of what follows the heads; past `after`, the
    end of a place. Each range is within one of the heads (ascending, none begins another)."""

    def scan(low: bytes, high: bytes) -> Iterator[tuple[bytes, Entry]]:
        head = heads[bisect_right(heads, low) - 1]
        start = None if after is None else head + after
        for entry in _index_entries(source, low, high, reverse, start):
            yield entry[0][len(head) :], entry

    scans = [scan(low, high) for low, high in ranges]
    return (entry for _, entry in merge(*scans, key=_rank_of, reverse=reverse))


def _rank_of(ranked: tuple[bytes, Entry]) -> bytes:
    return ranked[0]


@final
class Counter:
    """Counts the entries of ranges, only as far as it is asked to. Each range counts as one more,
    for its seek; entries whose keys are cut may be counted although they are outside."""

    __slots__ = ("_ranges", "_source", "total")

    def __init__(self, source: Source, ranges: Sequence[Range]) -> None:
        self.total = len(ranges)
        self._source = source
        self._ranges = [
            (low[:_PREFIX_SIZE], end_of(high[:_PREFIX_SIZE]) if len(high) > _PREFIX_SIZE else high)
            for low, high in reversed(ranges)
        ]

    def is_within(self, limit: int) -> bool:
        """Whether there are no more than `limit`; then `total` is their number."""
        while self._ranges and self.total <= limit:
            low, high = self._ranges.pop()
            wanted = limit - self.total + 1
            keys = self._source.keys(low, high, wanted)
            self.total += len(keys)
            if len(keys) == wanted:
                self._ranges.append((keys[-1] + b"\0", high))
        return self.total <= limit and not self._ranges


def count(source: Source, ranges: Sequence[Range]) -> int:
    """The number of entries of an index, or of documents, in the ranges. Only keys are read, but
    where a bound is of fields that are cut."""
    if are_cut(ranges):
        return sum(1 for _ in entries(source, ranges))
    total = 0
    for low, high in ranges:
        while keys := source.keys(low, high, _COUNTED):
            total += len(keys)
            low = keys[-1] + b"\0"
    return total


def places(view: View, ranges: Sequence[Range], limit: int) -> list[Place]:
    """At most `limit` places of an index, unordered; each ends in its rowid. Faster than entries():
    while no bound is cut, LMDB's keys alone decide which entries are in range."""
    if are_cut(ranges):
        return [place for place, _ in islice(entries(view, ranges), limit)]
    keys: list[Place] = []
    for low, high in ranges:
        keys += view.keys(low, high, limit - len(keys))
    return keys


def are_cut(ranges: Sequence[Range]) -> bool:
    """Whether a bound is of fields that are cut, so that LMDB's keys alone do not decide."""
    return any(max(len(low), len(high)) > _PREFIX_SIZE for low, high in ranges)


def is_cut(key: Place) -> bool:
    """Whether a key of places() is of fields that are cut, so that its order is not theirs."""
    return len(key) > _LONG_SIZE


def _ranges_after(ranges: Sequence[Range], reverse: bool, after: Place | None) -> Sequence[Range]:
    """The ranges in the direction of a scan, from that of `after` on."""
    if reverse:
        ranges = ranges[::-1]
    if after is None:
        return ranges
    return [(low, high) for low, high in ranges if (low < after if reverse else after < high)]


def _stored_documents(
    source: Source, low: bytes, high: bytes, reverse: bool, after: Place | None
) -> Iterator[Entry]:
    return source.scan(*_after(low, high, reverse, after), reverse)


def _index_entries(
    source: Source, low: bytes, high: bytes, reverse: bool, after: Place | None
) -> Iterator[Entry]:
    has_long_bound = len(low) > _PREFIX_SIZE or len(high) > _PREFIX_SIZE
    start = low[:_PREFIX_SIZE]
    end = end_of(high[:_PREFIX_SIZE]) if len(high) > _PREFIX_SIZE else high
    start, end = _after(start, end, reverse, after)
    group: list[Entry] = []
    for pair in source.scan(start, end, reverse):
        key = pair[0]
        if group and (len(key) <= _LONG_SIZE or group[0][0][:_PREFIX_SIZE] != key[:_PREFIX_SIZE]):
            yield from _sorted_group(group, reverse)
            group = []
        if len(key) <= _LONG_SIZE:
            yield pair
            continue
        place, id_bytes = _long_entry(pair)
        if has_long_bound and not low <= place < high:
            continue
        if after is not None and (place >= after if reverse else place <= after):
            continue
        group.append((place, id_bytes))
    if group:
        yield from _sorted_group(group, reverse)


def _long_entry(pair: tuple[bytes, bytes]) -> Entry:
    """The entry of a pair whose key is long, and perhaps cut."""
    key, value = pair
    if len(key) < _CUT_KEY_SIZE:
        return pair
    id_bytes, rest = unpack_cut(value)
    return key[:_PREFIX_SIZE] + rest + key[-ROWID_BYTES:], id_bytes


def _after(low: bytes, high: bytes, reverse: bool, after: Place | None) -> Range:
    """The part of a range of LMDB's keys past the place `after`. For a long entry it begins with
    the whole group of that entry, which _index_entries() filters."""
    if after is None:
        return low, high
    if len(after) > _LONG_SIZE:
        group = after[:_PREFIX_SIZE]
        return (low, min(high, end_of(group))) if reverse else (max(low, group), high)
    return (low, min(high, after)) if reverse else (max(low, after + b"\0"), high)


def _sorted_group(group: list[Entry], reverse: bool) -> list[Entry]:
    group.sort(reverse=reverse)
    return group
