"""Checkpoints and background work: triggers, failures, and when threads start."""

import errno
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import amberdb
from amberdb import (
    BusyError,
    ClosedError,
    CommitUnknownError,
    Database,
    DiskFullError,
    Ordered,
    PoisonedError,
    StorageError,
    StorageFullError,
    Text,
)
from amberdb._fs import OsFileSystem
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.jobs import Turns
from amberdb.engine.maintenance import background
from amberdb.engine.schema.keyspace import APPLIED, LAST_TIME
from amberdb.engine.storage.memtable import Memtable, SortedKeys
from amberdb.engine.storage.store import Store
from support.databases import SMALL, FakeClock, OpenDatabase, audited
from support.faulty_fs import FaultyFileSystem, fail_on
from support.inside import engine_of
from support.places import once_at
from unit.engine.helpers import abandon, got, raw_store


def await_checkpoint(db: Database) -> None:
    """Returns when the background has written all commits so far, or after ten seconds."""
    thread = next(thread for thread in threading.enumerate() if thread.name == "amberdb")
    for _ in range(10_000):
        if not db.stats()["memtable_bytes"]:
            break
        thread.join(0.001)


def fill(db: Database, count: int = 2000) -> None:
    db.collection("n", indexes=[Ordered("x")]).put_many(
        {"id": f"{n:05d}", "x": n % 10} for n in range(count)
    )


def test_a_checkpoint_moves_everything_into_the_store(db: Database) -> None:
    fill(db)
    assert db.stats()["memtable_bytes"] > 0
    assert db.stats()["store"]["entries"] < 10
    began = time.perf_counter()
    db.checkpoint()
    stats = db.stats()
    assert stats["memtable_bytes"] == 0
    assert stats["store"]["entries"] > 4000
    assert stats["applied_lsn"] == stats["last_lsn"] == stats["durable_lsn"]
    assert stats["checkpoints"] == 1
    assert 0 < stats["checkpoint_ms_last"] < 1000 * (time.perf_counter() - began)
    assert db.collection("n").count({"x": 3}) == 200


def test_a_checkpoint_lets_the_log_go(db: Database) -> None:
    notes = db.collection("n")
    for number in range(100):
        notes.put({"id": f"{number}", "text": "x" * 500})
    assert db.stats()["log"]["segments"] > 2
    db.checkpoint()
    assert db.stats()["log"]["segments"] == 1


def test_what_a_checkpoint_says_of_itself_has_eight_bytes(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    fill(db, 1)
    last = db.stats()["last_lsn"]
    db.close()
    with raw_store(tmp_path / "t.amber") as txn:
        assert txn.get(APPLIED) == last.to_bytes(8)
        assert txn.get(LAST_TIME) == int(clock.now * 1_000_000).to_bytes(8)


def test_a_checkpoint_of_nothing_does_nothing(db: Database) -> None:
    fill(db)
    db.checkpoint()
    db.checkpoint()
    assert db.stats()["checkpoints"] == 1


def test_a_checkpoint_removes_what_was_deleted(db: Database) -> None:
    fill(db)
    db.checkpoint()
    db.collection("n").delete_many({"x": {"$gt": 0}})
    db.checkpoint()
    assert db.collection("n").count() == 200
    assert db.stats()["store"]["entries"] < 500


def test_a_checkpoint_takes_what_is_not_yet_durable_and_makes_it_so(db: Database) -> None:
    db.collection("n").put({"id": "a"}, sync="os")
    assert db.stats()["durable_lsn"] < db.stats()["last_lsn"]
    db.checkpoint()
    assert db.stats()["durable_lsn"] == db.stats()["last_lsn"]


def test_a_failed_checkpoint_loses_nothing_and_can_be_run_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(db)

    def fail(self: Store) -> None:
        raise DiskFullError("no space, injected")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", fail)
        with pytest.raises(DiskFullError):
            db.checkpoint()
    notes = db.collection("n")
    assert notes.count({"x": 3}) == 200
    assert got(notes, "00013")["x"] == 3, "from the memtable that is still frozen"
    notes.put({"id": "later", "x": 3})
    assert notes.count({"x": 3}) == 201
    assert db.stats()["checkpoints"] == 0
    db.checkpoint()
    assert db.stats()["checkpoints"] == 2, "the one that failed, and what came after"
    assert notes.count({"x": 3}) == 201


def refuse(full: StorageFullError) -> None:
    raise full


def test_a_full_map_is_no_full_disk(open_db: OpenDatabase) -> None:
    db = open_db(map_bytes=1 << 16)
    engine_of(db).checkpointer.enlarge = refuse
    notes = db.collection("n")
    notes.put_many({"id": str(n), "x": bytes(1000)} for n in range(200))
    with pytest.raises(StorageFullError, match="a larger map_bytes") as caught:
        db.checkpoint()
    assert not isinstance(caught.value, DiskFullError)
    assert notes.count() == 200
    db.close()
    db = open_db()
    assert db.collection("n").count() == 200


def test_store_that_cannot_be_written_is_an_error(db: Database) -> None:
    fill(db, 10)
    store = engine_of(db).committer.store
    with pytest.raises(StorageError), store.write() as writer:
        writer.put(b"k" * 600, b"too long for a key")
    db.checkpoint()


def test_writers_wait_for_room_and_get_it(open_db: OpenDatabase) -> None:
    db = open_db(
        background=True, checkpoint_bytes=50_000, memtable_bytes_max=100_000, busy_timeout_ms=30_000
    )
    notes = db.collection("n")
    for n in range(100):
        notes.put({"id": str(n), "x": bytes(10_000)}, sync="os")
    assert notes.count() == 100
    assert db.stats()["memtable_bytes"] < 250_000
    assert db.stats()["checkpoints"] > 2


def test_without_a_background_the_writer_checkpoints_itself(open_db: OpenDatabase) -> None:
    db = open_db(memtable_bytes_max=100_000)
    notes = db.collection("n")
    for n in range(100):
        notes.put({"id": str(n), "x": bytes(10_000)}, sync="os")
    assert db.stats()["memtable_bytes"] < 250_000
    assert db.stats()["checkpoints"] > 2


def never(self: Checkpointer) -> None: ...


def test_writers_that_get_no_room_in_time_are_refused(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db(memtable_bytes_max=10_000, busy_timeout_ms=1, background=True)
    notes = db.collection("n")
    monkeypatch.setattr(Checkpointer, "run", never)
    notes.put({"id": "a", "x": bytes(20_000)})
    with pytest.raises(BusyError, match="checkpoint has not ended"):
        notes.put({"id": "b"})
    assert list(notes) == ["a"]
    monkeypatch.undo()
    db.checkpoint()
    notes.put({"id": "b"})


def test_writers_are_refused_while_checkpoints_fail(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db(memtable_bytes_max=10_000)
    notes = db.collection("n")

    def fail(self: Store) -> None:
        raise DiskFullError("no space, injected")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", fail)
        notes.put({"id": "a", "x": bytes(20_000)})  # committed, before the checkpoint is tried
        with pytest.raises(DiskFullError):
            notes.put({"id": "b"})
        assert list(notes) == ["a"]
    db.checkpoint()
    notes.put({"id": "b"})
    assert list(notes) == ["a", "b"]


@pytest.mark.parametrize(
    "options",
    [{"checkpoint_bytes": 1}, {"checkpoint_interval_ms": 0}],
    ids=["by size", "by age"],
)
def test_checkpoints_run_in_the_background(open_db: OpenDatabase, options: dict[str, Any]) -> None:
    db = open_db(background=True, **options)
    fill(db)
    await_checkpoint(db)
    assert db.stats()["memtable_bytes"] == 0
    assert db.stats()["checkpoints"] >= 1


def test_memtable_left_by_a_crash_is_checkpointed_in_the_background(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    fill(db)
    abandon(db, tmp_path / "copy.amber")
    copy = open_db("copy.amber", background=True, checkpoint_interval_ms=0)
    await_checkpoint(copy)
    assert copy.stats()["memtable_bytes"] == 0


@pytest.mark.parametrize("quiet_s", [0.0, 3600.0])
def test_a_large_memtable_left_by_a_crash_waits_for_the_first_calls(
    open_db: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_s: float
) -> None:
    monkeypatch.setattr(background, "_QUIET_S", quiet_s)
    db = open_db()
    notes = db.collection("notes")
    notes.put_many({"id": f"{n:04}", "n": n} for n in range(500))
    options: dict[str, Any] = {"checkpoint_bytes": 50_000, "memtable_bytes_max": 1_000_000}
    abandon(db, tmp_path / "copy.amber")
    copy = open_db("copy.amber", background=True, **options)
    notes = copy.collection("notes")
    if quiet_s:
        for n in range(20):  # above checkpoint_bytes all the time
            notes.put({"id": f"late{n}"})
        assert copy.stats()["checkpoints"] == 0
        notes.put_many({"id": f"more{n}", "text": "x" * 500} for n in range(1000))
    await_checkpoint(copy)
    assert copy.stats()["checkpoints"] > 0
    assert len(notes) == (1520 if quiet_s else 500)


def test_background_failure_is_logged_and_tried_again(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [RuntimeError("injected"), DiskFullError("injected")]
    run = Checkpointer.run

    def fail(self: Checkpointer) -> None:
        if failures:
            raise failures.pop()
        run(self)

    monkeypatch.setattr("amberdb.engine.maintenance.background._RETRY_S", 0.001)
    monkeypatch.setattr(Checkpointer, "run", fail)
    db = open_db(background=True, checkpoint_interval_ms=0)
    db.collection("n").put({"id": "a"})
    thread = next(thread for thread in threading.enumerate() if thread.name == "amberdb")
    for _ in range(10_000):
        if db.stats()["checkpoints"]:
            break
        thread.join(0.001)
    assert db.stats()["checkpoints"] == 1
    assert "checkpoint failed" in caplog.text


# -- threads on demand -----------------------------------------------------------------------


@pytest.fixture
def own_threads() -> Callable[[], list[str]]:
    """The names of the threads that the database has started; others of the process go on."""
    others = set(threading.enumerate())

    def names() -> list[str]:
        started = (thread for thread in threading.enumerate() if thread not in others)
        return [thread.name for thread in started if thread.name.startswith("amberdb")]

    return names


def test_idle_database_has_started_no_thread(
    open_db: OpenDatabase, own_threads: Callable[[], list[str]]
) -> None:
    db = open_db(background=True)
    assert own_threads() == []
    notes = db.collection("n")
    db.close()
    db = open_db(background=True)
    notes = db.collection("n")
    assert notes.get("a") is None
    assert notes.find({"x": 1}) == []
    assert db.stats()["snapshots"] == 0
    assert list(db.changes()) == []
    assert db.check().ok
    assert own_threads() == []
    notes.put({"id": "a"})
    assert own_threads() == ["amberdb"]
    db.close()
    assert own_threads() == []


def test_database_without_background_starts_none_at_all(
    open_db: OpenDatabase, own_threads: Callable[[], list[str]]
) -> None:
    db = open_db(background=False)
    fill(db, 10)
    db.snapshot()
    db.collection("n", indexes=[])
    assert own_threads() == []


# -- a log that fails ------------------------------------------------------------------------


def test_after_a_failed_sync_reads_go_on_and_writes_are_refused(open_db: OpenDatabase) -> None:
    fs = FaultyFileSystem(OsFileSystem())
    db = open_db(fs=fs)
    notes = db.collection("n")
    notes.put({"id": "a"})
    fs.hook = fail_on("sync", ".wal", OSError(errno.EIO, "injected"))
    with pytest.raises(CommitUnknownError):
        notes.put({"id": "b"})
    fs.hook = None
    assert got(notes, "a") == {"id": "a"}
    assert "b" not in notes, "not acknowledged, so not visible"
    assert notes.get("b") is None
    assert list(notes) == ["a"]
    with pytest.raises(PoisonedError):
        notes.put({"id": "c"})
    with pytest.raises(PoisonedError), db.transaction():
        pass
    with pytest.raises(CommitUnknownError):
        db.checkpoint()
    assert db.stats()["applied_lsn"] < db.stats()["last_lsn"]
    db.close()
    db = open_db()
    assert "a" in db.collection("n")
    db.collection("n").put({"id": "c"})


def test_full_disk_refuses_a_commit_and_goes_on(open_db: OpenDatabase) -> None:
    fs = FaultyFileSystem(OsFileSystem())
    db = open_db(fs=fs)
    notes = db.collection("n")
    fs.hook = fail_on("pwrite", ".wal", OSError(errno.ENOSPC, "injected"))
    with pytest.raises(DiskFullError):
        notes.put({"id": "a"})
    fs.hook = None
    assert "a" not in notes
    notes.put({"id": "b"})
    db.close()
    assert list(open_db().collection("n")) == ["b"]


def test_a_commit_that_was_interrupted_after_the_log_is_completed_by_the_next(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db()
    notes = db.collection("n")
    notes.put({"id": "a"})

    def interrupted(self: Memtable, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Memtable, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            notes.put({"id": "b"})
    assert list(notes) == ["a"]
    notes.put({"id": "c"})
    assert list(notes) == ["a", "b", "c"]
    db.close()
    assert list(open_db().collection("n")) == ["a", "b", "c"]


def test_close_after_a_failed_sync_raises_nothing_new(open_db: OpenDatabase) -> None:
    fs = FaultyFileSystem(OsFileSystem())
    db = open_db(fs=fs)
    db.collection("n").put({"id": "a"}, sync="os")
    fs.hook = fail_on("sync", ".wal", OSError(errno.EIO, "injected"))
    with pytest.raises(CommitUnknownError):
        db.sync()
    db.close()
    with pytest.raises(ClosedError):
        db.collection("n")
    assert open_db().recovery is not None, "that was no clean close"


@pytest.mark.parametrize("keeps_up", [True, False])
def test_a_checkpoint_lets_writers_run_as_long_as_it_keeps_up(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, keeps_up: bool
) -> None:
    db = open_db(checkpoint_bytes=20_000)
    notes = db.collection("n")
    notes.put_many([{"id": f"{number}"} for number in range(500)])
    notes.put_many([{"id": f"{number}", "x": 1} for number in range(500)])
    offer = Mock()
    monkeypatch.setattr(Turns, "offer", offer)
    written = 1 if keeps_up else 100
    with once_at(
        "checkpoint.frozen",
        lambda: notes.put_many([{"id": f"later {number}"} for number in range(written)]),
    ):
        db.checkpoint()
    assert offer.called == keeps_up
    assert len(notes) == 500 + written


# -- parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [7919, 1, -1, 0])
@pytest.mark.parametrize("count", [0, 1, 100, 20_000])
def test_a_frozen_memtable_gives_sorted_trees_in_parts(count: int, factor: int) -> None:
    memtable = Memtable()
    keys = [b"%04d%07d" % (number % 3, number * factor % 1_000_003) for number in range(count)]
    memtable.publish(1, dict.fromkeys(keys, b""), 0, 0)
    offer = Mock()
    found = [(keyspace, list(parts)) for keyspace, parts in memtable.sorted_keyspaces(offer)]
    assert [keyspace for keyspace, _ in found] == sorted({key[:4] for key in keys})
    assert [key for _, parts in found for part in parts for key in part] == sorted(set(keys))
    assert all(key[:4] == keyspace for keyspace, parts in found for part in parts for key in part)
    assert all(len(part) <= 100 for _, parts in found for part in parts)
    assert offer.call_count >= len(set(keys)) // 100


def test_sorted_keys_see_what_is_added_between_blocks() -> None:
    keys = SortedKeys({})
    for n in range(0, 1000, 2):
        keys.add(b"tree%04d" % n)
    low, high = b"tree", b"tref"
    up = keys.range(low, high, False)
    assert next(up) == b"tree0000"
    for n in range(1, 1000, 2):
        keys.add(b"tree%04d" % n)
    found = list(up)
    assert found == sorted(found)
    assert found[-1] == b"tree0999"
    assert list(keys.range(low, high, True)) == [b"tree%04d" % n for n in range(999, -1, -1)]
    assert list(keys.range(b"none", b"nonf", False)) == []


# -- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["document_bytes_max", "reap_batch", "snapshot_max_age_ms"])
def test_numbers_are_not_negative(open_db: OpenDatabase, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        open_db("t.amber", **{name: -1})


def test_unknown_option_is_refused(open_db: OpenDatabase) -> None:
    with pytest.raises(TypeError):
        open_db(fsync=True)


def test_options_cannot_be_changed(db: Database) -> None:
    with pytest.raises(AttributeError):
        db.options.sync = "os"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# -- declarations beside a checkpoint --------------------------------------------------------------


def drop_index(db: Database) -> None:
    db.collection("s", indexes=[])


def drop_collection(db: Database) -> None:
    db.drop_collection("s")


def rename(db: Database) -> None:
    db.rename_collection("s", "other")


def other_analyzer(db: Database) -> None:
    db.collection("s", indexes=[Text("text", language=None)])


def newer_version(db: Database) -> None:
    db.collection("s", indexes=[], version=2, migrate={2: dict})


@pytest.mark.parametrize(
    "declare", [drop_index, drop_collection, rename, other_analyzer, newer_version]
)
@pytest.mark.parametrize("place", ["checkpoint.frozen", "checkpoint.in-transaction"])
def test_a_checkpoint_writes_a_memtable_by_the_catalog_of_its_last_lsn(
    open_db: OpenDatabase, declare: Callable[[Database], None], place: str, tmp_path: Path
) -> None:
    """What it wrote is taken from a backup: the declaration, which came after it, is not in it."""
    db = open_db()
    notes = db.collection("s", indexes=[Text("text")])
    notes.put_many({"id": f"{n}", "text": f"amber {n}"} for n in range(20))
    db.checkpoint()
    notes.put_many({"id": f"{n}", "text": f"owl {n}"} for n in range(10, 30))
    with once_at(place, partial(declare, db)):
        db.backup(tmp_path / "backup")
    report = amberdb.restore(tmp_path / "backup", tmp_path / "r.amber", **SMALL)
    assert report.rebuilt == []
    with audited(tmp_path / "r.amber") as copy:
        assert len(copy["s"].search("amber", limit=99)) == 10
        assert len(copy["s"].search("owl", limit=99)) == 20
