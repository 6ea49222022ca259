"""Names of trees in leaf pages: read and made without LMDB."""

from collections.abc import Callable

import pytest

from amberdb import CorruptionError
from amberdb.engine.schema.keyspace import prefix_of
from amberdb.engine.storage.data_file import Tree
from amberdb.engine.storage.leaves import leaf_page
from amberdb.engine.storage.name_pages import NamedTree, name_pages, split_names

PAGE = 4096
TREES: list[NamedTree] = [
    (prefix_of(number), Tree(2, 1, number, 0, 7 * number, 1000 + number))
    for number in range(16, 200)
]


def pages_of(trees: list[NamedTree]) -> list[bytes]:
    return [page.numbered(9) for page in name_pages(trees, PAGE)]


@pytest.mark.parametrize("count", [0, 1, 61, 62, 63, 184])
def test_what_was_named_is_found(count: int) -> None:
    found: list[NamedTree] = []
    for page in pages_of(TREES[:count]):
        rest, named = split_names(page, PAGE)
        assert rest is None
        found += named
    assert found == TREES[:count]


def node(key: bytes, value: bytes, flags: int = 0) -> bytes:
    head = len(value).to_bytes(4, "little") + flags.to_bytes(2, "little")
    return head + len(key).to_bytes(2, "little") + key + value


def test_other_keys_stay() -> None:
    name = node(b"00000010", bytes(4) + bytes(2) + b"\1\0" + bytes(24) + b"\5" + bytes(15), 2)
    others = [node(b"\0\0\0\1%d" % n, b"v" * n) for n in range(5)]
    rest, named = split_names(bytes(leaf_page([*others, name], PAGE)), PAGE)
    assert rest == leaf_page(others, PAGE)
    assert named == [(prefix_of(16), Tree(1, 0, 0, 0, 5, 0))]
    rest, named = split_names(bytes(leaf_page(others, PAGE)), PAGE)
    assert (rest, named) == (leaf_page(others, PAGE), [])


def test_an_empty_tree_is_left_out() -> None:
    empty = Tree(0, 0, 0, 0, 0, (1 << 64) - 1)
    (page,) = pages_of([TREES[0], (prefix_of(17), empty), TREES[2]])
    assert split_names(page, PAGE) == (None, [TREES[0], TREES[2]])


def cut(page: bytearray) -> None:
    """The last offset leads to the end of the page."""
    page[16 + 2 * 60 : 16 + 2 * 61] = (PAGE - 4).to_bytes(2, "little")


DAMAGES: dict[str, Callable[[bytearray], object]] = {
    "no name": lambda page: page.__setitem__(page.index(b"00000011"), ord("z")),
    "a name that is a number of the catalog": lambda page: page.__setitem__(
        slice(page.index(b"00000011"), page.index(b"00000011") + 8), b"00000001"
    ),
    "another flag": lambda page: page.__setitem__(page.index(b"00000011") - 4, 0),
    "another size": lambda page: page.__setitem__(page.index(b"00000011") - 8, 47),
    "a size past the page": lambda page: page.__setitem__(page.index(b"00000011") - 5, 1),
    "a node outside": cut,
    "another key after the names": lambda page: page.__setitem__(page.index(b"0000004c"), 0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_refused(damage: Callable[[bytearray], object]) -> None:
    page = bytearray(pages_of(TREES)[0])
    damage(page)
    with pytest.raises(CorruptionError):
        split_names(bytes(page), PAGE)
