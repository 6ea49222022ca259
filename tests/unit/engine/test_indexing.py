"""Index builds and purges: right answers meanwhile, durable progress, no entries left over."""

import threading
from typing import Any

import pytest

from amberdb import Database, Ordered, Unique
from amberdb.engine.commit import index_chunks
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.schema.keyspace import BUILDING, BUILT, prefix_of
from support.databases import OpenDatabase
from support.inside import engine_of
from unit.engine.helpers import all_pairs, ids, raw_store


class Interrupted(Exception): ...


@pytest.fixture(autouse=True)
def chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, so that a build has many."""
    monkeypatch.setattr(index_chunks, "CHUNK", 10)


def fill(db: Database, count: int = 95) -> None:
    db.collection("n").put_many(
        {"id": f"{n:03d}", "x": n % 7, "l": [n, n + 1]} for n in range(count)
    )


def keyspace_of(db: Database, name: str) -> int:
    (found,) = [i.keyspace for i in db.definition("n").indexes if i.spec.name == name]
    return found


def assert_finds(db: Database) -> None:
    notes = db.collection("n")
    for x in range(8):
        wanted = [d["id"] for d in notes.documents() if d["x"] == x]
        assert ids(notes.find({"x": x}, order_by="id")) == wanted
        assert notes.count({"x": x}) == len(wanted)


def test_progress_is_told_by_index_and_documents(db: Database) -> None:
    fill(db)
    db.collection("n", indexes=[Ordered("x"), Ordered("l")])
    told: list[tuple[str, int]] = []
    db.build_indexes(lambda name, count: told.append((name, count)))
    for name in ("ordered:x", "ordered:l"):
        counts = [count for index, count in told if index == name]
        assert counts == sorted(counts)
        assert counts[-1] == 95
        assert len(counts) == 10


def test_queries_are_right_while_an_index_is_built(db: Database) -> None:
    fill(db)
    notes = db.collection("n", indexes=[Ordered("x")])

    def meanwhile(name: str, count: int) -> None:
        assert notes.explain({"x": 1})["index"] is None
        notes.put({"id": f"new{count:03d}", "x": count % 8, "l": []})
        notes.delete(f"{count - 3:03d}")
        for at in (count - 5, count + 4):
            if f"{at:03d}" in notes:
                notes.update(f"{at:03d}", {"x": 7})
        if count % 30 == 0:
            db.checkpoint()
        assert_finds(db)

    db.build_indexes(meanwhile)
    assert notes.explain({"x": 1})["index"] == "ordered:x"
    assert_finds(db)


def test_interrupted_build_goes_on_where_it_was_after_reopening(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    db.collection("n", indexes=[Ordered("x")])

    def interrupt(name: str, count: int) -> None:
        if count == 60:
            raise Interrupted

    with pytest.raises(Interrupted):
        db.build_indexes(interrupt)
    assert db.stats()["collections"]["n"]["indexes"] == {"ordered:x": "building"}
    assert_finds(db)
    db.close()
    db = open_db()
    assert db.stats()["collections"]["n"]["indexes"] == {"ordered:x": "building"}
    assert_finds(db)
    done: list[int] = []
    db.build_indexes(lambda _, count: done.append(count))
    assert done[-1] == 35, "only the remaining documents"
    assert_finds(db)
    assert db.stats()["collections"]["n"]["indexes"] == {"ordered:x": "ready"}


def test_build_that_was_left_is_taken_up_in_the_background(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    db.collection("n", indexes=[Ordered("x")])
    db.close()
    db = open_db(background=True)
    await_idle(db)
    assert_finds(db)


def await_idle(db: Database) -> None:
    """Waits until the background has built and purged everything."""
    thread = next(thread for thread in threading.enumerate() if thread.name == "amberdb")
    for _ in range(10_000):
        if engine_of(db).indexer.is_idle():
            return
        assert thread.is_alive()
        thread.join(0.001)
    raise AssertionError("it was never built")


def test_declared_index_is_built_in_the_background(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    fill(db)
    notes = db.collection("n", indexes=[Ordered("x")])
    await_idle(db)
    assert notes.explain({"x": 1})["index"] == "ordered:x"
    assert_finds(db)


def test_index_declared_just_when_the_background_is_done_is_built(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Indexer.step
    told = threading.Event()

    def declare_then(self: Indexer, *args: Any, **options: Any) -> None:
        step(self, *args, **options)
        if not told.is_set() and threading.current_thread().name == "amberdb":
            db.collection("n", indexes=[Ordered("x")])
            told.set()

    db = open_db(background=True)
    fill(db)
    monkeypatch.setattr(Indexer, "step", declare_then)
    db.collection("n", indexes=[Ordered("id")])
    assert told.wait(10)
    await_idle(db)
    assert_finds(db)


def test_document_written_and_index_declared_just_after_the_checkpoint_of_a_build(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A build reads only LMDB, so it must skip indexes declared after its checkpoint.
    run = Checkpointer.run
    once = [True]

    def write_then(self: Checkpointer) -> None:
        run(self)
        if once:
            once.pop()
            db.collection("n").put({"id": "late", "x": 7, "l": []})
            db.collection("n", indexes=[Ordered("l"), Ordered("x")])

    fill(db)
    db.collection("n", indexes=[Ordered("l")])
    monkeypatch.setattr(Checkpointer, "run", write_then)
    db.build_indexes()
    assert ids(db.collection("n").find({"x": 7})) == ["late"]
    assert_finds(db)


def test_index_dropped_just_after_the_checkpoint_of_a_purge_leaves_nothing(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Checkpointer.run
    once = [True]

    def drop_then(self: Checkpointer) -> None:
        run(self)
        if once:
            once.pop()
            db.collection("n").put({"id": "late", "x": 7, "l": []})
            db.collection("n", indexes=[])

    db = open_db()
    notes = db.collection("n", indexes=[Ordered("x"), Ordered("l")])
    fill(db)
    keyspaces = [keyspace_of(db, "ordered:x"), keyspace_of(db, "ordered:l")]
    notes = db.collection("n", indexes=[Ordered("x")])
    monkeypatch.setattr(Checkpointer, "run", drop_then)
    db.build_indexes()
    assert notes.count() == 96
    db.close()
    assert leftovers(db.path, keyspaces) == []


def leftovers(path: str, keyspaces: list[int]) -> list[bytes]:
    """The keys in these keyspaces, and the marks about them."""
    prefixes = [prefix_of(number) for number in keyspaces]
    starts = (*prefixes, *(mark + prefix for mark in (BUILT, BUILDING) for prefix in prefixes))
    with raw_store(path) as txn:
        return [key for key, _ in all_pairs(txn) if key.startswith(starts)]


def test_entries_of_a_dropped_index_are_purged(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("x"), Ordered("l")])
    fill(db)
    db.checkpoint()
    notes.put({"id": "late", "x": 1, "l": [1]})
    dropped = [keyspace_of(db, "ordered:x"), keyspace_of(db, "ordered:l")]
    db.collection("n", indexes=[])
    db.build_indexes()
    assert_finds(db)
    db.close()
    assert leftovers(db.path, dropped) == []


def test_purge_that_was_left_is_done_after_reopening(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n", indexes=[Ordered("x")])
    fill(db)
    dropped = [keyspace_of(db, "ordered:x")]
    db.collection("n", indexes=[])
    db.close()
    assert leftovers(db.path, dropped) != []
    db = open_db()
    db.build_indexes()
    db.close()
    assert leftovers(db.path, dropped) == []


def test_index_dropped_while_it_is_built(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    db.collection("n", indexes=[Ordered("x")])
    dropped = [keyspace_of(db, "ordered:x")]

    def drop(name: str, count: int) -> None:
        if count == 50:
            db.collection("n", indexes=[])

    db.build_indexes(drop)
    assert_finds(db)
    db.close()
    assert leftovers(db.path, dropped) == []


def test_a_tree_is_never_given_twice(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    given: list[int] = []
    for _ in range(3):
        db.collection("n", indexes=[Ordered("x")])
        db.build_indexes()
        given.append(keyspace_of(db, "ordered:x"))
        db.collection("n", indexes=[])
        db.build_indexes()
        db.close()
        db = open_db()
        db.collection(f"m{len(given)}")
    assert len(set(given)) == 3
    assert given == sorted(given)


def test_index_of_an_empty_collection_needs_no_build(db: Database) -> None:
    notes = db.collection("n")
    notes.put({"id": "a"})
    notes.delete("a")
    db.collection("n", indexes=[Ordered("x")])
    assert db.stats()["collections"]["n"]["indexes"] == {"ordered:x": "ready"}
    fill(db)
    assert notes.explain({"x": 1})["index"] == "ordered:x"
    assert_finds(db)


def test_index_kept_by_a_new_declaration_keeps_its_entries(db: Database) -> None:
    db.collection("n", indexes=[Ordered("x"), Ordered("l")])
    fill(db)
    before = keyspace_of(db, "ordered:x")
    db.collection("n", indexes=[Ordered("y"), Ordered("x")])
    assert keyspace_of(db, "ordered:x") == before
    assert db.stats()["collections"]["n"]["indexes"] == {
        "ordered:y": "building",
        "ordered:x": "ready",
    }
    assert_finds(db)


@pytest.mark.parametrize(
    "changed", [Ordered("x", sparse=True), Ordered("-x"), Unique("id", "x"), Ordered("x", name="b")]
)
def test_changed_declaration_is_another_index(db: Database, changed: Ordered | Unique) -> None:
    db.collection("n", indexes=[Ordered("x")])
    fill(db)
    before = keyspace_of(db, "ordered:x")
    db.collection("n", indexes=[changed])
    db.build_indexes()
    assert keyspace_of(db, changed.name) > before
    assert_finds(db)


def test_cut_entries_are_built_like_those_of_a_put(db: Database) -> None:
    long = "x" * 600
    notes = db.collection("n")
    notes.put_many({"x": long + str(n), "l": [long + "a", long + "b"]} for n in range(25))
    db.collection("n", indexes=[Ordered("x"), Ordered("l")])
    db.build_indexes()
    assert notes.count({"x": long + "7"}) == 1
    assert notes.count({"l": long + "b"}) == 25


def test_building_nothing_is_no_work(db: Database) -> None:
    told: list[str] = []
    db.build_indexes(lambda name, _: told.append(name))
    assert told == []
    assert db.stats()["checkpoints"] == 0
