"""A reader of LMDB's file that does not use LMDB, for files that LMDB must not map.

A damaged page does not end a walk: the pairs of all other pages are returned, and each unreadable
place is recorded as a gap, with the range of keys that may be missing there.

Invariants:
- No value is trusted: every offset is checked, and no page is read twice as part of a tree.
- The pairs of a tree come in the order of their keys, each within the range that the inner pages
  above give it; a key outside its range makes a gap.
- The main tree names the trees of keyspaces: where it has a gap, whole keyspaces may be missing.

Format (LMDB 0.9, 64 bit, little endian): a page header of 16 bytes, then by its flags:

    page    number u64 | pad u16 | flags u16 | lower u16 | upper u16 | u16 offsets of nodes ...
            of an overflow page lower and upper are one u32, the count of its pages
    node    size or page, low u16, high u16 | flags u16 | key size u16 | key | value
            inner: the child's page number is low, high, flags; a large value: the number of its
            first overflow page
    meta    magic u32 | version u32 | address u64 | map u64 | free tree 48 | main tree 48 |
            last page u64 | transaction u64
    tree    page size u32 | flags u16 | depth u16 | three counts u64 | entries u64 | root u64
            in a meta page, or as a value in the main tree
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from amberdb._fs import File
from amberdb.engine.schema.keyspace import FIRST_PREFIX, end_of
from amberdb.engine.storage.data_file import (
    PAGE_SIZE,
    TREE_SIZE,
    Meta,
    Tree,
    read_metas,
    unpack_tree,
)
from amberdb.engine.storage.page_format import (
    BRANCH,
    DEPTH_MAX,
    LARGE,
    LEAF,
    NAME,
    NO_PAGE,
    NODE_HEADER_SIZE,
    PAGE_HEADER_SIZE,
)
from amberdb.engine.storage.trees import NAMES, prefix_in

_PAGE = Struct("<QHHHH")
_NODE = Struct("<HHHH")
_NUMBER = Struct("<Q")
assert _PAGE.size == PAGE_HEADER_SIZE
assert _NODE.size == NODE_HEADER_SIZE
assert _NUMBER.size == 8

_DUPLICATES = 4

Pair = tuple[bytes, bytes]


class Gap(NamedTuple):
    """Keys with low <= key < high may be missing; `high` None: no end."""

    low: bytes
    high: bytes | None
    page: int


class Pages:
    """The pages of one file; `reached` marks those that a tree refers to."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._size = file.size()
        self.metas = sorted(read_metas(file.pread(1 << 16, 0)), reverse=True)
        self.page_size = self.metas[0].page_size if self.metas else PAGE_SIZE
        self.count = self._size // self.page_size
        self.reached = bytearray(self.count)
        self.reached[:2] = b"\1\1"[: self.count]

    def pairs(self, meta: Meta, gaps: list[Gap]) -> Iterator[Pair]:
        """All pairs of the file as of a meta page, by key; ranges that may lack pairs are added to
        `gaps`."""
        yield from self.walk(meta.main, gaps)
        if any(high is None or high > NAMES for _, high, _ in gaps):
            gaps.append(Gap(FIRST_PREFIX, None, meta.main.root))

    def walk(self, tree: Tree, gaps: list[Gap], *, is_free: bool = False) -> Iterator[Pair]:
        """The pairs of the main tree, with those of each tree that it names, or of the free tree;
        ranges that may lack pairs are added to `gaps`. The keys of the free tree are numbers, not
        in the order of their bytes."""
        if tree.depth or 2 <= tree.root < self.count:
            yield from self._walk(tree.root, max(1, tree.depth), b"", None, gaps, is_free)

    def _walk_named(self, page: bytes, node: "_Node", gaps: list[Gap]) -> Iterator[Pair]:
        """The pairs of the tree that a node of the main tree names."""
        size, _, _, name, offset = node
        prefix = prefix_in(name)
        if prefix is None or size != TREE_SIZE or offset + size > len(page):
            gaps.append(Gap(FIRST_PREFIX, None, int.from_bytes(page[:8], "little")))
            return
        tree = unpack_tree(page[offset : offset + size])
        if tree.entries or tree.root != NO_PAGE:
            depth = max(1, tree.depth)
            yield from self._walk(tree.root, depth, prefix, end_of(prefix), gaps, False)

    def _walk(
        self, number: int, levels: int, low: bytes, high: bytes | None, gaps: list[Gap], free: bool
    ) -> Iterator[Pair]:
        page, whole = self._page(number, LEAF if levels == 1 else BRANCH)
        if not page or levels > DEPTH_MAX:
            gaps.append(Gap(low, high, number))
            return
        nodes, all_inside = _nodes(page)
        keys = [node[3] for node in (nodes if levels == 1 else nodes[1:])]
        inside = [key for key in keys if free or (low <= key and (high is None or key < high))]
        is_sorted = free or (keys == sorted(keys) and len(inside) == len(keys))
        if not (whole and all_inside and is_sorted):
            gaps.append(Gap(low, high, number))
        if keys and not inside:
            return  # a page of another tree, or of another part of this one
        self.reached[number] = 1
        if levels == 1:
            for node in nodes:
                if free or (low <= node[3] and (high is None or node[3] < high)):
                    if node[2] == NAME and node[3] >= NAMES and not free:
                        yield from self._walk_named(page, node, gaps)
                        continue
                    value = self._value(page, node)
                    if value is not None:
                        yield node[3], value
                    elif not gaps or gaps[-1].page != number:
                        gaps.append(Gap(low, high, number))
            return
        bounds = [low, *(node[3] for node in nodes[1:])]
        for number, node in enumerate(nodes):
            end = bounds[number + 1] if number + 1 < len(nodes) else high
            child = node[0] | node[1] << 16 | node[2] << 32
            yield from self._walk(child, levels - 1, bounds[number], end, gaps, free)

    def unreached(self) -> Iterator[tuple[int, list[Pair]]]:
        """Leaf pages that no tree refers to: lost pages, and pages that LMDB has freed."""
        for number in range(2, self.count):
            page, whole = self._page(number, LEAF)
            if whole:
                pairs = [(node[3], self._value(page, node)) for node in _nodes(page)[0]]
                yield number, [(key, value) for key, value in pairs if value is not None]

    def free_pages(self, meta: Meta) -> set[int] | None:
        """The numbers of the free pages; None when their list is damaged."""
        gaps: list[Gap] = []
        free: set[int] = set()
        for _, value in self.walk(meta.free, gaps, is_free=True):
            numbers = [number for (number,) in _NUMBER.iter_unpack(value[: len(value) & -8])]
            if not numbers or numbers[0] != len(numbers) - 1:
                return None
            free.update(numbers[1:])
        return None if gaps else free

    def _page(self, number: int, kind: int) -> tuple[bytes, bool]:
        """(page, whether its header is right); b"" if it cannot be a page of this kind."""
        if not 2 <= number < self.count or self.reached[number]:
            return b"", False
        page = self._file.pread(self.page_size, number * self.page_size)
        if len(page) < self.page_size:
            return b"", False
        own, _, flags, _, _ = _PAGE.unpack_from(page)
        is_own, is_kind = own == number, flags == kind
        may_be = is_kind or (is_own and flags not in (BRANCH, LEAF))
        return (page if may_be else b""), is_own and is_kind

    def _value(self, page: bytes, node: "_Node") -> bytes | None:
        """The value of a node; None when it cannot be read."""
        low, high, flags, _, offset = node
        size = low | high << 16
        if flags & (NAME | _DUPLICATES):
            return None
        if not flags & LARGE:
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
"""(low, high, flags, key, offset of the value)"""


def _nodes(page: bytes) -> tuple[list[_Node], bool]:
    """(nodes that lie within the page, whether these are all)."""
    _, _, _, lower, upper = _PAGE.unpack_from(page)
    size = len(page)
    whole = PAGE_HEADER_SIZE <= lower <= upper <= size
    nodes: list[_Node] = []
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
        nodes.append((low, high, flags, page[start : start + key_size], start + key_size))
    return nodes, whole
