"""Pages of LMDB's file, read without LMDB: before it maps the file, and when it must not.

A page that is not what it should be never ends a walk: what can be read of the others is given,
and each hole is noted as a gap, with the range of keys that may be missing there.

Invariants:
- Nothing is believed: every offset is checked, and no page is read twice as part of a tree.
- Pairs of a tree come in order of their keys, each within the range that the inner pages above
  give it; what lies elsewhere is a gap.

Format (LMDB 0.9, 64 bit, little endian): a page header of 16 bytes, then what its flags say.

    page    number u64 | pad u16 | flags u16 | lower u16 | upper u16 | u16 offsets of nodes ...
            of an overflow page lower and upper are one u32, the count of its pages
    node    size or page, low u16, high u16 | flags u16 | key size u16 | key | value
            inner: the child's page number is low, high, flags; a large value is the number of
            its first overflow page
    meta    magic u32 | version u32 | address u64 | map u64 | free tree 48 | main tree 48 |
            last page u64 | transaction u64
    tree    page size u32 | flags u16 | depth u16 | three counts u64 | entries u64 | root u64
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from amberdb._fs import File
from amberdb.engine.storage.data_file import (
    PAGE_HEADER_SIZE,
    PAGE_SIZE,
    Meta,
    Tree,
    read_metas,
)

_PAGE = Struct("<QHHHH")
_NODE = Struct("<HHHH")
_NUMBER = Struct("<Q")
NODE_HEADER_SIZE = 8
assert _PAGE.size == PAGE_HEADER_SIZE
assert _NODE.size == NODE_HEADER_SIZE
assert _NUMBER.size == 8

_BRANCH, _LEAF = 1, 2
_BIG, _SUB, _DUPLICATES = 1, 2, 4
_DEPTH_MAX = 32

Pair = tuple[bytes, bytes]


class Gap(NamedTuple):
    """Keys with low <= key < high may be missing; `high` None: no end."""

    low: bytes
    high: bytes | None
    page: int


class Pages:
    """One file, page by page; `reached` marks the pages that a tree led to."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._size = file.size()
        self.metas = sorted(read_metas(file.pread(1 << 16, 0)), reverse=True)
        self.page_size = self.metas[0].page_size if self.metas else PAGE_SIZE
        self.count = self._size // self.page_size
        self.reached = bytearray(self.count)
        self.reached[:2] = b"\1\1"[: self.count]

    def walk(self, tree: Tree, gaps: list[Gap], *, is_free: bool = False) -> Iterator[Pair]:
        """The pairs of a tree, and where some may be missing. The keys of the free tree are
        numbers, not ordered as bytes."""
        if tree.depth or 2 <= tree.root < self.count:
            yield from self._walk(tree.root, max(1, tree.depth), b"", None, gaps, is_free)

    def _walk(
        self, number: int, levels: int, low: bytes, high: bytes | None, gaps: list[Gap], free: bool
    ) -> Iterator[Pair]:
        page, whole = self._page(number, _LEAF if levels == 1 else _BRANCH)
        if not page or levels > _DEPTH_MAX:
            gaps.append(Gap(low, high, number))
            return
        nodes, all_inside = _nodes(page)
        keys = [node[3] for node in (nodes if levels == 1 else nodes[1:])]
        inside = [key for key in keys if free or (low <= key and (high is None or key < high))]
        is_sorted = free or (keys == sorted(keys) and len(inside) == len(keys))
        if not (whole and all_inside and is_sorted):
            gaps.append(Gap(low, high, number))
        if keys and not inside:
            return  # another tree's, or another place's
        self.reached[number] = 1
        if levels == 1:
            for node in nodes:
                if free or (low <= node[3] and (high is None or node[3] < high)):
                    value = self._value(page, node)
                    if value is not None:
                        yield node[3], value
                    elif not gaps or gaps[-1].page != number:
                        gaps.append(Gap(low, high, number))
            return
        bounds = [low, *(node[3] for node in nodes[1:])]
        for at, node in enumerate(nodes):
            end = bounds[at + 1] if at + 1 < len(nodes) else high
            child = node[0] | node[1] << 16 | node[2] << 32
            yield from self._walk(child, levels - 1, bounds[at], end, gaps, free)

    def unreached(self) -> Iterator[tuple[int, list[Pair]]]:
        """Leaf pages that no tree led to: lost ones, and those that LMDB has given up."""
        for number in range(2, self.count):
            page, whole = self._page(number, _LEAF)
            if whole:
                pairs = [(node[3], self._value(page, node)) for node in _nodes(page)[0]]
                yield number, [(key, value) for key, value in pairs if value is not None]

    def free_pages(self, meta: Meta) -> set[int] | None:
        """The pages that hold nothing any more; None when that list is damaged."""
        gaps: list[Gap] = []
        found: set[int] = set()
        for _, value in self.walk(meta.free, gaps, is_free=True):
            numbers = [number for (number,) in _NUMBER.iter_unpack(value[: len(value) & -8])]
            if not numbers or numbers[0] != len(numbers) - 1:
                return None
            found.update(numbers[1:])
        return None if gaps else found

    def _page(self, number: int, kind: int) -> tuple[bytes, bool]:
        """Nothing if it cannot be a page of this kind, and whether it says that it is."""
        if not 2 <= number < self.count or self.reached[number]:
            return b"", False
        page = self._file.pread(self.page_size, number * self.page_size)
        if len(page) < self.page_size:
            return b"", False
        own, _, flags, _, _ = _PAGE.unpack_from(page)
        is_own, is_kind = own == number, flags == kind
        may_be = is_kind or (is_own and flags not in (_BRANCH, _LEAF))
        return (page if may_be else b""), is_own and is_kind

    def _value(self, page: bytes, node: "_Node") -> bytes | None:
        """None when it cannot be read."""
        low, high, flags, _, offset = node
        size = low | high << 16
        if flags & (_SUB | _DUPLICATES):
            return None
        if not flags & _BIG:
            return page[offset : offset + size] if offset + size <= len(page) else None
        if offset + _NUMBER.size > len(page):
            return None
        (number,) = _NUMBER.unpack_from(page, offset)
        start = number * self.page_size + PAGE_HEADER_SIZE
        if number < 2 or start + size > self._size:
            return None
        used = -(-(PAGE_HEADER_SIZE + size) // self.page_size)
        self.reached[number : number + used] = b"\1" * min(used, self.count - number)
        return self._file.pread(size, start)


_Node = tuple[int, int, int, bytes, int]
"""low, high, flags, key, and where the value begins"""


def _nodes(page: bytes) -> tuple[list[_Node], bool]:
    """The nodes of a page that lie inside it, and whether those are all."""
    _, _, _, lower, upper = _PAGE.unpack_from(page)
    size = len(page)
    whole = PAGE_HEADER_SIZE <= lower <= upper <= size
    found: list[_Node] = []
    for place in range(PAGE_HEADER_SIZE, min(lower, size - 1), 2):
        offset = int.from_bytes(page[place : place + 2], "little")
        start = offset + NODE_HEADER_SIZE
        if not PAGE_HEADER_SIZE <= offset <= size - NODE_HEADER_SIZE:
            whole = False
            continue
        low, high, flags, key_size = _NODE.unpack_from(page, offset)
        if start + key_size > size:
            whole = False
            continue
        found.append((low, high, flags, page[start : start + key_size], start + key_size))
    return found, whole
