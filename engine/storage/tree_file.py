"""The trees of an LMDB file, without LMDB: their leaf pages in order, and a new file made of some.

    made file   two meta pages | leaf pages, those of a block together, behind them their large
                values, and in between branch pages, each when it is full; then the rest of the
                branch pages, and leaf pages with the names of the trees
    branch      header 16 | u16 offsets of nodes ... | zeros | nodes
    node        page u48 | key size u16 | key; the first one of a page has no key
    large       header 16, with the count of its pages in place of lower and upper | value | zeros

Invariants:
- A made file has no free page and no byte of anything but its pairs. Its branch pages are made from
  the first keys of the leaf pages, and no pointer in it comes from elsewhere.
- Every branch page has two children at least, as LMDB expects.
- A file is read as of one commit, and nothing outside of it, whatever its pages say.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from mmap import mmap
from typing import Final, cast, final

import numpy as np

from amberdb._errors import CorruptionError
from amberdb._fs import File, FileSystem
from amberdb.engine.schema.keyspace import FIRST_PREFIX, end_of
from amberdb.engine.storage.data_file import HEAD_BYTES, Meta, Tree, meta_pages, read_metas
from amberdb.engine.storage.leaves import Leaves, pages_of_value
from amberdb.engine.storage.name_pages import NamedTree, NamePage, name_pages, split_names
from amberdb.engine.storage.page_format import (
    BRANCH,
    DEPTH_MAX,
    NODE_HEADER_SIZE,
    OFFSET_SIZE,
    OVERFLOW,
    PAGE_HEADER_SIZE,
)
from amberdb.engine.storage.trees import TREES_MAX
from amberdb.index.ordered.keys import KEYSPACE_BYTES

PAGES_BYTES: Final = 1 << 19
"""The bytes of pages that are read together. More at once take less time, and hold the interpreter
longer."""
PAGES_BYTES_BUSY: Final = 1 << 15
"""The same where others need the interpreter."""
_METAS: Final = 2
_PAGE_BITS: Final = 48


def meta_of(fs: FileSystem, path: str, transaction: int) -> Meta | None:
    """The meta page of a read transaction that is open; None when it may be gone. Two commits later
    LMDB writes over it: not before the other meta page is newer than this one."""
    file = fs.open(path, read_only=True)
    try:
        first, second = (read_metas(file.pread(HEAD_BYTES, 0)) for _ in range(2))
    finally:
        file.close()
    found = [meta for meta in first if meta.transaction == transaction]
    return found[0] if found and found[0] == max(second, default=None) else None


@final
class TreeReader:
    """Reads the trees of a mapped file, as of a read transaction that stays open meanwhile."""

    def __init__(self, data: memoryview, meta: Meta, is_busy: Callable[[], bool]) -> None:
        """`is_busy`: whether other threads need the interpreter just now."""
        self.page_size = meta.page_size
        self._is_busy = is_busy
        self._meta = meta
        self._data = data
        count = min(len(data) // self.page_size, meta.last_page + 1)
        cells = np.frombuffer(data, np.uint8, count * self.page_size)
        self._pages = cells.reshape(count, self.page_size)
        self._numbers = cells.view("<u8")[:: self.page_size // 8]

    def close(self) -> None:
        """Unmaps the file. Nothing can be read afterwards."""
        del self._pages, self._numbers
        mapped = self._data.obj
        self._data.release()
        cast(mmap, mapped).close()

    def leaves(self) -> Iterator[Leaves]:
        """All leaf pages, keys ascending, without the names of trees. Raises CorruptionError."""
        unnamed, named = self._without_names(list(self._numbers_of(self._meta.main)))
        for leaves in unnamed:
            rest: Leaves | None = leaves
            while rest is not None and named and named[0][0] <= rest.bounds()[1]:
                before, rest = rest.split(named[0][0])
                if before is not None:
                    yield before
                yield from self._leaves_of(*named.popleft())
            if rest is not None:
                yield rest
        for prefix, tree in named:
            yield from self._leaves_of(prefix, tree)

    def _without_names(self, numbers: list[int]) -> tuple[Iterator[Leaves], deque[NamedTree]]:
        """The pages of the unnamed tree without the names in it, which are its last keys; and the
        trees that they name."""
        named: deque[NamedTree] = deque()
        last: bytearray | None = None
        while numbers and last is None:
            (page,) = self._read([numbers.pop()])
            last, found = split_names(bytes(page), self.page_size)
            named.extendleft(reversed(found))
        pages = chain(self._read(numbers), [] if last is None else [last])
        return (Leaves(each, self.page_size) for each in pages), named

    def _leaves_of(self, prefix: bytes, tree: Tree) -> Iterator[Leaves]:
        """The leaf pages of the tree of a keyspace."""
        for pages in self._read(self._numbers_of(tree)):
            leaves = Leaves(pages, self.page_size)
            if not all(key.startswith(prefix) for key in leaves.bounds()):
                raise CorruptionError(f"the tree of keyspace {prefix.hex()} has keys of another")
            yield leaves

    def _numbers_of(self, tree: Tree) -> Iterator[int]:
        """The numbers of the leaf pages of a tree."""
        if 0 < tree.depth <= DEPTH_MAX:
            yield from self._leaf_numbers(tree.root, tree.depth - 1)

    def _read(self, numbers: Iterable[int]) -> Iterator[bytearray]:
        """The pages with these numbers, a few of them together."""
        remaining = iter(numbers)
        while few := list(islice(remaining, self._count())):
            self._check_numbers(few)
            yield bytearray(self._pages.take(few, axis=0))

    def _count(self) -> int:
        """The number of pages to read together."""
        size = min(PAGES_BYTES, PAGES_BYTES_BUSY) if self._is_busy() else PAGES_BYTES
        return size // self.page_size

    def _leaf_numbers(self, number: int, level: int) -> Iterator[int]:
        if level == 0:
            yield number
        elif level == 1:
            yield from self._children(number)
        else:
            for child in self._children(number):
                yield from self._leaf_numbers(child, level - 1)

    def _children(self, number: int) -> list[int]:
        self._check_numbers([number])
        return _children(self._pages[number].tobytes())

    def value(self, number: int, size: int) -> bytes:
        """A large value. Raises CorruptionError."""
        self._check_numbers([number])
        start = number * self.page_size
        flags, count = int(self._data[start + 10]), bytes(self._data[start + 12 : start + 16])
        is_long = int.from_bytes(count, "little") >= pages_of_value(size, self.page_size)
        start += PAGE_HEADER_SIZE
        if flags != OVERFLOW or not is_long or start + size > len(self._data):
            raise CorruptionError(f"page {number} does not begin a value of {size} bytes")
        return bytes(self._data[start : start + size])

    def _check_numbers(self, numbers: list[int]) -> None:
        """Raises CorruptionError unless the pages are in the file and have these numbers."""
        is_inside = min(numbers) >= _METAS and max(numbers) < len(self._pages)
        if not is_inside or self._numbers[numbers].tolist() != numbers:
            raise CorruptionError(f"page {numbers[0]}, or one after it, is not where it should be")


def _children(page: bytes) -> list[int]:
    """The page numbers in a branch page. Raises CorruptionError."""
    words = memoryview(page).cast("H").tolist()
    end = words[6]
    offsets = words[PAGE_HEADER_SIZE // 2 : end // 2]
    if words[5] != BRANCH or not PAGE_HEADER_SIZE < end <= len(page):
        raise CorruptionError("a branch page has an invalid header")
    if max(offsets) > len(page) - NODE_HEADER_SIZE:
        raise CorruptionError("a node is outside of its branch page")
    places = [offset // 2 for offset in offsets]
    return [words[at] | words[at + 1] << 16 | words[at + 2] << 32 for at in places]


@final
class TreeWriter:
    """Makes a data file from leaf pages and their large values: a tree for each keyspace."""

    def __init__(self, file: File, page_size: int) -> None:
        self._pages = _PageWriter(file, page_size)
        self._unnamed = _TreeBuilder(self._pages)
        self._named: list[tuple[bytes, _TreeBuilder]] = []

    def add(self, leaves: Leaves, keys: list[bytes], values: Iterable[bytes]) -> None:
        """Adds pages whose keys follow all before. `values` are their large values."""
        remaining = iter(values)
        rest: Leaves | None = leaves
        while rest is not None:
            end = _end_of_tree(keys[0])
            part, after = (rest, None) if keys[-1] < end else rest.split(end)
            assert part is not None
            count = part.nodes
            tree = self._tree_of(keys[0][:KEYSPACE_BYTES])
            tree.add(part, keys[:count], islice(remaining, len(part.large())))
            rest, keys = after, keys[count:]

    def _tree_of(self, prefix: bytes) -> "_TreeBuilder":
        if self._named and self._named[-1][0] == prefix:
            return self._named[-1][1]
        if prefix < FIRST_PREFIX or len(self._named) == TREES_MAX:
            return self._unnamed
        self._named.append((prefix, _TreeBuilder(self._pages)))
        return self._named[-1][1]

    def finish(self) -> None:
        """Writes the rest of the branch pages, the names of the trees, then the meta pages."""
        named = [(prefix, tree.finished()) for prefix, tree in self._named]
        for page in name_pages(named, self._pages.size):
            self._unnamed.add_names(page)
        self._pages.write_metas(self._unnamed.finished())


def _end_of_tree(key: bytes) -> bytes:
    """The end of the keys that may be in one tree with this one."""
    return FIRST_PREFIX if key < FIRST_PREFIX else end_of(key[:KEYSPACE_BYTES])


@final
class _PageWriter:
    """Writes pages one after the other."""

    def __init__(self, file: File, size: int) -> None:
        self._file = file
        self.size = size
        self.next = _METAS
        """The number of the next page."""

    def write(self, data: bytes) -> int:
        """Writes whole pages, and returns the number of the first one."""
        number = self.next
        self._file.pwrite(data, number * self.size)
        self.next += len(data) // self.size
        return number

    def write_metas(self, main: Tree) -> None:
        self._file.pwrite(meta_pages(self.size, self.next - 1, main), 0)


@final
class _TreeBuilder:
    """One tree: its leaf pages and large values as they come, and the branch pages above them."""

    def __init__(self, pages: _PageWriter) -> None:
        self._pages = pages
        self._levels: list[_Level] = []
        self._leaf_pages = self._branch_pages = self._value_pages = self._entries = 0

    def add(self, leaves: Leaves, keys: list[bytes], values: Iterable[bytes]) -> None:
        """As TreeWriter.add()."""
        size = self._pages.size
        end = leaves.number(self._pages.next)
        start = self._pages.write(bytes(leaves.pages))
        for value in values:
            count = pages_of_value(len(value), size)
            head = _header(self._pages.next, OVERFLOW) + count.to_bytes(4, "little")
            tail = bytes(count * size - len(head) - len(value))
            self._pages.write(b"".join((head, value, tail)))
            self._value_pages += count
        assert self._pages.next == end
        for number, first in enumerate(leaves.first_nodes()):
            self._refer(0, keys[first], start + number)
        self._leaf_pages += leaves.count
        self._entries += leaves.nodes

    def add_names(self, page: NamePage) -> None:
        """Adds a leaf page with names of trees."""
        number = self._pages.write(page.numbered(self._pages.next))
        self._refer(0, page.first, number)
        self._leaf_pages += 1
        self._entries += page.names

    def finished(self) -> Tree:
        """The tree, once the rest of its branch pages is written."""
        depth = 0
        while len(self._levels[depth].children) > 1 or self._levels[depth].is_divided:
            self._write_branch(depth, self._levels[depth].children)
            depth += 1
        ((_, root),) = self._levels[depth].children
        pages = self._branch_pages, self._leaf_pages, self._value_pages
        return Tree(depth + 1, *pages, self._entries, root)

    def _refer(self, level: int, key: bytes, number: int) -> None:
        """Adds a page to the branch pages above it."""
        if level == len(self._levels):
            self._levels.append(_Level(self._pages.size))
        full = self._levels[level].add((key, number))
        if full:
            self._write_branch(level, full)

    def _write_branch(self, level: int, children: "list[_Child]") -> None:
        page = bytearray(self._pages.size)
        offset = len(page)
        lower = PAGE_HEADER_SIZE
        for key, number in children:
            if lower == PAGE_HEADER_SIZE:
                key = b""  # the first child has all keys below those of the second
            node = number.to_bytes(_PAGE_BITS // 8, "little") + len(key).to_bytes(2, "little") + key
            offset -= len(node) + len(node) % 2
            page[offset : offset + len(node)] = node
            page[lower : lower + OFFSET_SIZE] = offset.to_bytes(OFFSET_SIZE, "little")
            lower += OFFSET_SIZE
        head = _header(self._pages.next, BRANCH)
        head += lower.to_bytes(2, "little") + offset.to_bytes(2, "little")
        page[: len(head)] = head
        number = self._pages.write(bytes(page))
        self._branch_pages += 1
        self._refer(level + 1, children[0][0], number)


_Child = tuple[bytes, int]
"""(first key, page number)"""


@final
class _Level:
    """The pages of one level that no branch page refers to yet."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self.children: list[_Child] = []
        self._size = PAGE_HEADER_SIZE
        self.is_divided = False
        """Whether branch pages refer to others of this level."""

    def add(self, child: _Child) -> list[_Child]:
        """Adds a page. Returns the children of a branch page that is full, or []. The last one
        stays here, so that no branch page gets a single child."""
        full: list[_Child] = []
        if self._size + _node_size(child) > self._page_size:
            full, self.children = self.children[:-1], self.children[-1:]
            self._size = PAGE_HEADER_SIZE + _node_size(self.children[0])
            self.is_divided = True
        self.children.append(child)
        self._size += _node_size(child)
        return full


def _node_size(child: _Child) -> int:
    """The bytes that a child takes in a branch page."""
    size = len(child[0])
    return OFFSET_SIZE + NODE_HEADER_SIZE + size + size % 2


def _header(number: int, flags: int) -> bytes:
    """The first twelve bytes of a page."""
    return number.to_bytes(8, "little") + bytes(2) + flags.to_bytes(2, "little")
