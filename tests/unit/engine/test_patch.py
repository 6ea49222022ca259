"""update(): merged fields, paths and operators, and the patches that are refused."""

from typing import Any

import pytest

from amberdb import (
    REMOVE,
    Collection,
    Database,
    InvalidDocumentError,
    Ordered,
    Projection,
    Text,
    Vector,
)
from support.databases import FakeClock
from unit.engine.helpers import got

STORED = {"id": "a", "n": 1, "user": {"city": "Rome", "age": 3}, "tags": ["x"], "none": None}


@pytest.fixture
def notes(db: Database) -> Collection:
    notes = db.collection("note", indexes=[Ordered("n"), Ordered("user.city")])
    notes.put(STORED)
    return notes


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        ({}, {}),
        ({"n": 2, "new": None}, {"n": 2, "new": None}),
        ({"user": {"city": "Oslo"}}, {"user": {"city": "Oslo", "age": 3}}),
        ({"user.city": "Oslo"}, {"user": {"city": "Oslo", "age": 3}}),
        ({"user.city": "Oslo", "user.age": REMOVE}, {"user": {"city": "Oslo"}}),
        ({"user.home": {"zip": 1}}, {"user": {"city": "Rome", "age": 3, "home": {"zip": 1}}}),
        ({"a.b.c": 1}, {"a": {"b": {"c": 1}}}),
        ({"none.b": 1}, {"none": {"b": 1}}),
        ({("user", "city"): "Oslo"}, {"user": {"city": "Oslo", "age": 3}}),
        ({("a.b", ""): 1}, {"a.b": {"": 1}}),
        ({'.["a.b"]': 1}, {"a.b": 1}),
        ({"a": {"b.c": 1}}, {"a": {"b.c": 1}}),
        ({"gone.b": REMOVE, "n.b": REMOVE}, {}),
        ({"$set": {"n": 2, "user.city": "Oslo"}}, {"n": 2, "user": {"city": "Oslo", "age": 3}}),
        ({"$set": {"user": {"x": 1}}}, {"user": {"x": 1}}),
        ({"$set": {"user": {"$set": 1}}}, {"user": {"$set": 1}}),
        ({"$unset": {"user.age": "", "gone": 1}}, {"user": {"city": "Rome"}}),
        ({"$unset": ["user.age", "gone.x"]}, {"user": {"city": "Rome"}}),
        ({"$inc": {"n": 2, "user.age": -1}}, {"n": 3, "user": {"city": "Rome", "age": 2}}),
        ({"$inc": {"new.x": 1, "none": 1.5}}, {"new": {"x": 1}, "none": 1.5}),
        (
            {"$push": {"tags": "y", "new": 1, "none": 2}},
            {"tags": ["x", "y"], "new": [1], "none": [2]},
        ),
        ({"$push": {"tags": {"$each": ["y", "z"]}}}, {"tags": ["x", "y", "z"]}),
        ({"$push": {"tags": {"k": 1}}}, {"tags": ["x", {"k": 1}]}),
        ({"$max": {"n": 5, "user.age": 2, "new": "b"}}, {"n": 5, "new": "b"}),
        ({"$max": {"n": "text", "none": False}}, {"n": "text", "none": False}),
        ({"done": True, "$inc": {"n": 1}}, {"done": True, "n": 2}),
        (Projection(n=2), {"n": 2}),
    ],
    ids=repr,
)
def test_a_patch_changes_fields(
    notes: Collection, patch: dict[Any, Any], changed: dict[str, Any]
) -> None:
    given = repr(patch)
    notes.update("a", patch)
    assert got(notes, "a") == {**STORED, **changed}
    assert repr(patch) == given, "the caller's maps stay as they are"
    wanted = got(notes, "a")
    assert notes.find({"n": wanted["n"]}) == [wanted], "and the indexes follow"


def test_a_removed_field_is_gone(notes: Collection) -> None:
    notes.update("a", {"$unset": ["n"], "none": REMOVE, "user.city": REMOVE})
    assert got(notes, "a") == {"id": "a", "user": {"age": 3}, "tags": ["x"]}


REFUSED: list[tuple[Any, str]] = [
    ({"$foo": {"n": 1}}, "operators are"),
    ({"$rename": {"n": "m"}}, "operators are"),
    ({"$each": [1]}, "operators are"),
    ({"n": {"$inc": 1}}, "operator comes first"),
    ({"user": {"deep": {"$set": 1}}}, "operator comes first"),
    ({"tags": [{"$each": []}]}, "operator comes first"),
    ({"$set": 1}, "map of paths"),
    ({"$inc": ["n"]}, "map of paths"),
    ({"$set": {"tags.$": 1}}, r"begins with \$"),
    ({"$set": {"$x": 1}}, r"begins with \$"),
    ({("n", "$x"): 1}, r"begins with \$"),
    ({"a..b": 1}, "empty segment"),
    ({"": 1}, "empty"),
    ({5: 1}, "str"),
    ({(): 1}, "list of keys"),
    ({".[5]": 1}, "JSON list"),
    ({"tags.x": 1}, "goes through 'tags'"),
    ({"tags.x": REMOVE}, "goes through 'tags'"),
    ({"n.x": 1}, "goes through 'n'"),
    ({"n": 1, "$inc": {"n": 1}}, "twice"),
    ({"user": {"x": 1}, "user.city": "Oslo"}, "twice"),
    ({"$set": {"user.city.x": 1}, "$unset": {"user": 1}}, "twice"),
    ({"$inc": {"n": "1"}}, "adds numbers"),
    ({"$inc": {"n": True}}, "adds numbers"),
    ({"$inc": {"tags": 1}}, "adds numbers"),
    ({"$inc": {"n": 2**63}}, "adds numbers"),
    ({"$inc": {"n": 2**63 - 1}}, "64 bits"),
    ({"$push": {"n": 1}}, "appends to a list"),
    ({"$push": {"tags": {"$each": 1}}}, "each"),
    ({"$push": {"tags": {"$each": [1], "$slice": 2}}}, "each"),
    ({"$max": {"tags": 1}}, "single values"),
    ({"$max": {"n": {}}}, "single values"),
    ({"$max": {"n": {1}}}, "max"),
    ({"$set": {"id": "b"}}, "cannot change an id"),
    ({"$unset": ["id"]}, "cannot change an id"),
    ([("n", 1)], "a patch is a map"),
    (None, "a patch is a map"),
]


@pytest.mark.parametrize(("patch", "says"), REFUSED, ids=repr)
def test_what_is_no_patch_is_refused(notes: Collection, patch: Any, says: str) -> None:
    with pytest.raises(InvalidDocumentError, match=says):
        notes.update("a", patch)
    assert got(notes, "a") == STORED


def test_a_patch_is_refused_that_is_nested_too_deeply(notes: Collection) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = {"x": deep}
    with pytest.raises(InvalidDocumentError, match="levels"):
        notes.update("a", {"n": deep})


def test_operators_work_alike_in_a_transaction(db: Database, notes: Collection) -> None:
    with db.transaction() as tx:
        for _ in range(3):
            tx["note"].update("a", {"$inc": {"n": 1}, "$push": {"tags": "y"}})
    assert (got(notes, "a")["n"], got(notes, "a")["tags"]) == (4, ["x", "y", "y", "y"])


def test_a_changed_text_gets_its_vector(db: Database) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    near = Vector("v", dim=2, source="of.text", embed=embed, metric="l2")
    notes = db.collection("note", indexes=[near])
    notes.put({"id": "a", "of": {"text": "abc", "x": 1}})
    patch: dict[str, Any]
    for patch in ({"of.text": "abcd"}, {"$set": {"of.text": "abcd"}}, {"of": {"text": "abcd"}}):
        notes.update("a", {"$set": {"of": {"text": "abc"}}})
        assert got(notes, "a")["v"].tolist() == [3.0, 1.0]
        notes.update("a", patch)
        assert got(notes, "a")["v"].tolist() == [4.0, 1.0]
    notes.update("a", {"of": {"x": 2}, "$inc": {"of2": 1}})
    assert got(notes, "a")["v"].tolist() == [4.0, 1.0], "the text is the same"
    removing: list[dict[str, Any]] = [
        {"$unset": ["of.text"]},
        {"$set": {"of": {}}},
        {"of": 5},
        {"$max": {"of.text": "z"}},
    ]
    for patch in removing:
        notes.put({"id": "a", "of": {"text": "abc"}})
        notes.update("a", patch)
        assert "v" not in got(notes, "a"), patch
    notes.embed_missing()


def test_a_vector_that_is_given_stays(db: Database) -> None:
    near = Vector("v", dim=1, source="text", embed=lambda texts: [[9.0]] * len(texts), metric="l2")
    notes = db.collection("note", indexes=[near])
    notes.put({"id": "a", "text": "abc"})
    notes.update("a", {"$set": {"text": "new", "v": [2.0]}})
    assert got(notes, "a")["v"].tolist() == [2.0]


def test_an_update_keeps_the_search_index_right(db: Database, clock: FakeClock) -> None:
    notes = db.collection("note", indexes=[Text("of.text")])
    notes.put({"id": "a", "of": {"text": "umbrella"}})
    notes.update("a", {"of.text": "kettle"})
    assert [hit.id for hit in notes.search("kettle")] == ["a"]
    assert notes.search("umbrella") == []
