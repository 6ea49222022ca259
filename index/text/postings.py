"""Postings: for each term the rows that contain it, in memory and packed.

A *source* holds rows of one text index, numbered by ordinals from 0 on. InMemoryPostings take rows
one by one; a SegmentSource reads the pairs that segment_pairs() packed from one or several other
sources. A Batch (index/text/batch.py) can only be packed.

Invariants:
- A source holds a row as it was written. It does not know which rows are alive in a view, so it may
  hold rows that are deleted, or not yet added, in that view.
- The ordinals of a term ascend. In a Segment, rowids ascend with ordinals.
- segment_pairs() of the same rows gives the same pairs, however the rows are spread over sources.
- InMemoryPostings may be searched while rows are added: a reader that takes `rowids` first and
  ignores higher ordinals sees whole rows only.
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
"""By rowid. Rows past its end are not yet added."""
Get: TypeAlias = Callable[[bytes], bytes | None]
Scan: TypeAlias = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]

_TERMS_END: Final = b"u"
_BLOCK_ENTRIES: Final = 1 << 16
_TERM_BYTES: Final = 240  # of Python's objects: the term, its array, their place in the map
_ROW_BYTES: Final = 12


class Packable(Protocol):
    """Rows of one text index, with their terms."""

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
        have several entries of one term: summed() adds them up."""
        ...


class Source(Packable, Protocol):
    """Rows that can be searched."""

    @property
    def table(self) -> object:
        """The owner of the rows: the same object in each view that reads them."""
        ...

    def postings(self, term: str) -> Postings | None:
        """The ordinals with the term, ascending, and its frequencies; None when no row has it."""
        ...

    def terms(self, prefix: str, limit: int) -> list[str]:
        """The first `limit` terms with this prefix, in order."""
        ...


def summed(entries: Entries) -> Entries:
    """Adds up entries with equal ordinals. The ordinals of `entries` ascend."""
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
    """A source that grows: the rows that no checkpoint has packed yet."""

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
        """Adds one row, once. One thread at a time; others may search meanwhile."""
        base = len(self._rowids) << ENTRY_SHIFT
        entries = self._entries
        length = 0
        for units, length_units, terms in occurrences:
            entry = base | units
            for term in terms:
                entries[term].append(entry)
            length += length_units * len(terms)
            self._occurrences += len(terms)
        self._lengths.append(length / UNIT)
        self._rowids.append(rowid)  # last: readers see the row from here on

    @property
    def size_bytes(self) -> int:
        """Estimated size of the Python objects."""
        rows = _ROW_BYTES * len(self._rowids)
        return rows + _TERM_BYTES * len(self._entries) + ENTRY_BYTES * self._occurrences

    # Slicing an array copies it atomically, with regard to other threads.

    @property
    def rowids(self) -> Rowids:
        return np.frombuffer(self._rowids[:], np.int64)

    @property
    def lengths(self) -> Lengths:
        return np.frombuffer(self._lengths[:], np.float32)

    def postings(self, term: str) -> Postings | None:
        of_term = self._entries.get(term)
        if not of_term:  # missing, or still without its first entry
            return None
        entries = summed(np.frombuffer(of_term[:], np.uint64))
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
    """Entries by term, one for each occurrence."""

    __slots__ = ()

    def __missing__(self, term: str) -> "array[int]":
        made = self[term] = array("Q")
        return made


@final
class Segment:
    """The packed table of rows, read once. It stays valid in all views that have the segment."""

    __slots__ = ("lengths", "rowids")

    rowids: Rowids
    lengths: Lengths

    def __init__(self, rows: bytes) -> None:
        """`rows` is the value of ROWS_KEY. Raises CorruptionError."""
        self.rowids, self.lengths = unpack_rows(rows)

    def source(self, get: Get, scan: Scan) -> "SegmentSource":
        """The segment in one view. get(key) returns a value or None, scan(low, high) the pairs with
        low <= key < high in order; keys are those of segment_pairs()."""
        return SegmentSource(self, get, scan)


@final
class SegmentSource:
    """An immutable source. All methods raise CorruptionError for damaged pairs."""

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
    """The pairs of a segment with the rows of all sources, in key order.

    Rows that are not `alive` are dropped; None keeps all. Without any row left there are no pairs.
    No row may be in two sources. Raises CorruptionError when a source is damaged.
    """
    moves, rowids, lengths = _renumbered(sources, alive)
    if not len(rowids):
        return
    yield ROWS_KEY, pack_rows(rowids, lengths)
    streams = [_numbered(source, number) for number, source in enumerate(sources)]
    for block in _blocks(merge(*streams)):
        yield from _pack_block(block, moves)


_Part: TypeAlias = tuple[str, int, bytes]
"""A term, the number of a source, the entries of the term in it."""


def _numbered(source: Packable, number: int) -> Iterator[_Part]:
    for term, entries in source.items():
        yield term, number, entries


def _blocks(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts in blocks large enough for numpy to be efficient. The parts of a term stay together."""
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
    """The new ordinals of each source's rows, and the rowids and lengths that remain, by rowid.

    A dropped row has -1. One more -1 follows the last row of each source: for ordinals past it.
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
    found = rowids < len(alive)
    found[found] = alive[rowids[found]]
    return found


def _pack_block(block: list[_Part], moves: list[Ordinals]) -> Pairs:
    """The pairs of the terms of one block."""
    terms: list[str] = []
    numbers: list[int] = []  # for each part the number of its term
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
