"""A database where no thread can be started: what is due is done by the calls that make it due."""

import threading
import warnings
from collections.abc import Generator
from typing import Any

import pytest

import amberdb
from amberdb import Database, NoThreadWarning, Ordered, RollingBackups, Text, Vector
from amberdb import _failpoints as failpoints
from support.databases import FakeClock, OpenDatabase, assert_sound
from support.inside import engine_of


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Generator[pytest.MonkeyPatch]:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("amberdb._worker._warned", False)
    with monkeypatch.context() as none, warnings.catch_warnings():
        warnings.simplefilter("ignore", NoThreadWarning)
        none.setattr(threading.Thread, "start", refuse)
        yield none


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("amberdb")]


@pytest.mark.usefixtures("no_threads")
def test_every_call_works_and_close_closes(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    notes = db.collection("n")
    for sync in ("always", "interval", "os"):
        notes.put({"id": sync, "t": "amber", "v": [1.0, 2.0], "x": 1}, sync=sync)
    notes = db.collection("n", indexes=[Text("t"), Vector("v", dim=2), Ordered("x")])
    assert notes.explain({"x": 1})["index"] == "ordered:x", "built by the declaration"
    assert len(notes.search("amber")) == 3
    assert len(notes.search(vector=[1, 2])) == 3
    with db.transaction() as tx:
        assert tx["n"].get("os") is not None
        tx["n"].put({"id": "tx", "t": "amber", "v": [2.0, 2.0]})
        assert len(tx["n"].search(vector=[1, 2])) == 4
    with db.snapshot() as at:
        assert len(at["n"]) == 4
    db.drop_collection("n")
    assert engine_of(db).indexer.is_idle(), "emptied by the drop"
    db.close()
    assert threads() == []
    with pytest.raises(amberdb.ClosedError):
        db.collections()


@pytest.mark.usefixtures("no_threads")
def test_checkpoints_begin_by_size_and_by_time(open_db: OpenDatabase) -> None:
    db = open_db(
        background=True, checkpoint_bytes=1 << 18, memtable_bytes_max=1 << 20,
        checkpoint_interval_ms=3_600_000, busy_timeout_ms=2000,
    )  # fmt: skip
    notes = db.collection("n")
    for n in range(3000):
        notes.put({"id": str(n), "t": "x" * 500}, sync="os")
    assert db.stats().checkpoint.count > 3
    db.close()
    db = open_db(background=True, checkpoint_interval_ms=0)
    before = db.stats().checkpoint.count
    db["n"].put({"id": "a"})
    assert db.stats().checkpoint.count > before


@pytest.mark.usefixtures("no_threads")
def test_a_commit_of_class_interval_is_synced_before_it_returns(open_db: OpenDatabase) -> None:
    db = open_db(background=True, sync="interval", sync_interval_ms=3_600_000)
    notes = db.collection("n")
    for _ in range(3):
        notes.put({"t": "x"})
        assert db.stats().durable_lsn == db.stats().last_lsn


@pytest.mark.usefixtures("no_threads")
def test_expiry_backups_and_embedding_are_done_by_the_commits(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(
        background=True, clock=clock, reap_grace_ms=0, reap_interval_ms=0,
        backups=RollingBackups(every_minutes=None, every_commits=5),
    )  # fmt: skip
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "old", "until": clock() + 0.001})
    embedded = Vector("v", dim=2, source="t", embed=lambda texts: [[1, 2]] * len(texts), defer=True)
    texts = db.collection("texts", indexes=[embedded])
    with db.transaction() as tx:  # a transaction calls no embedder
        tx["texts"].put({"id": "a", "t": "amber"})
    found = texts.get("a")
    assert found is not None
    assert list(found["v"]) == [1, 2]
    clock.advance(10)
    for n in range(12):
        notes.put({"id": str(n)})
    assert db.expire() == 0, "a commit has removed it"
    assert db.stats().backups["taken"] >= 3
    assert db.stats().failures == []


@pytest.mark.usefixtures("no_threads")
def test_the_verbs_that_hold_locks_are_not_entered_twice(open_db: OpenDatabase) -> None:
    """Each of them commits, and the commit finds the next backup, build and erasure due."""
    db = open_db(
        background=True, checkpoint_interval_ms=0, checkpoint_bytes=1,
        backups=RollingBackups(every_minutes=None, every_commits=1),
    )  # fmt: skip
    notes = db.collection("n", version=1)
    notes.put_many({"id": str(n), "x": n} for n in range(20))
    db.backup()
    db.erase("n", {"x": 3}, reason="asked")
    db.collection("n", version=2, migrate={2: lambda d: {**d, "y": 1}}, indexes=[Ordered("y")])
    db.migrate()
    db.build_indexes()
    db.compact()
    assert notes.count({"y": 1}) == 19
    assert db.stats().failures == []
    assert_sound(db)


def test_a_thread_does_it_again_once_there_is_one(
    open_db: OpenDatabase, no_threads: pytest.MonkeyPatch
) -> None:
    db = open_db(background=True, sync="interval")
    db.collection("n").put({"id": "a"})
    assert threads() == []
    no_threads.undo()
    db.collection("n").put({"id": "b"})
    assert {"amberdb", "amberdb-wal-interval"} <= set(threads())


def test_it_warns_once_in_the_first_call(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def work(db: Database) -> None:
        for n in range(10):
            db.collection("n", indexes=[Text("t")]).put({"t": str(n)}, sync="interval")

    monkeypatch.setattr("amberdb._worker._warned", False)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.warns(NoThreadWarning, match=r"ulimit -u") as caught:
        work(open_db(background=True))
    assert len([each for each in caught if each.category is NoThreadWarning]) == 1


def test_long_work_in_the_thread_of_checkpoints_waits_for_none(open_db: OpenDatabase) -> None:
    """Expiry fills the memtable in the only thread that empties it."""
    clock = FakeClock()
    options: dict[str, Any] = {"memtable_bytes_max": 1 << 18, "busy_timeout_ms": 2000}
    db = open_db(clock=clock, **options)
    notes = db.collection("n", expires_at="until")
    notes.put_many({"id": f"{n:05}", "until": clock() + 1} for n in range(4000))
    db.close()
    clock.advance(10)
    batches, over = list[str](), threading.Event()

    def reached(name: str) -> None:
        if name == "expiry.committed":
            batches.append(name)
            if len(batches) > 40:
                over.set()

    failpoints.install(reached)
    try:
        db = open_db(background=True, clock=clock, reap_grace_ms=0, reap_batch=100, **options)
        assert over.wait(60)
    finally:
        failpoints.install(None)
    assert db.expire() == 0
    assert db.stats().checkpoint.count > 1
    assert db.stats().failures == []
