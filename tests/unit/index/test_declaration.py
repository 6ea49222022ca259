"""Ordered and Unique as people write them, and as the catalog keeps them."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from amberdb._errors import CollectionError, FormatError
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.registry import spec_from_map


def test_what_a_declaration_says() -> None:
    spec = Ordered("entity_id", "-created_at")
    assert spec.fields == ("entity_id", "-created_at")
    assert spec.paths == ("entity_id", "created_at")
    assert spec.descending == (False, True)
    assert not spec.sparse
    assert spec.name == "ordered:entity_id,-created_at"
    assert spec.kind == "ordered"
    assert Unique("a").name == "unique:a"
    assert Unique("a", name="own").name == "own"


def test_equality_is_by_kind_and_content() -> None:
    assert Ordered("a", "-b") == Ordered("a", "-b")
    assert len({Ordered("a"), Ordered("a"), Ordered("a", sparse=True), Ordered("-a")}) == 3
    ordered: Ordered | Unique = Ordered("a", name="n")
    unique: Ordered | Unique = Unique("a", name="n")
    assert ordered != unique


def test_it_never_changes() -> None:
    spec = Ordered("a")
    with pytest.raises(FrozenInstanceError):
        spec.sparse = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "spec",
    [Ordered("a"), Ordered("a", "-b.c", sparse=True), Unique("a", "b", name="own"), Unique("-a")],
)
def test_repr_and_map_give_it_back(spec: Ordered | Unique) -> None:
    assert eval(repr(spec), {"Ordered": Ordered, "Unique": Unique}) == spec
    assert type(spec).from_map(spec.to_map()) == spec
    assert spec_from_map(spec.to_map()) == spec


@pytest.mark.parametrize(
    "fields",
    [(), ("",), ("-",), ("a", "a"), ("a", "-a"), ("a..b",), ("\ud800",), (1,), (None,)],
)
def test_bad_fields(fields: tuple[Any, ...]) -> None:
    with pytest.raises(CollectionError):
        Ordered(*fields)


def test_other_bad_arguments() -> None:
    with pytest.raises(CollectionError, match="1 to 16"):
        Ordered(*(f"f{at}" for at in range(17)))
    with pytest.raises(CollectionError, match="sparse"):
        Ordered("a", sparse=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for name in ("", 7, "\udcff"):
        with pytest.raises(CollectionError, match="name"):
            Ordered("a", name=name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "change",
    [
        {"collation": "de"},
        {"kind": "text"},
        {"kind": None},
        {"fields": []},
        {"fields": "a"},
        {"fields": [1]},
        {"sparse": 1},
        {"name": ""},
        {"name": None},
    ],
)
def test_a_stored_map_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        spec_from_map(Ordered("a").to_map() | change)
    with pytest.raises(FormatError):
        Ordered.from_map(Ordered("a").to_map() | change)


def test_a_stored_map_with_a_part_missing_is_refused() -> None:
    for name in ("kind", "fields", "sparse", "name"):
        stored = Unique("a").to_map()
        del stored[name]
        with pytest.raises(FormatError):
            spec_from_map(stored)


def test_one_kind_refuses_the_other() -> None:
    with pytest.raises(FormatError):
        Unique.from_map(Ordered("a").to_map())
