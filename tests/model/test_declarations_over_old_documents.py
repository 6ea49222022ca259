"""An index is declared over documents that it cannot hold: nothing is stuck, nothing is missed."""

import pytest

from amberdb import DuplicateKeyError, InvalidDocumentError, Ordered, Unique
from support.databases import OpenDatabase, assert_sound

LONG = "x" * 600


@pytest.mark.parametrize("way", ["delete", "put", "update", "delete_many", "expire"])
@pytest.mark.parametrize("stored", [False, True], ids=["memtable", "lmdb"])
def test_index_over_documents_that_have_no_key(
    open_db: OpenDatabase, way: str, stored: bool
) -> None:
    db = open_db(clock=lambda: 1000.0)
    collection = db.collection("a", indexes=[Ordered("b")], expires_at="t")
    collection.put({"id": "bad", "a": [1], "b": [2], "t": 1000.0 if way == "expire" else 2000})
    collection.put({"id": "good", "a": [1], "b": 2})
    if stored:
        db.checkpoint()
    db.collection("a", indexes=[Ordered("b"), Ordered("a", "b")])
    with pytest.raises(InvalidDocumentError, match="'bad'"):
        db.build_indexes()
    found = [doc["id"] for doc in collection.find({"a": 1, "b": 2}, order_by="id")]
    assert found == (["good"] if way == "expire" else ["bad", "good"])
    with pytest.raises(InvalidDocumentError):
        collection.put({"id": "bad", "a": [1], "b": [3]})
    assert_sound(db)
    if way == "delete":
        assert collection.delete("bad")
    elif way == "put":
        collection.put({"id": "bad", "a": 1, "b": 3})
    elif way == "update":
        collection.update("bad", {"b": 3})
    elif way == "delete_many":
        assert collection.delete_many({"b": 2}) == 2
    else:
        assert db.expire() == 1
    db.build_indexes()
    assert collection.explain({"a": 1, "b": 3})["index"] == "ordered:a,b"
    assert collection.count({"a": 1, "b": 3}) == (1 if way in ("put", "update") else 0)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ({"tags": ["x"]}, {"tags": ["x", None]}, DuplicateKeyError),
        ({"tags": ["x", None]}, {"tags": ["x"]}, DuplicateKeyError),
        ({"tags": ["x", None]}, {"tags": [None, "x"]}, DuplicateKeyError),
        ({"tags": "x"}, {"tags": ["y", "x"]}, DuplicateKeyError),
        ({"tags": 1}, {"tags": 1.0}, DuplicateKeyError),
        (
            {"tags": "x" * 600 + "y"},
            {"tags": ["x" * 600 + "z", "x" * 600 + "y"]},
            DuplicateKeyError,
        ),
        ({"tags": {"a": 1}}, {}, InvalidDocumentError),
        ({"tags": [None]}, {"tags": [None]}, None),
        ({"tags": []}, {"tags": []}, None),
        ({}, {"tags": None}, None),
        ({"tags": ["x", None]}, {"tags": ["y", None]}, None),
        ({"tags": True}, {"tags": 1}, None),
    ],
)
def test_unique_is_judged_alike_when_declared_and_when_written(
    open_db: OpenDatabase,
    first: dict[str, object],
    second: dict[str, object],
    kind: type[Exception] | None,
) -> None:
    db = open_db()
    index = Unique("tags", sparse=True)
    for name in ("built", "written"):
        db.collection(name, indexes=[index] if name == "written" else [])
    built = db.collection("built")
    built.put_many([{"id": "1", **first}, {"id": "2", **second}])
    written = db.collection("written")
    if kind is None:
        db.collection("built", indexes=[index])
        written.put({"id": "1", **first})
        written.put({"id": "2", **second})
        return
    with pytest.raises(kind):
        db.collection("built", indexes=[index])
    assert db.definition("built").indexes == ()
    built.put({"id": "3", **first})  # as before
    with pytest.raises(kind):
        written.put_many([{"id": "1", **first}, {"id": "2", **second}])
    assert len(written) == 0
