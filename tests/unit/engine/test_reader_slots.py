"""Snapshots that nobody closes: how many there may be, what the error names, and who else notices.

Each snapshot holds a slot of LMDB's reader table, which all processes of a database share."""

import time

import pytest

from amberdb import ClosedError, Database, ReadersFullError, SnapshotLimitError
from amberdb.engine.storage import store
from support.databases import OpenDatabase
from support.reading import ReadingProcess

SLOTS = 12
FILL = "kept.update((n, db.snapshot()) for n in range({}))"


@pytest.fixture
def db(open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Its reader table has few slots."""
    monkeypatch.setattr(store, "_READERS_MAX", SLOTS)
    db = open_db()
    db.collection("note").put({"id": "a"})
    db.checkpoint()
    return db


def works(db: Database) -> None:
    """Every way to read and to write goes on."""
    notes = db["note"]
    assert notes["a"] == {"id": "a"}
    assert len(notes.find({})) == notes.count()
    notes.put({"id": "a"})
    db.checkpoint()
    with db.transaction() as tx:
        assert tx["note"]["a"] == {"id": "a"}
    with db.snapshot() as at:
        assert at["note"]["a"] == {"id": "a"}
    assert db.check().ok
    db.compact()
    assert db.stats()["last_lsn"]


def test_one_more_snapshot_than_may_be_open_is_refused(open_db: OpenDatabase) -> None:
    db = open_db(snapshots_max=3)
    db.collection("note").put({"id": "a"})
    oldest, *_ = kept = [db.snapshot() for _ in range(3)]
    with pytest.raises(SnapshotLimitError) as caught:
        db.snapshot()
    error = caught.value
    assert "snapshots_max is 3" in str(error)
    assert f"at Lsn {oldest.lsn}" in str(error)
    assert f"{__file__}:" in str(error)  # where it was taken
    assert error.oldest_at.rpartition(":")[2].isdigit()
    assert (error.count, error.oldest_ms > 0) == (3, True)
    db["note"].put({"id": "b"})
    kept.pop().close()
    with db.snapshot() as at:
        assert at["note"].count() == 2
    kept.pop()  # forgotten, not closed
    db.snapshot().close()
    assert kept == [oldest]


def test_snapshots_past_their_age_make_room(open_db: OpenDatabase) -> None:
    db = open_db(snapshots_max=2)
    kept = [db.snapshot(max_age_ms=0) for _ in range(2)]
    with db.snapshot():
        assert db.stats()["snapshots"] == 1
    assert len(kept) == 2


@pytest.mark.parametrize("leaked", [8, SLOTS * 2])
def test_a_process_that_leaks_snapshots_stops_nobody_else(db: Database, leaked: int) -> None:
    with ReadingProcess(db.path, snapshots_max=8) as reader:
        if leaked <= 8:
            assert reader.ask(FILL.format(leaked)) is None
        else:
            with pytest.raises(SnapshotLimitError):
                reader.ask(FILL.format(leaked))
        works(db)
        with ReadingProcess(db.path) as other:
            assert other.ask("db['note'].count()") == 1
        reader.kill()
    works(db)


def test_who_has_a_slot_goes_on_when_the_table_is_full(db: Database) -> None:
    """Here the limit of snapshots is above the number of slots."""
    with ReadingProcess(db.path, snapshots_max=SLOTS * 2) as reader:
        with pytest.raises(ReadersFullError, match="the oldest here, at Lsn"):
            reader.ask(FILL.format(SLOTS * 2))
        notes = db["note"]
        for _ in range(3):
            assert notes["a"] == {"id": "a"}
            assert notes.count() == 1
            notes.put({"id": "a"})
            db.checkpoint()
        with db.snapshot() as at:  # it holds the slot of this process
            assert at["note"].count() == 1
            with pytest.raises(ReadersFullError, match=f"by process {reader.pid}") as caught:
                notes.count()
            assert caught.value.pid == reader.pid
            assert caught.value.count >= SLOTS - 2
            db.checkpoint()
        assert notes.count() == 1
        reader.kill()
    works(db)


def test_a_read_waits_for_the_slot_of_another_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReadingProcess(db.path, snapshots_max=SLOTS * 2) as reader:
        with pytest.raises(ReadersFullError):
            reader.ask(FILL.format(SLOTS * 2))
        at = db.snapshot()

        class Time:
            monotonic = staticmethod(time.monotonic)

            @staticmethod
            def sleep(_seconds: float) -> None:
                at.close()  # as another thread would meanwhile

        monkeypatch.setattr(store, "time", Time)
        assert db["note"].count() == 1
        with pytest.raises(ClosedError):
            at["note"]
        reader.kill()


def test_slots_of_dead_processes_are_taken_over(db: Database) -> None:
    with ReadingProcess(db.path, snapshots_max=SLOTS * 2) as reader:
        with pytest.raises(ReadersFullError):
            reader.ask(FILL.format(SLOTS * 2))
        with pytest.raises(ReadersFullError, match="next checkpoint"):
            ReadingProcess(db.path)
        reader.kill()
    db["note"].put({"id": "a"})
    db.checkpoint()
    with ReadingProcess(db.path) as other:
        assert other.ask("db['note'].count()") == 1
    works(db)


def test_the_limit_is_that_of_one_handle(open_db: OpenDatabase) -> None:
    db = open_db(snapshots_max=2)
    other = open_db(snapshots_max=2)
    kept = [db.snapshot() for _ in range(2)]
    with other.snapshot(), pytest.raises(SnapshotLimitError):
        db.snapshot()
    assert len(kept) == 2
