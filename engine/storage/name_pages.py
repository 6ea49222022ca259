"""Leaf pages with the names of trees: the last ones of LMDB's unnamed tree.

    node   48 u32 | flags u16: 2 | 8 u16 | name | pad u32 | flags u16 | depth u16 | branch, leaf and
           overflow pages, entries, root, u64 each

Invariants:
- Names are the last keys of the unnamed tree; a page may have other keys before them.
- Nothing that is read is trusted: a node that is not the name of a keyspace's tree is damage.
"""

from collections.abc import Iterator, Sequence
from struct import Struct, error
from typing import Final, NamedTuple

from amberdb._errors import CorruptionError
from amberdb.engine.storage.data_file import (
    TREE_SIZE,
    Tree,
    pack_tree,
    unpack_tree,
)
from amberdb.engine.storage.leaves import leaf_page
from amberdb.engine.storage.page_format import (
    LARGE,
    NAME,
    NODE_HEADER_SIZE,
    NUMBER_SIZE,
    OFFSET_SIZE,
    PAGE_HEADER_SIZE,
)
from amberdb.engine.storage.trees import NAMES, name_of, prefix_in

_NODE: Final = Struct("<IHH")
assert _NODE.size == NODE_HEADER_SIZE

NamedTree = tuple[bytes, Tree]
"""(prefix of the keyspace, its tree)"""


class NamePage(NamedTuple):
    """A leaf page of names, without its number."""

    first: bytes
    """The first name."""
    names: int
    page: bytearray

    def numbered(self, number: int) -> bytes:
        return number.to_bytes(8, "little") + self.page[8:]


def name_pages(trees: Sequence[NamedTree], page_size: int) -> Iterator[NamePage]:
    """Pages that name these trees, ascending."""
    node_size = NODE_HEADER_SIZE + len(NAMES) + TREE_SIZE + OFFSET_SIZE
    count = (page_size - PAGE_HEADER_SIZE) // node_size
    for start in range(0, len(trees), count):
        few = trees[start : start + count]
        page = leaf_page((_node(prefix, tree) for prefix, tree in few), page_size)
        yield NamePage(name_of(few[0][0]), len(few), page)


def _node(prefix: bytes, tree: Tree) -> bytes:
    name = name_of(prefix)
    return _NODE.pack(TREE_SIZE, NAME, len(name)) + name + pack_tree(tree)


def split_names(page: bytes, page_size: int) -> tuple[bytearray | None, list[NamedTree]]:
    """A leaf page without the names in it, None if that leaves nothing; and the trees that they
    name, without empty ones. Raises CorruptionError."""
    kept: list[bytes] = []
    named: list[NamedTree] = []
    has_names = False
    for node in _nodes(page):
        flags, key_size = _NODE.unpack_from(node)[1:]
        key = node[NODE_HEADER_SIZE : NODE_HEADER_SIZE + key_size]
        if key < NAMES:
            if has_names:
                raise CorruptionError("a key follows the names of trees")
            kept.append(node)
            continue
        has_names = True
        prefix = prefix_in(key)
        value = node[NODE_HEADER_SIZE + key_size :]
        if prefix is None or flags != NAME or len(value) != TREE_SIZE:
            raise CorruptionError(f"{key[:40]!r} is not the name of a tree")
        tree = unpack_tree(value)
        if tree.entries:
            named.append((prefix, tree))
    if not has_names:
        return bytearray(page), []
    return (leaf_page(kept, page_size) if kept else None), named


def _nodes(page: bytes) -> Iterator[bytes]:
    """The nodes of a leaf page. Raises CorruptionError."""
    lower = int.from_bytes(page[PAGE_HEADER_SIZE - 2 * OFFSET_SIZE :][:OFFSET_SIZE], "little")
    for place in range(PAGE_HEADER_SIZE, lower, OFFSET_SIZE):
        start = int.from_bytes(page[place : place + OFFSET_SIZE], "little")
        try:
            size, flags, key_size = _NODE.unpack_from(page, start)
        except error:
            raise CorruptionError("a node is outside of its leaf page") from None
        end = start + NODE_HEADER_SIZE + key_size + (NUMBER_SIZE if flags == LARGE else size)
        if end > len(page):
            raise CorruptionError("a node is outside of its leaf page")
        yield page[start:end]
