"""What one write costs and keeps, where the number of steps is the promise."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb import IndexSpec, Ordered, Text, Unique, Vector, equal
from amberdb.engine.schema import schema
from amberdb.engine.schema.keyspace import Effects
from amberdb.index.vector.coercion import coerce
from support.databases import OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import got

DIM = 8


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The values that were converted to vectors."""
    converted: list[object] = []

    def spy(value: object, *rest: Any) -> NDArray[np.float32]:
        converted.append(value)
        return coerce(value, *rest)

    monkeypatch.setattr(schema, "coerce", spy)
    monkeypatch.setattr("amberdb.index.vector.vector.coerce", spy)
    return converted


@pytest.mark.parametrize("as_list", [False, True])
def test_each_put_converts_its_vector_once(
    open_db: OpenDatabase, conversions: list[object], as_list: bool
) -> None:
    notes = open_db().collection("n", indexes=[Vector("v", dim=DIM), Text("text")])
    first, second = (np.full(DIM, number, np.float32) for number in (1, 2))
    notes.put({"id": "a", "v": first.tolist() if as_list else first, "text": "tea"})
    assert len(conversions) == 1
    notes.put({"id": "a", "v": second.tolist() if as_list else second, "text": "tea"})
    assert len(conversions) == 2
    notes.update("a", {"text": "cake"})
    assert len(conversions) == 3
    notes.delete("a")
    assert len(conversions) == 3


def test_a_stored_vector_shares_no_memory_with_the_callers_array(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Vector("v", dim=2)])
    owned = np.array([3, 4], np.float32)
    view = owned[:]
    view.flags.writeable = False
    with db.transaction() as tx:
        tx["n"].put({"id": "array", "v": owned})
        tx["n"].put({"id": "view", "v": view})
        owned[:] = -1
    for id in ("array", "view"):
        assert got(notes, id)["v"].tolist() == [3.0, 4.0]
    assert [hit.score for hit in notes.search(vector=[3, 4])] == pytest.approx([1.0, 1.0])


NEARLY_EQUAL: list[Any] = [
    *(None, False, True, 0, 1, 0.0, -0.0, 1.0, 2**53, 2.0**53, "1", b"1", ""),
    *([], [1], [True], [1.0], [1, 2], [None], {}, {"a": 1}, {"a": True}),
]
"""Values of which some are equal in Python and have different keys."""


def test_entries_follow_a_field_from_each_value_to_each_other(open_db: OpenDatabase) -> None:
    """The check of open_db compares all entries with those made of the documents."""
    notes = open_db().collection(
        "n", indexes=[Ordered("v"), Ordered("m.v", "-other"), Ordered("other"), Text("t")]
    )
    pairs = list(enumerate(product(NEARLY_EQUAL, repeat=2)))
    for way in ("update", "path", "put"):
        notes.put_many(
            {"id": f"{way}{number}", "v": old, "m": {"v": old, "w": 1}, "other": 1.0, "t": "tea"}
            for number, (old, _) in pairs
        )
    for number, (old, new) in pairs:
        notes.update(f"update{number}", {"$set": {"v": new}})
        notes.update(f"path{number}", {"$set": {"m.v": new}, "$inc": {"other": number % 2}})
        notes.put({"id": f"put{number}", "v": new, "m": {"v": old}, "other": 1.0, "t": "tea"})
        assert got(notes, f"path{number}")["m"] == {"v": new, "w": 1}
    values = {each["id"]: each["v"] for each in notes.find() if type(each["v"]) is not list}
    for new in NEARLY_EQUAL[:13]:
        found = {each["id"] for each in notes.find({"v": new}, fields=["id"])}
        assert found & values.keys() == {id for id, value in values.items() if equal(value, new)}


@pytest.mark.parametrize(
    ("patch", "keys"),
    [
        ({"note": 1}, 1),
        ({"m.note": 1}, 1),
        ({"v": 1.0, "m": {"v": 1}, "t": "tea", "u": "one", "e": 2e9}, 1),
        ({"note": 1, "v": 2}, 3),
        ({"m.v": 2}, 3),
        ({"u": "two"}, 3),
        ({"e": 3e9}, 3),
    ],
)
def test_an_update_makes_entries_only_of_what_it_changes(
    open_db: OpenDatabase, patch: dict[str, Any], keys: int
) -> None:
    db = open_db()
    indexes: list[IndexSpec] = [
        Ordered("v"),
        Ordered("m.v"),
        Ordered("tags"),
        Unique("u"),
        Text("t"),
    ]
    notes = db.collection("n", indexes=indexes, expires_at="e")
    stored = {"v": 1.0, "m": {"v": 1}, "tags": ["x", "y"], "u": "one", "t": "tea", "e": 2e9}
    notes.put({"id": "a", **stored})
    effects: list[Effects] = []
    engine_of(db).committer.on_effects = effects.append
    notes.update("a", patch)
    assert [len(each) for each in effects] == [keys]
