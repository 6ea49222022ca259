"""Snapshots: reads at one Lsn while others write; the age limit."""

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amberdb import (
    ClosedError,
    CollectionMissingError,
    Database,
    Ordered,
    Snapshot,
    SnapshotExpiredError,
)
from amberdb.engine.database.transaction import SnapshotCollection
from support.databases import FakeClock, OpenDatabase
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
