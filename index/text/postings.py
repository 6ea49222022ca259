"""Postings: for each term the rows that contain it, in memory and packed.

A *source* holds rows of one text index, numbered by ordinals from 0 on. InMemoryPostings take rows
one by one; a SegmentSource reads the pairs that segment_pairs() packed from one or several other
sources.

Invariants:
- A source holds a row as it was written. It does not know which rows are alive in a view, so it may
  hold rows that are deleted, or not yet added, in that view.
- Rowids ascend with ordinals, and so do the ordinals of a term.
- segment_pairs() of the same rows gives the same pairs, however the rows are spread over sources.
- InMemoryPostings may be searched while rows are added: a reader that takes `rowids` first and
  ignores higher ordinals sees whole rows only.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import islice
from sys import byteorder
from typing import Final, NamedTuple, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.text.packing import (
    ENTRY_BYTES,
    ENTRY_SHIFT,
    FEW,
    ROWS_KEY,
    TERM_TAG,
    UNIT_MASK,
    Entries,
    FewPostings,
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
_BLOCK_ENTRIES: Final = 1 << 13
"""A merge holds a block of each of its sources: of 25 with 4,000 rows 51 MB with 1 << 16, 25 MB
with this, in the same time."""
_BLOCK_TERMS: Final = 1 << 12
_TERM_BYTES: Final = 150  # of Python's objects: the term, its entries, their place in the map
_ROW_BYTES: Final = 12
_ROOM_ROWS: Final = 64


class Block(NamedTuple):
    """Terms that follow each other in one source, with their entries: so many that numpy is
    efficient."""

    terms: list[str]
    counts: list[int]
    """How many of the entries are of each term."""
    entries: Entries


class SearchedSource(Protocol):
    """Rows of one text index, with their terms, as a search reads them."""

    @property
    def rowids(self) -> Rowids:
        """By ordinal."""
        ...

    @property
    def lengths(self) -> Lengths:
        """By ordinal, in weighted words."""
        ...

    @property
    def table(self) -> object:
        """The owner of the rows: the same object in each view that reads them."""
        ...

    def postings(self, term: str) -> Postings | FewPostings | None:
        """The ordinals with the term, ascending, and its frequencies; None when no row has it."""
        ...

    def terms(self, prefix: str, limit: int) -> list[str]:
        """The first `limit` terms with this prefix, in order."""
        ...


class Source(SearchedSource, Protocol):
    """One that can be packed."""

    def blocks(self) -> Iterator[Block]:
        """All terms in order, with their entries (packing.py), ordinals ascending. A row may have
        several entries of one term: summed() adds them up."""
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

    __slots__ = ("_count", "_entries", "_last", "_lengths", "_occurrences", "_order", "_rowids")

    def __init__(self) -> None:
        self._rowids = np.empty(_ROOM_ROWS, np.int64)
        self._lengths = np.empty(_ROOM_ROWS, np.float32)
        self._count = 0
        """Of the rows; the arrays have room for more. Readers have the first part of them, which
        does not change."""
        self._last = -1
        self._entries: dict[str, bytes | bytearray] = {}
        """By term one entry for each occurrence; bytes where there is one, as of most terms. With
        an array or a list for each term, which the garbage collector visits, it took longer than
        all of add()."""
        self._order: list[str] = []
        self._occurrences = 0

    def __len__(self) -> int:
        return self._count

    @property
    def table(self) -> "InMemoryPostings":
        return self

    def add(self, rowid: int, occurrences: Occurrences) -> None:
        """Adds one row, once, with a rowid above all others. One thread at a time; others may
        search meanwhile. After an interruption the postings are of no use."""
        assert rowid > self._last, "rowids ascend"
        ordinal = self._count
        base = ordinal << ENTRY_SHIFT
        entries = self._entries
        find = entries.get
        length = count = 0
        for units, length_units, terms in occurrences:
            entry = (base | units).to_bytes(ENTRY_BYTES, byteorder)
            for term in terms:
                held = find(term)
                if held is None:
                    entries[term] = entry  # one object for all terms
                elif type(held) is bytes:
                    entries[term] = bytearray(held + entry)
                else:
                    held += entry
            length += length_units * len(terms)
            count += len(terms)
        self._occurrences += count
        if ordinal == len(self._rowids):
            self._lengths = np.resize(self._lengths, 2 * ordinal)
            self._rowids = np.resize(self._rowids, 2 * ordinal)
        self._lengths[ordinal] = length / UNIT
        self._rowids[ordinal] = self._last = rowid
        self._count = ordinal + 1  # last: readers see the row from here on

    @property
    def size_bytes(self) -> int:
        """Estimated size of the Python objects."""
        rows = _ROW_BYTES * len(self._rowids)  # with the room
        return rows + _TERM_BYTES * len(self._entries) + ENTRY_BYTES * self._occurrences

    @property
    def rowids(self) -> Rowids:
        count = self._count  # first: an array that is replaced meanwhile has as many
        return self._rowids[:count]

    @property
    def lengths(self) -> Lengths:
        count = self._count
        return self._lengths[:count]

    def postings(self, term: str) -> Postings | FewPostings | None:
        held = self._entries.get(term)
        if held is None:
            return None
        packed = bytes(held)  # a copy: it may grow meanwhile
        if len(packed) > FEW * ENTRY_BYTES:
            entries = summed(np.frombuffer(packed, np.uint64))
            frequencies = (entries & UNIT_MASK).astype(np.float32) / np.float32(UNIT)
            return (entries >> ENTRY_SHIFT).astype(np.int64), frequencies
        units: dict[int, int] = {}
        for entry in memoryview(packed).cast("Q"):
            ordinal = entry >> ENTRY_SHIFT
            units[ordinal] = units.get(ordinal, 0) + (entry & UNIT_MASK)
        return list(units), [min(each, FREQUENCY_MAX) / UNIT for each in units.values()]

    def terms(self, prefix: str, limit: int) -> list[str]:
        order = self._sorted()
        start = bisect_left(order, prefix)
        return [term for term in order[start : start + limit] if term.startswith(prefix)]

    def blocks(self) -> Iterator[Block]:
        terms = self._sorted()
        for start in range(0, len(terms), _BLOCK_TERMS):
            of_block = terms[start : start + _BLOCK_TERMS]
            yield _block(of_block, list(map(self._entries.__getitem__, of_block)))

    def _sorted(self) -> list[str]:
        order = self._order
        if len(order) != len(self._entries):
            order = self._order = sorted(self._entries.copy())
        return order


@final
class Segment:
    """The packed table of rows, read once. It stays valid in all views that have the segment."""

    __slots__ = ("lengths", "rowids")

    rowids: Rowids
    lengths: Lengths

    def __init__(self, rows: bytes) -> None:
        """`rows` is the value of ROWS_KEY. Raises CorruptionError."""
        self.rowids, self.lengths = unpack_rows(rows)

    def source(self, get: Get, scan: Scan, prefix: bytes = b"") -> "SegmentSource":
        """The segment in one view. get(key) returns a value or None, scan(low, high) the pairs with
        low <= key < high in order; keys are those of segment_pairs(), after the prefix."""
        return SegmentSource(self, get, scan, prefix)


@final
class SegmentSource:
    """An immutable source. All methods raise CorruptionError for damaged pairs."""

    __slots__ = ("_get", "_prefix", "_scan", "lengths", "rowids", "table")

    def __init__(self, segment: Segment, get: Get, scan: Scan, prefix: bytes) -> None:
        self.table = segment
        self.rowids = segment.rowids
        self.lengths = segment.lengths
        self._get = get
        self._scan = scan
        self._prefix = prefix

    def postings(self, term: str) -> Postings | FewPostings | None:
        key = term_key(term)
        value = self._get(self._prefix + key)
        return None if value is None else unpack_postings(key, value, len(self.rowids))

    def terms(self, prefix: str, limit: int) -> list[str]:
        low = term_key(prefix)
        high = low[:-1] + bytes([low[-1] + 1])  # low ends in UTF-8, hence never in FF
        return [term_of(key) for key, _ in islice(self._pairs(low, high), limit)]

    def blocks(self) -> Iterator[Block]:
        rows = len(self.rowids)
        pairs = self._pairs(TERM_TAG, _TERMS_END)
        return _blocked((term_of(key), unpack_entries(key, value, rows)) for key, value in pairs)

    def _pairs(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs with low <= key < high, without the prefix."""
        prefix, size = self._prefix, len(self._prefix)
        for key, value in self._scan(prefix + low, prefix + high):
            yield key[size:], value


# -- packing ---------------------------------------------------------------------------------


def segment_pairs(sources: Sequence[Source], alive: Alive | None = None) -> Pairs:
    """The pairs of a segment with the rows of all sources, in key order.

    Rows that are not `alive` are dropped; None keeps all. Without any row left there are no pairs.
    No row may be in two sources. Raises CorruptionError when a source is damaged.
    """
    moves, rowids, lengths = _renumbered(sources, alive)
    if not len(rowids):
        return
    yield ROWS_KEY, pack_rows(rowids, lengths)
    streams = [map(move, source.blocks()) for source, move in zip(sources, moves, strict=True)]
    blocks: Iterable[Block] = streams[0]
    if len(streams) > 1:
        blocks = _blocked(merge(*map(items, streams), key=_term))
    for block in blocks:
        yield from _pack_block(block)


def items(blocks: Iterable[Block]) -> Iterator[tuple[str, bytes]]:
    """Each term of blocks, with its entries."""
    for terms, counts, entries in blocks:
        packed = entries.tobytes()
        start = 0
        for term, count in zip(terms, counts, strict=True):
            end = start + count * ENTRY_BYTES
            yield term, packed[start:end]
            start = end


def _blocked(items: Iterable[tuple[str, bytes]]) -> Iterator[Block]:
    """Terms and their entries in blocks; a term that follows itself becomes one."""
    packed: dict[str, bytes | bytearray] = {}
    size = 0
    for term, entries in items:
        if term in packed:
            packed[term] += entries
        else:
            if size >= _BLOCK_ENTRIES * ENTRY_BYTES:
                yield _block(list(packed), list(packed.values()))
                packed, size = {}, 0
            packed[term] = entries
        size += len(entries)
    yield _block(list(packed), list(packed.values()))


def _block(terms: list[str], packed: list[bytes | bytearray]) -> Block:
    counts = [len(entries) // ENTRY_BYTES for entries in packed]
    return Block(terms, counts, np.frombuffer(b"".join(packed), np.uint64))


def _term(item: tuple[str, bytes]) -> str:
    return item[0]


def _renumbered(
    sources: Sequence[Source], alive: Alive | None
) -> tuple[list[Callable[[Block], Block]], Rowids, Lengths]:
    """Functions that give the entries of each source's blocks their new ordinals, and the rowids
    and lengths that remain, by rowid."""
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
    # One more -1 follows the last row of each source: for ordinals past it.
    by_source = [np.append(part, -1) for part in np.split(moves, ends[:-1])]
    return [partial(_moved, move) for move in by_source], rowids[order], lengths[order]


def _moved(moves: Ordinals, block: Block) -> Block:
    """A block with the ordinals that `moves` has for its own, without rows that have -1."""
    entries = block.entries
    new = moves[np.minimum((entries >> ENTRY_SHIFT).astype(np.int64), len(moves) - 1)]
    counts = block.counts
    moved = np.left_shift(new.astype(np.uint64), np.uint64(ENTRY_SHIFT))
    moved |= np.bitwise_and(entries, np.uint64(UNIT_MASK))
    kept = new >= 0
    if not kept.all():
        of_term = np.repeat(np.arange(len(counts)), counts)
        counts = np.bincount(of_term[kept], minlength=len(counts)).tolist()
        moved = moved[kept]
    return Block(block.terms, counts, moved)


def is_alive(rowids: Rowids, alive: Alive) -> Alive:
    """For each rowid whether it is alive."""
    if not len(rowids) or int(rowids.max()) < len(alive):
        return alive[rowids]
    found = rowids < len(alive)
    found[found] = alive[rowids[found]]
    return found


def _pack_block(block: Block) -> Pairs:
    """The pairs of the terms of a block that have entries."""
    terms, entries = block.terms, block.entries
    if not len(entries):
        return
    of_term = np.repeat(np.arange(len(terms)), block.counts)
    is_same_term = of_term[1:] == of_term[:-1]
    ordinals = np.right_shift(entries, np.uint64(ENTRY_SHIFT))
    if np.any((ordinals[1:] < ordinals[:-1]) & is_same_term):
        order = np.lexsort((ordinals, of_term))
        of_term, entries, ordinals = of_term[order], entries[order], ordinals[order]
        is_same_term = of_term[1:] == of_term[:-1]
    repeats = (ordinals[1:] == ordinals[:-1]) & is_same_term
    if repeats.any():
        starts = np.flatnonzero(~np.concatenate(([False], repeats)))
        of_term = of_term[starts]
        units = np.add.reduceat(np.bitwise_and(entries, np.uint64(UNIT_MASK)), starts)
        entries = np.left_shift(ordinals[starts], np.uint64(ENTRY_SHIFT))
        entries |= np.minimum(units, np.uint64(FREQUENCY_MAX))
    starts = np.flatnonzero(np.diff(of_term, prepend=-1))
    numbers: list[int] = of_term[starts].tolist()
    if len(numbers) < len(terms):
        terms = [terms[number] for number in numbers]
    yield from pack_postings(terms, starts, entries)
