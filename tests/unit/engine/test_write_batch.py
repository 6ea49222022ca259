"""What one write costs and keeps, where the number of steps is the promise."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb import Text, Vector
from amberdb.engine.schema import schema
from amberdb.index.vector.coercion import coerce
from support.databases import OpenDatabase
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
