"""Leaf pages of LMDB as arrays: checked, and stored without their free space. LMDB is not used.

    page     number u64 | pad u16 | flags u16 | lower u16 | upper u16 | u16 offsets of nodes ... |
             free space | nodes
    node     size of the value u32 | flags u16 | key size u16 | key | value, or, flagged, the number
             u64 of the first page of a large value | a zero byte if its size is odd
    packed   pages side by side, without the free space between lower and upper, and without page
             numbers: zeros, as are pad and the byte behind a node

Invariants:
- What passes the checks is safe to map: nodes lie inside their page and fill it from `upper` to the
  end, each byte of it once, and none is larger than LMDB makes them.
- A packed page has its nodes and nothing else: of pairs that were deleted, nothing.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, final

import numpy as np

from amberdb._errors import CorruptionError
from amberdb.engine.storage.page_format import (
    LARGE,
    LEAF,
    NODE_HEADER_SIZE,
    NUMBER_SIZE,
    OFFSET_SIZE,
    PAGE_HEADER_SIZE,
)
from amberdb.index.ordered.keys import KEYSPACE_BYTES, LMDB_KEY_BYTES_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGES_BYTES_MAX: Final = 1 << 20
"""The most bytes of pages that a block of an archive has."""


def pages_of_value(size: int, page_size: int) -> int:
    """The number of pages of a large value."""
    return (PAGE_HEADER_SIZE - 1 + size) // page_size + 1


def node_bytes_max(page_size: int) -> int:
    """The size from which on LMDB gives a value pages of its own: two nodes fit a page."""
    return ((page_size - PAGE_HEADER_SIZE) // 2 & -2) - OFFSET_SIZE


class LargeValue(NamedTuple):
    """The key of a large value, the number of its first page, and its size."""

    key: bytes
    page: int
    size: int


@final
class Leaves:
    """A few leaf pages, keys ascending."""

    def __init__(self, pages: bytearray, page_size: int) -> None:
        """Takes whole pages. Raises CorruptionError unless LMDB may read them."""
        self.pages = pages
        self.page_size = page_size
        self.count = len(pages) // page_size
        words = np.frombuffer(pages, "<u2")
        heads = words.reshape(self.count, page_size // 2)[:, :8].astype(np.int64)
        lower, upper = heads[:, 6], heads[:, 7]
        sound = (heads[:, 5] == LEAF) & (lower > PAGE_HEADER_SIZE) & (lower <= upper)
        if not np.all(sound & (upper <= page_size) & ((lower | upper) & 1 == 0)):
            raise CorruptionError("a leaf page has an invalid header")
        self._bounds = lower, upper
        counts = (lower - PAGE_HEADER_SIZE) // OFFSET_SIZE
        first = np.cumsum(counts) - counts
        self._first = first
        self.nodes = int(counts.sum())
        """The number of pairs in these pages."""
        base = np.repeat(np.arange(self.count) * page_size, counts)
        place = np.arange(self.nodes) - np.repeat(first, counts)
        offset = words[(base + PAGE_HEADER_SIZE) // 2 + place].astype(np.int64)
        if np.any((offset & 1 != 0) | (offset > page_size - NODE_HEADER_SIZE)):
            raise CorruptionError("a node is outside of its leaf page")
        start = base + offset
        node = [words[start // 2 + number].astype(np.int64) for number in range(4)]
        self._sizes: NDArray[np.int64] = node[0] | node[1] << 16
        self._is_large = node[2] == LARGE
        self._starts = start
        self._key_starts = start + NODE_HEADER_SIZE
        self._value_starts = self._key_starts + node[3]
        self._ends = self._value_starts + np.where(self._is_large, NUMBER_SIZE, self._sizes)
        lengths = self._ends - start
        is_node = (node[2] == 0) | self._is_large
        is_node &= (node[3] > KEYSPACE_BYTES) & (node[3] <= LMDB_KEY_BYTES_MAX)
        if not np.all(is_node & (lengths <= node_bytes_max(page_size))):
            raise CorruptionError("a node of a leaf page is invalid")
        self._check_filled(start, first, counts)

    def _check_filled(
        self, start: "NDArray[np.int64]", first: "NDArray[np.int64]", counts: "NDArray[np.int64]"
    ) -> None:
        """Raises CorruptionError unless the nodes follow each other from `upper` to the end."""
        order = np.argsort(start)
        begin, end = start[order], self._ends[order]
        following = np.append(begin[1:], 0)
        page_starts = np.arange(self.count) * self.page_size
        following[first + counts - 1] = page_starts + self.page_size
        is_filled = np.array_equal(end + (end & 1), following)
        if not is_filled or not np.array_equal(begin[first], page_starts + self._bounds[1]):
            raise CorruptionError("the nodes of a leaf page overlap or leave a gap")

    @classmethod
    def unpacked(cls, data: bytes, page_size: int) -> "Leaves":
        """The pages of an archive. Raises CorruptionError."""
        if len(data) % 2:
            raise CorruptionError("a leaf page has an invalid header")
        view = memoryview(data)
        words = view.cast("H")
        free = memoryview(bytes(page_size))
        parts: list[memoryview] = []
        at = 0
        while at < len(data):
            lower, upper = words[at // 2 + 6 : at // 2 + 8] if at + 16 <= len(data) else (0, 0)
            end = at + lower + page_size - upper
            if not PAGE_HEADER_SIZE < lower <= upper <= page_size or end > len(data) or lower % 2:
                raise CorruptionError("a leaf page has an invalid header")
            parts += view[at : at + lower], free[lower:upper], view[at + lower : end]
            at = end
            if len(parts) // 3 * page_size > PAGES_BYTES_MAX:
                raise CorruptionError(f"a block with more than {PAGES_BYTES_MAX} bytes of pages")
        if not parts:
            raise CorruptionError("a block without a leaf page")
        pages = bytearray().join(parts)
        leaves = cls(pages, page_size)
        stored = pages.copy()
        leaves.clear()
        if pages != stored:
            raise CorruptionError("a leaf page has bytes that are no part of a node")
        return leaves

    def packed(self) -> bytes:
        """The pages for an archive."""
        self.clear()
        view = memoryview(self.pages)
        parts: list[memoryview] = []
        end = 0
        for lower, upper in zip(*(bound.tolist() for bound in self._bounds), strict=True):
            parts.append(view[end : end + lower])
            end += self.page_size
            parts.append(view[end - self.page_size + upper : end])
        return b"".join(parts)

    def clear(self) -> None:
        """Writes zeros where no node is but in the free space, and for all page numbers."""
        cells = np.frombuffer(self.pages, np.uint8)
        cells.reshape(self.count, self.page_size)[:, : NODE_HEADER_SIZE + OFFSET_SIZE] = 0
        cells[self._ends[self._ends & 1 != 0]] = 0
        for at in self._large_starts():
            self.pages[at : at + NUMBER_SIZE] = bytes(NUMBER_SIZE)

    def number(self, first: int) -> int:
        """Numbers the pages from `first` on, behind them those of the large values in order.
        Returns the next number."""
        numbers = np.frombuffer(self.pages, "<u8").reshape(self.count, self.page_size // 8)
        numbers[:, 0] = np.arange(first, first + self.count)
        first += self.count
        sizes = self._sizes[self._is_large].tolist()
        for at, size in zip(self._large_starts(), sizes, strict=True):
            self.pages[at : at + NUMBER_SIZE] = first.to_bytes(NUMBER_SIZE, "little")
            first += pages_of_value(size, self.page_size)
        return first

    def _large_starts(self) -> list[int]:
        starts: list[int] = self._value_starts[self._is_large].tolist()
        return starts

    def large(self) -> list[LargeValue]:
        """The values that have pages of their own, in order."""
        if not self._is_large.any():
            return []
        starts, sizes = self._large_starts(), self._sizes[self._is_large].tolist()
        keys = [key for key, _ in self._pairs(np.flatnonzero(self._is_large))]
        pages = [int.from_bytes(self.pages[at : at + NUMBER_SIZE], "little") for at in starts]
        return list(map(LargeValue, keys, pages, sizes))

    def first_nodes(self) -> list[int]:
        """The number of the first node of each page."""
        first: list[int] = self._first.tolist()
        return first

    def keys(self) -> list[bytes]:
        """The keys of all nodes."""
        data = bytes(self.pages)
        starts, ends = self._key_starts.tolist(), self._value_starts.tolist()
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def bounds(self) -> tuple[bytes, bytes]:
        """The first and the last key."""
        return self._key(0), self._key(self.nodes - 1)

    def _key(self, node: int) -> bytes:
        return bytes(self.pages[int(self._key_starts[node]) : int(self._value_starts[node])])

    def pairs(self) -> list[tuple[bytes, bytes | None]]:
        """The keys and values of all nodes; None for a large value."""
        return self._pairs(np.arange(self.nodes))

    def pairs_of(self, prefix: bytes) -> list[tuple[bytes, bytes | None]]:
        """The pairs of one keyspace."""
        cells = np.frombuffer(self.pages, np.uint8)
        is_in = np.ones(self.nodes, np.bool_)
        for number, byte in enumerate(prefix):
            is_in &= cells[self._key_starts + number] == byte
        return self._pairs(np.flatnonzero(is_in))

    def _pairs(self, nodes: "NDArray[np.intp]") -> list[tuple[bytes, bytes | None]]:
        data = bytes(self.pages)
        places = (self._key_starts, self._value_starts, self._ends, self._is_large)
        starts, middles, ends, large = (place[nodes].tolist() for place in places)
        return [
            (data[start:middle], None if is_large else data[middle:end])
            for start, middle, end, is_large in zip(starts, middles, ends, large, strict=True)
        ]

    def value(self, node: int) -> bytes:
        """The value of a node; of a large one what the page has of it."""
        return bytes(self.pages[int(self._value_starts[node]) : int(self._ends[node])])

    def having(self, nodes: Collection[int]) -> "Leaves | None":
        """Pages with these nodes alone; None without any."""
        pages = bytearray()
        bounds = [*self.first_nodes(), self.nodes]
        for first, end in pairwise(bounds):
            kept = [node for node in range(first, end) if node in nodes]
            if kept:
                pages += self._page_of(kept)
        return Leaves(pages, self.page_size) if pages else None

    def split(self, key: bytes) -> "tuple[Leaves | None, Leaves | None]":
        """The pages with the nodes below a key, and those with the others."""
        at = bisect_left(self.keys(), key)
        return self.having(range(at)), self.having(range(at, self.nodes))

    def _page_of(self, nodes: list[int]) -> bytearray:
        starts, ends = self._starts, self._ends
        return leaf_page(
            (bytes(self.pages[int(starts[node]) : int(ends[node])]) for node in nodes),
            self.page_size,
        )


def leaf_page(nodes: Iterable[bytes], page_size: int) -> bytearray:
    """A leaf page of encoded nodes, which fit in it."""
    page = bytearray(page_size)
    offsets: list[int] = []
    upper = page_size
    for node in nodes:
        upper -= len(node) + len(node) % 2
        page[upper : upper + len(node)] = node
        offsets.append(upper)
    lower = PAGE_HEADER_SIZE + len(offsets) * OFFSET_SIZE
    head = [LEAF, lower, upper, *offsets]
    page[PAGE_HEADER_SIZE - 3 * OFFSET_SIZE : lower] = np.array(head, "<u2").tobytes()
    return page
