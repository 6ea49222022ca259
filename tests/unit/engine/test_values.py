"""Results and documents as plain values: pickled, copied, compared, and as JSON."""

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import Collection, Database, Ordered, Text, Vector
from amberdb._jsonl.text import loads

NOW = datetime(2026, 2, 23, 0, 41, tzinfo=UTC)


@pytest.fixture
def notes(db: Database) -> Collection:
    notes = db.collection("note", indexes=[Ordered("n"), Text("text"), Vector("v", dim=2)])
    notes.put_many(
        {"id": f"{n}", "n": n, "text": "an umbrella", "v": [float(n), 1.0], "at": NOW}
        for n in range(5)
    )
    return notes


def by_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("again", [by_pickle, copy.copy, copy.deepcopy])
def test_a_page_comes_back_with_its_cursor(notes: Collection, again: Callable[[Any], Any]) -> None:
    def page(after: str | None = None) -> amberdb.Page:
        where = MappingProxyType({"n": {"$gte": 1}})  # cannot be pickled
        return notes.find(where, order_by="n", limit=2, after=after)

    first = page()
    other = again(first)
    assert type(other) is amberdb.Page
    assert amberdb.equal(other, first)
    assert other.cursor == first.cursor
    assert [document["n"] for document in page(other.cursor)] == [3, 4]
    assert again(notes.find()).cursor is None


@pytest.mark.parametrize("again", [by_pickle, copy.copy, copy.deepcopy])
def test_every_result_comes_back(
    db: Database, notes: Collection, again: Callable[[Any], Any]
) -> None:
    hits = notes.search("umbrella", vector=[1.0, 1.0], snippets=True)
    other = again(hits)
    assert type(other) is amberdb.Hits
    assert other.how == hits.how
    assert other.cursor == hits.cursor
    first = again(notes.search("umbrella", limit=2))
    assert len(notes.search("umbrella", after=first.cursor)) == 3
    for one, two in zip(hits, other, strict=True):
        assert amberdb.equal(amberdb.to_json(one), amberdb.to_json(two))
    (projection,) = notes.find({"n": 1}, fields=["n"])
    assert type(again(projection)) is amberdb.Projection
    assert again(projection) == projection
    record = notes.record("1")
    assert amberdb.equal(amberdb.to_json(again(record)), amberdb.to_json(record))
    for result in (db.definition("note"), *db.changes(), db.stats(), db.check(), db.options):
        if result is not db.options:
            assert type(again(result)) is type(result)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ({}, {}, True),
        ({"a": 1, "b": [1, {"c": None}]}, {"b": (1.0, {"c": None}), "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, False),
        ([1, 2], [1, 2, 3], False),
        ([1], {"0": 1}, False),
        (NOW, NOW.astimezone(timezone(timedelta(hours=8))), True),
        (b"a", "a", False),
        ({"v": np.array([0.1, 0.2], np.float32)}, {"v": np.array([0.1, 0.2], np.float32)}, True),
        ({"v": np.array([0.1, 0.2], np.float32)}, {"v": [0.1, 0.2]}, True),
        ({"v": [0.1, 0.2]}, {"v": np.array([0.1, 0.2])}, True),
        ({"v": np.array([1.0, 2.0])}, {"v": np.array([1.0, 3.0])}, False),
        ({"v": np.array([1.0, 2.0])}, {"v": [1.0]}, False),
        ({"v": np.array([1.0])}, {"v": 1.0}, False),
        ({"v": np.array([1.0])}, {"v": None}, False),
        ({"v": np.array([1.0])}, {"v": ["a"]}, False),
        ({"v": np.array([1.0])}, {"v": [[1.0], 2]}, False),
        ({"v": np.float32(1)}, {"v": 1}, True),
    ],
    ids=repr,
)
def test_equality_of_documents(left: Any, right: Any, same: bool) -> None:
    assert amberdb.equal(left, right) is same
    assert amberdb.equal(right, left) is same


def test_a_stored_document_equals_what_was_put(notes: Collection) -> None:
    document = {"id": "x", "v": [0.1, 0.7], "l": ({"t": NOW},)}
    notes.put(document)
    assert amberdb.equal(notes["x"], document)


def test_json_of_documents_is_that_of_the_command_line(notes: Collection) -> None:
    notes.put({"id": "x", "v": [0.1, 0.7], "at": NOW, "b": b"\0x", "l": [{"t": NOW}]})
    text = json.dumps(notes["x"], default=amberdb.to_json)
    assert json.loads(text)["at"] == {"$date": "2026-02-23T00:41:00Z"}
    assert amberdb.equal(loads(text), notes["x"])


def test_json_of_results(notes: Collection) -> None:
    hits = json.loads(json.dumps(notes.search("umbrella", limit=1), default=amberdb.to_json))
    assert hits[0]["document"]["at"] == {"$date": "2026-02-23T00:41:00Z"}
    record = json.loads(json.dumps(notes.record("1"), default=amberdb.to_json))
    assert record["version"] == notes.record("1").version
    assert json.dumps([np.int64(3), np.float32(0.5)], default=amberdb.to_json) == "[3, 0.5]"


@pytest.mark.parametrize("value", [{1}, Database, 1j], ids=repr)
def test_json_of_anything_else_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match="has no place in a document"):
        json.dumps(value, default=amberdb.to_json)
