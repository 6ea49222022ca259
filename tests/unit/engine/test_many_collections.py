"""Thousands of collections: a call that is about one of them costs what it cost among few."""

from collections.abc import Callable
from typing import Any

import pytest

from amberdb import Database, Lsn, Ordered, Text
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.search import flush
from amberdb.index.registry import IndexSpec
from support.databases import OpenDatabase
from support.lines import lines_of

FEW, MANY = 20, 400
INDEXES: list[IndexSpec] = [Ordered("n"), Text("content")]


@pytest.fixture
def db(open_db: OpenDatabase) -> Database:
    return open_db(background=True, checkpoint_interval_ms=1 << 40)


def new(db: Database, number: int) -> None:
    db.collection(f"user{number}")


CALLS: dict[str, Callable[[Database, int], object]] = {
    "the handle": lambda db, n: db.collection("other"),
    "the handle, declared": lambda db, n: db.collection("other", indexes=INDEXES),
    "a new one": lambda db, n: db.collection(f"new{n}"),
    "a new one with indexes": lambda db, n: db.collection(f"new{n}", indexes=INDEXES),
    "rename": lambda db, n: db.rename_collection("other", "other2"),
    "drop": lambda db, n: db.drop_collection("other"),
    "put": lambda db, n: db["other"].put({"n": 1, "content": "tea"}),
    "search": lambda db, n: db["other"].search("tea"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_looks_at_no_other_collection(db: Database, name: str) -> None:
    """The least of several calls: the first one imports and fills caches, and in another one the
    background may have been faster."""

    def cost(collections: range) -> int:
        for number in collections:
            new(db, number)
        costs: list[int] = []
        for attempt in range(3):
            db.collection("other", indexes=INDEXES)
            call = CALLS[name]
            costs.append(lines_of(lambda: call(db, collections.stop * 10 + attempt)))  # noqa: B023
            if "other2" in db.collections():
                db.drop_collection("other2")
            db.build_indexes()
        return min(costs)

    few = cost(range(FEW))
    assert cost(range(FEW, MANY)) < few + FEW


def test_the_feed_compiles_the_catalog_once(db: Database) -> None:
    for number in range(MANY):
        new(db, number)
    events = db["user1"]
    start = Lsn(db.stats()["last_lsn"])
    for number in range(50):
        events.put({"id": f"{number}"})
    few = lines_of(lambda: list(db.changes(since=start)))
    db.collection("another")
    assert lines_of(lambda: list(db.changes(since=start))) < few + MANY
    assert few < 50 * MANY


def test_a_reader_compiles_only_what_has_changed(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db()
    for number in range(50):
        db.collection(f"user{number}", indexes=INDEXES)
    with open_db(read_only=True) as reader:
        assert len(reader.collections()) == 50
        compiled: list[str] = []
        from_map = CollectionDef.from_map

        def counted(name: str, content: dict[str, Any]) -> CollectionDef:
            compiled.append(name)
            return from_map(name, content)

        monkeypatch.setattr(CollectionDef, "from_map", counted)
        db.collection("new", indexes=INDEXES)
        db.rename_collection("user1", "renamed")
        db.drop_collection("user2")
        db.collection("user3", indexes=[Ordered("n"), Ordered("m"), Text("content")])
        names = {f"user{number}" for number in range(50)} - {"user1", "user2"}
        assert set(reader.collections()) == names | {"new", "renamed"}
        assert sorted(compiled) == ["new", "renamed", "user3"]
        assert len(reader.definition("user3").indexes) == 3
        db.checkpoint()
        db["user3"].put({"content": "tea"})
        assert [hit.document["content"] for hit in reader["user3"].search("tea")] == ["tea"]
        assert len(compiled) == 3


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the fields of the text indexes that checkpoints looked at, to merge segments."""
    looked: list[str] = []
    merge_due = flush.merge_due

    def counted(store: Any, index: Any) -> bool:
        looked.append(index.spec.fields[0])
        return merge_due(store, index)

    monkeypatch.setattr(flush, "merge_due", counted)
    return looked


def test_a_checkpoint_merges_where_rows_were_added(
    open_db: OpenDatabase, merged: list[str]
) -> None:
    db = open_db()
    for number in range(20):
        db.collection(f"user{number}", indexes=[Text(f"f{number}")])
    db["user1"].put({"f1": "tea"})
    db.checkpoint()
    assert merged == ["f1"]
    db["user2"].put({"id": "a"})
    db.checkpoint()
    assert merged == ["f1"]
    db["user2"].put({"id": "a", "f2": "tea"})
    db.collection("user2", indexes=[Text("f2"), Text("f3")])  # built over documents
    db.build_indexes()
    merged.clear()
    db["user1"].put({"id": "b"})
    db.checkpoint()
    assert merged == ["f3"]
    for number in range(flush.MERGE_WIDTH):
        db["user1"].put({"f1": f"tea {number}"})
        db.checkpoint()
    assert merged.count("f1") > flush.MERGE_WIDTH  # once more, after a merge
    db.close()
    merged.clear()
    db = open_db()
    db["user1"].put({"id": "b"})
    db.checkpoint()
    assert len(merged) == 21  # what a process left undone
