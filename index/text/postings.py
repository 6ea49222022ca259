"""Postings: for each term the rows that have it, in memory and packed.

A *source* holds rows of one text index, each under an ordinal, 0 and up. A Memtable takes them one
by one; a SegmentSource reads what segment_pairs() packed out of one or of several other sources.
A Batch (index/text/batch.py) is only there to be packed.

Invariants:
- A row is in a source as it was written. Whether it is alive in some view is not a source's
  business, so a source may hold rows that are dead, or not born yet, for that view.
- The ordinals of a term ascend. In a Segment they ascend as rowids do.
- segment_pairs() of the same rows gives the same pairs, however they are spread over sources.
- A Memtable may be searched while rows are added: who takes `rowids` first and passes over ordinals
  beyond them sees whole rows only.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.text.packing import (
    ENTRY_BYTES,
    ENTRY_SHIFT,
    ROWS_KEY,
    TERM_TAG,
    UNIT_MASK,
    Entries,
    Lengths,
    Ordinals,
    Pairs,
    Postings,
    Rowids,
    pack_postings,
    pack_rows,
    term_key,
    term_of,
    unpack_entries,
    unpack_postings,
    unpack_rows,
)
from amberdb.index.text.text import FREQUENCY_MAX, UNIT, Occurrences

Alive: TypeAlias = NDArray[np.bool_]
"""Indexed by rowid; rows beyond its end are not born yet."""
Get: TypeAlias = Callable[[bytes], bytes | None]
Scan: TypeAlias = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]

_TERMS_END: Final = b"u"
_BLOCK_ENTRIES: Final = 1 << 16
_TERM_BYTES: Final = 240  # of Python's objects: the term, its array, their place in the map
_ROW_BYTES: Final = 12


class Packable(Protocol):
    """Rows of one text index, and what their terms are."""

    @property
    def rowids(self) -> Rowids:
        """By ordinal."""
        ...

    @property
    def lengths(self) -> Lengths:
        """By ordinal, in weighted words."""
        ...

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All terms in order, each with its entries (packing.py), ordinals ascending. A row may
        have several of one term: summed() makes one of them."""
        ...


class Source(Packable, Protocol):
    """Rows that can be searched."""

    @property
    def table(self) -> object:
        """What holds its rows: the same one in each view that sees them."""
        ...

    def postings(self, term: str) -> Postings | None:
        """Ordinals that have the term, ascending, and how often; None when there is none."""
        ...

    def terms(self, prefix: str, limit: int) -> list[str]:
        """The first `limit` terms with this prefix, in order."""
        ...


def summed(entries: Entries) -> Entries:
    """One entry for each ordinal, of entries whose ordinals ascend."""
    ordinals: Entries = np.right_shift(entries, np.uint64(ENTRY_SHIFT))
    is_first = np.empty(len(entries), np.bool_)
    is_first[:1] = True
    np.not_equal(ordinals[1:], ordinals[:-1], out=is_first[1:])
    if is_first.all():
        return entries
    starts = np.flatnonzero(is_first)
    units = np.add.reduceat(np.bitwise_and(entries, np.uint64(UNIT_MASK)), starts)
    capped: Entries = np.minimum(units, np.uint64(FREQUENCY_MAX))
    return np.bitwise_or(np.left_shift(ordinals[starts], np.uint64(ENTRY_SHIFT)), capped)


@final
class InMemoryPostings:
    """A source that grows: rows that no checkpoint has packed yet."""

    __slots__ = ("_entries", "_lengths", "_occurrences", "_order", "_rowids")

    def __init__(self) -> None:
        self._rowids = array("q")
        self._lengths = array("f")
        self._entries = _Entries()
        self._order: list[str] = []
        self._occurrences = 0

    def __len__(self) -> int:
        return len(self._rowids)

    @property
    def table(self) -> "InMemoryPostings":
        return self

    def add(self, rowid: int, occurrences: Occurrences) -> None:
        """Takes one row, once. One thread at a time; others may search meanwhile."""
        base = len(self._rowids) << ENTRY_SHIFT
        entries = self._entries
        length = 0
        for units, terms in occurrences:
            entry = base | units
            for term in terms:
                entries[term].append(entry)
            length += units * len(terms)
            self._occurrences += len(terms)
        self._lengths.append(length / UNIT)
        self._rowids.append(rowid)  # last: only now does the row count

    @property
    def size_bytes(self) -> int:
        """Estimated, of Python's objects."""
        rows = _ROW_BYTES * len(self._rowids)
        return rows + _TERM_BYTES * len(self._entries) + ENTRY_BYTES * self._occurrences

    # A slice of an array is a copy made in one step, which no other thread can come between.

    @property
    def rowids(self) -> Rowids:
        return np.frombuffer(self._rowids[:], np.int64)

    @property
    def lengths(self) -> Lengths:
        return np.frombuffer(self._lengths[:], np.float32)

    def postings(self, term: str) -> Postings | None:
        found = self._entries.get(term)
        if not found:  # or about to get its first
            return None
        entries = summed(np.frombuffer(found[:], np.uint64))
        frequencies = (entries & UNIT_MASK).astype(np.float32) / np.float32(UNIT)
        return (entries >> ENTRY_SHIFT).astype(np.int64), frequencies

    def terms(self, prefix: str, limit: int) -> list[str]:
        order = self._sorted()
        start = bisect_left(order, prefix)
        return [term for term in order[start : start + limit] if term.startswith(prefix)]

    def items(self) -> Iterator[tuple[str, bytes]]:
        for term in self._sorted():
            yield term, self._entries[term].tobytes()

    def _sorted(self) -> list[str]:
        order = self._order
        if len(order) != len(self._entries):
            order = self._order = sorted(self._entries.copy())
        return order


class _Entries(dict[str, "array[int]"]):
    """By term; one for each occurrence."""

    __slots__ = ()

    def __missing__(self, term: str) -> "array[int]":
        made = self[term] = array("Q")
        return made


@final
class Segment:
    """A packed table of rows, read once: what one may keep of a segment while views come and go."""

    __slots__ = ("lengths", "rowids")

    rowids: Rowids
    lengths: Lengths

    def __init__(self, rows: bytes) -> None:
        """`rows` is the value of ROWS_KEY. Raises CorruptionError."""
        self.rowids, self.lengths = unpack_rows(rows)

    def source(self, get: Get, scan: Scan) -> "SegmentSource":
        """The segment as one view reads it: get(key) gives a value or None, scan(low, high) the
        pairs with low <= key < high in order; keys are those of segment_pairs()."""
        return SegmentSource(self, get, scan)


@final
class SegmentSource:
    """A source that never changes. All methods raise CorruptionError."""

    __slots__ = ("_get", "_scan", "lengths", "rowids", "table")

    def __init__(self, segment: Segment, get: Get, scan: Scan) -> None:
        self.table = segment
        self.rowids = segment.rowids
        self.lengths = segment.lengths
        self._get = get
        self._scan = scan

    def postings(self, term: str) -> Postings | None:
        key = term_key(term)
        value = self._get(key)
        return None if value is None else unpack_postings(key, value, len(self.rowids))

    def terms(self, prefix: str, limit: int) -> list[str]:
        low = term_key(prefix)
        high = low[:-1] + bytes([low[-1] + 1])  # low ends in UTF-8, hence never in FF
        return [term_of(key) for key, _ in islice(self._scan(low, high), limit)]

    def items(self) -> Iterator[tuple[str, bytes]]:
        rows = len(self.rowids)
        for key, value in self._scan(TERM_TAG, _TERMS_END):
            yield term_of(key), unpack_entries(key, value, rows)


# -- packing ---------------------------------------------------------------------------------


def segment_pairs(sources: Sequence[Packable], alive: Alive | None = None) -> Pairs:
    """The pairs of a segment with the rows of all sources, in the order of their keys.

    Rows that `alive` does not name are dropped; without it all are kept. Nothing comes when none is
    left. No row may be in two sources. Raises CorruptionError when a source is damaged.
    """
    moves, rowids, lengths = _renumbered(sources, alive)
    if not len(rowids):
        return
    yield ROWS_KEY, pack_rows(rowids, lengths)
    streams = [_numbered(source, number) for number, source in enumerate(sources)]
    for block in _blocks(merge(*streams)):
        yield from _pack_block(block, moves)


_Part: TypeAlias = tuple[str, int, bytes]
"""A term, the number of its source, its entries there."""


def _numbered(source: Packable, number: int) -> Iterator[_Part]:
    for term, entries in source.items():
        yield term, number, entries


def _blocks(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts by the thousand, so that numpy has something to do; a term's parts stay together."""
    block: list[_Part] = []
    size = 0
    for part in parts:
        if size >= _BLOCK_ENTRIES * ENTRY_BYTES and part[0] != block[-1][0]:
            yield block
            block, size = [], 0
        block.append(part)
        size += len(part[2])
    if block:
        yield block


def _renumbered(
    sources: Sequence[Packable], alive: Alive | None
) -> tuple[list[Ordinals], Rowids, Lengths]:
    """Per source its rows' new ordinals, and the rows that are left, by rowid.

    A row that is dropped has -1, and so has one place more, behind the end of each source.
    """
    held = [source.rowids for source in sources]
    if not held:
        return [], np.empty(0, np.int64), np.empty(0, np.float32)
    rowids = np.concatenate(held)
    lengths = np.concatenate(
        [source.lengths[: len(rows)] for source, rows in zip(sources, held, strict=True)]
    )
    order = np.argsort(rowids, kind="stable")
    if alive is not None:
        order = order[is_alive(rowids, alive)[order]]
    moves = np.full(len(rowids), -1, np.int64)
    moves[order] = np.arange(len(order))
    ends = np.cumsum([len(rows) for rows in held])
    by_source = [np.append(part, -1) for part in np.split(moves, ends[:-1])]
    return by_source, rowids[order], lengths[order]


def is_alive(rowids: Rowids, alive: Alive) -> Alive:
    """For each rowid whether it is alive."""
    if not len(rowids) or int(rowids.max()) < len(alive):
        return alive[rowids]
    born = rowids < len(alive)
    born[born] = alive[rowids[born]]
    return born


def _pack_block(block: list[_Part], moves: list[Ordinals]) -> Pairs:
    """The pairs of the terms of one block."""
    terms: list[str] = []
    numbers: list[int] = []  # per part that of its term
    for term, _, _ in block:
        if not terms or term != terms[-1]:
            terms.append(term)
        numbers.append(len(terms) - 1)
    entries = np.frombuffer(b"".join([part[2] for part in block]), np.uint64)
    counts = np.array([len(part[2]) // ENTRY_BYTES for part in block])
    sources = np.array([part[1] for part in block])
    sizes = np.array([len(move) for move in moves])
    offsets = np.cumsum(sizes) - sizes

    old = np.minimum(
        (entries >> ENTRY_SHIFT).astype(np.int64), np.repeat(sizes[sources] - 1, counts)
    )
    new = np.concatenate(moves)[np.repeat(offsets[sources], counts) + old]
    kept = new >= 0
    new, of_term = new[kept], np.repeat(np.array(numbers), counts)[kept]
    if not len(new):
        return
    units = np.bitwise_and(entries[kept], np.uint64(UNIT_MASK))
    is_same_term = of_term[1:] == of_term[:-1]
    if np.any((new[1:] < new[:-1]) & is_same_term):
        order = np.lexsort((new, of_term))
        new, of_term, units = new[order], of_term[order], units[order]
        is_same_term = of_term[1:] == of_term[:-1]
    repeats = (new[1:] == new[:-1]) & is_same_term
    if repeats.any():
        starts = np.flatnonzero(~np.concatenate(([False], repeats)))
        new, of_term = new[starts], of_term[starts]
        units = np.minimum(np.add.reduceat(units, starts), np.uint64(FREQUENCY_MAX))
    entries = np.bitwise_or(np.left_shift(new.astype(np.uint64), np.uint64(ENTRY_SHIFT)), units)
    starts = np.flatnonzero(np.diff(of_term, prepend=-1))
    numbers = of_term[starts].tolist()
    yield from pack_postings([terms[number] for number in numbers], starts, entries)
