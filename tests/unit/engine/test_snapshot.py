"""Snapshots: reads at one Lsn while others write; the age limit."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    ClosedError,
    CollectionMissingError,
    Database,
    Ordered,
    Snapshot,
    SnapshotExpiredError,
    Text,
    Vector,
)
from amberdb.engine.database.transaction import SnapshotCollection
from support.databases import SMALL, FakeClock, OpenDatabase
from support.inside import engine_of
from support.searches import small_limits
from unit.engine.helpers import ids


def fill(db: Database) -> None:
    db.collection("n", indexes=[Ordered("x")], expires_at="until").put_many(
        {"id": f"{n:02d}", "x": n, "until": 2e9 if n % 2 else None} for n in range(10)
    )


def reads(notes: Any) -> dict[str, object]:
    return {
        "get": notes.get("03"),
        "record": notes.record("04"),
        "len": len(notes),
        "in": ["03" in notes, "new" in notes],
        "iteration": list(notes),
        "documents": list(notes.documents()),
        "index": notes.find({"x": {"$gte": 5}}),
        "sorted": notes.find(order_by="-x", limit=4),
        "count": notes.count({"x": {"$lt": 5}}),
    }


def overwrite(db: Database) -> None:
    db.collection("n").put_many({"id": f"{n:02d}", "x": -n} for n in range(10))


def delete(db: Database) -> None:
    db.collection("n").delete_many({})


def build(db: Database) -> None:
    overwrite(db)
    db.collection("n", indexes=[Ordered("x"), Ordered("until")])
    db.build_indexes()


def drop(db: Database) -> None:
    db.collection("n", indexes=[])
    overwrite(db)
    db.build_indexes()  # purges


CHANGES: dict[str, Callable[[Database], object]] = {
    "insert": lambda db: db.collection("n").put({"id": "new", "x": 100}),
    "overwrite": overwrite,
    "delete": delete,
    "checkpoint": lambda db: db.checkpoint(),
    "index build": build,
    "index drop": drop,
    "expire": lambda db: db.expire(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("applied", [False, True], ids=["memtable", "store"])
@pytest.mark.parametrize("later", ["", "checkpoint"])
def test_nothing_that_happens_beside_a_snapshot_changes_it(
    open_db: OpenDatabase, change: Callable[[Database], object], applied: bool, later: str
) -> None:
    clock = FakeClock(1.9e9)
    db = open_db(clock=clock)
    fill(db)
    if applied:
        db.checkpoint()
    with db.snapshot() as at:
        before = reads(at["n"])
        clock.advance(2e8)
        change(db)
        if later:
            db.checkpoint()
            change(db)
        assert reads(at["n"]) == before
        assert len(at["n"]) == 10


def test_snapshot_sees_all_collections_at_its_lsn(db: Database) -> None:
    one, two = db.collection("one"), db.collection("two")
    one.put({"id": "a"})
    two.put({"id": "a"})
    with db.snapshot() as at:
        assert at.lsn == two.record("a").version
        with db.transaction() as tx:
            tx["one"].put({"id": "b"})
            tx["two"].put({"id": "b"})
        assert list(at["one"]) == list(at.collection("two")) == ["a"]
    with db.snapshot() as at:
        assert list(at["one"]) == list(at["two"]) == ["a", "b"]


def test_collection_declared_later_is_missing(db: Database) -> None:
    db.collection("one")
    with db.snapshot() as at:
        db.collection("two").put({"id": "a"})
        with pytest.raises(CollectionMissingError):
            at["two"]


def test_snapshot_cannot_write(db: Database) -> None:
    db.collection("n")
    with db.snapshot() as at:
        notes: object = at["n"]
        for name in ("put", "insert", "update", "delete", "put_many", "delete_many"):
            assert not hasattr(notes, name)


def test_snapshot_never_blocks_the_writer(db: Database) -> None:
    notes = db.collection("n")
    with db.snapshot(), db.snapshot():
        notes.put({"id": "a"})
        db.checkpoint()
    assert "a" in notes


def test_pages_of_a_snapshot_go_on(db: Database) -> None:
    fill(db)
    with db.snapshot() as at:
        first = at["n"].find(order_by="x", limit=4)
        delete(db)
        second = at["n"].find(order_by="x", limit=10, after=first.cursor)
        assert ids([*first, *second]) == [f"{n:02d}" for n in range(10)]


USES: dict[str, Callable[[Snapshot, SnapshotCollection], object]] = {
    "collection": lambda at, n: at["n"],
    "get": lambda at, n: n.get("a"),
    "record": lambda at, n: n.record("a"),
    "in": lambda at, n: "a" in n,
    "len": lambda at, n: len(n),
    "find": lambda at, n: n.find(),
    "count": lambda at, n: n.count({"x": 1}),
    "iteration": lambda at, n: list(n),
    "explain": lambda at, n: n.explain(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_closed_snapshot_reads_nothing(
    db: Database, use: Callable[[Snapshot, SnapshotCollection], object]
) -> None:
    fill(db)
    with db.snapshot() as at:
        notes = at["n"]
    at.close()
    with pytest.raises(ClosedError):
        use(at, notes)


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_snapshot_past_its_age_reads_nothing(
    db: Database, use: Callable[[Snapshot, SnapshotCollection], object]
) -> None:
    fill(db)
    at = db.snapshot(max_age_ms=3_600_000)
    notes = at["n"]
    at._held._max_age_ms = 0  # pyright: ignore[reportPrivateUsage]  # an hour later
    with pytest.raises(SnapshotExpiredError, match="take a new one"):
        use(at, notes)
    assert db.stats()["snapshots"] == 0
    at.close()


def test_age_limit_comes_from_the_options(open_db: OpenDatabase) -> None:
    db = open_db(snapshot_max_age_ms=0)
    db.collection("n")
    at = db.snapshot()
    with pytest.raises(SnapshotExpiredError):
        at["n"]


def test_expired_snapshot_is_closed_in_the_background(open_db: OpenDatabase) -> None:
    db = open_db(background=True, snapshot_max_age_ms=1)
    at = db.snapshot()
    pause = threading.Event()
    while db.stats()["snapshots"]:
        pause.wait(0.001)
    with pytest.raises(SnapshotExpiredError):
        at["n"]


def test_stats_list_open_snapshots(db: Database) -> None:
    assert db.stats()["snapshots"] == 0
    assert db.stats()["oldest_snapshot_ms"] == 0
    with db.snapshot() as first, db.snapshot():
        stats = db.stats()
        assert stats["snapshots"] == 2
        assert 0 < stats["oldest_snapshot_ms"] <= first.age_ms
    assert db.stats()["snapshots"] == 0


def test_closed_snapshot_lets_the_store_reuse_its_pages(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    readers = db.stats()["store"]["readers"]
    kept = [db.snapshot() for _ in range(5)]
    late = db.snapshot(max_age_ms=0)
    assert db.stats()["store"]["readers"] >= readers + 5
    for snapshot in kept:
        snapshot.close()
    with pytest.raises(SnapshotExpiredError):
        late["n"]
    assert db.stats()["store"]["readers"] == readers


def test_a_forgotten_snapshot_is_let_go(db: Database) -> None:
    db.snapshot()
    assert db.stats()["snapshots"] == 0


def test_closing_the_database_closes_its_snapshots(open_db: OpenDatabase) -> None:
    db = open_db()
    fill(db)
    at = db.snapshot()
    notes = at["n"]
    db.close()
    with pytest.raises(ClosedError):
        notes.get("03")
    with pytest.raises(ClosedError):
        db.snapshot()


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.usefixtures("restless")
def test_many_threads_take_snapshots_while_the_background_watches_their_age(
    open_db: OpenDatabase,
) -> None:
    db = open_db(background=True, checkpoint_interval_ms=1)
    notes = db.collection("n")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(300):
                kept = [db.snapshot() for _ in range(30)]
                notes.put({}, sync="os")
                db.stats()
                for snapshot in kept:
                    snapshot.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert "amberdb" in [thread.name for thread in threading.enumerate()], "it lives"


# -- searches ------------------------------------------------------------------------------------

SEARCHED: list[Any] = [Text("text"), Vector("v", dim=2, metric="l2")]


def rewrite(db: Database) -> None:
    """Other texts and vectors under the same ids."""
    db.collection("s").put_many({"id": f"{n}", "text": "bee", "v": [0, 9]} for n in range(4))


def dropped(db: Database) -> None:
    """Without search indexes a document keeps its rowid, whatever its text becomes."""
    db.collection("s", indexes=[])
    rewrite(db)


def declared_anew(db: Database) -> None:
    dropped(db)
    db.collection("s", indexes=SEARCHED)
    db.build_indexes()
    rewrite(db)


def collection_dropped(db: Database) -> None:
    db.drop_collection("s")
    db.collection("s", indexes=SEARCHED)
    rewrite(db)
    db.build_indexes()


def renamed(db: Database) -> None:
    db.rename_collection("s", "other")
    db.collection("other", indexes=[])
    db.collection("other").put({"id": "0", "text": "bee"})
    db.collection("s", indexes=SEARCHED)
    rewrite(db)


def other_analyzer(db: Database) -> None:
    db.collection("s", indexes=[Text("text", language=None), SEARCHED[1]])
    db.build_indexes()
    rewrite(db)


DECLARATIONS = (dropped, declared_anew, collection_dropped, renamed, other_analyzer)


def searches(notes: Any) -> dict[str, object]:
    """What a snapshot finds, with the documents that it finds."""
    near = notes.search(vector=[1.0, 0.0], limit=9)
    return {
        "amber": [(hit.id, hit.document["text"]) for hit in notes.search("amber")],
        "bee": [(hit.id, hit.document["text"]) for hit in notes.search("bee")],
        "near": [(hit.id, hit.score) for hit in near],
        "filtered": [hit.id for hit in notes.search("amber", where={"n": {"$gt": 1}})],
    }


@pytest.mark.parametrize("change", DECLARATIONS)
@pytest.mark.parametrize("applied", [False, True], ids=["memtable", "store"])
@pytest.mark.parametrize("reads_only", [False, True], ids=["writer", "reader"])
@pytest.mark.parametrize("asked", [False, True], ids=["first", "again"])
def test_a_search_in_a_snapshot_is_of_its_own_lsn(
    open_db: OpenDatabase,
    change: Callable[[Database], None],
    applied: bool,
    reads_only: bool,
    asked: bool,
) -> None:
    db = open_db()
    notes = db.collection("s", indexes=SEARCHED)
    notes.put_many({"id": f"{n}", "n": n, "text": "amber owl", "v": [n, 0]} for n in range(4))
    if applied:
        db.checkpoint()
        notes.put({"id": "3", "n": 3, "text": "amber fox", "v": [3, 0]})
    wanted = searches(notes)
    assert len(wanted["amber"]) == len(wanted["near"]) == 4  # type: ignore[arg-type]
    with (
        amberdb.open(db.path, **SMALL, read_only=True) as reader,
        (reader if reads_only else db).snapshot() as at,
    ):
        if asked:
            assert searches(at["s"]) == wanted
        change(db)
        reader.refresh()
        assert searches(at["s"]) == wanted
        db.checkpoint()
        reader.refresh()
        assert searches(at["s"]) == wanted


@pytest.mark.parametrize("applied", [False, True], ids=["memtable", "store"])
def test_what_a_snapshot_searches_after_a_drop_is_kept_no_longer_than_itself(
    open_db: OpenDatabase, applied: bool
) -> None:
    with small_limits():  # a few rows have a graph and a file
        db = open_db()
        notes = db.collection("s", indexes=SEARCHED)
        notes.put_many({"id": f"{n}", "text": "amber", "v": [n, 1]} for n in range(20))
        if applied:
            db.checkpoint()
        engine = engine_of(db)
        with db.snapshot() as at:
            wanted = searches(at["s"])
            db.drop_collection("s")
            db.build_indexes()
            for _ in range(2):
                assert searches(at["s"]) == wanted
                engine.searchers.build()
            kept = engine.searchers._by_keyspace  # pyright: ignore[reportPrivateUsage]
            assert not kept
            own: Any = at.searchers
            assert len(own._dropped) == 2
        assert not own._dropped
        db.close()
        assert not list(Path(db.path, "cache").glob("*"))
