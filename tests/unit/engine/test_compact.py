"""compact(): the same database in fewer bytes, and no deleted document in any of its files. Power
loss at every step is in tests/crash/test_sweep.py."""

import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    Database,
    DiskFullError,
    Ordered,
    PoisonedError,
    StorageError,
    Text,
    TransactionError,
)
from amberdb import _failpoints as failpoints
from support import slices
from support.beside import beside
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound, audited
from support.faulty_fs import FaultyFileSystem
from support.remains import document, files_of, filled, left_of, looked, state_of, vector

PLACES = [name for name in failpoints.NAMES if name.startswith("compact.")]


def test_the_same_database_in_fewer_bytes(db: Database, tmp_path: Path) -> None:
    filled(db)
    before = state_of(db)
    told: list[tuple[int, int]] = []
    report = db.compact(lambda done, of: told.append((done, of)))
    assert state_of(db) == before
    assert_sound(db)
    assert report.bytes_after < report.bytes_before / 2
    assert report.pairs_after < report.pairs_before
    assert told[-1][0] == report.pairs_after
    assert told[-1][1] == report.pairs_before
    assert db.stats()["collections"]["memory"]["search"]["text:content"]["segments"] == 1
    assert sorted(os.listdir(db.path)) == ["LOCK", "MANIFEST", "STATUS", "data-2", "wal"]
    again = db.compact()
    assert again.bytes_after == report.bytes_after
    db.collection("memory").put(document(200))
    db.checkpoint()
    assert [hit.id for hit in db.collection("memory").search("keptunique200word")] == ["200"]


def test_it_is_found_by_the_next_open(open_db: OpenDatabase) -> None:
    db = filled(open_db())
    before = state_of(db)
    db.compact()
    db.collection("memory").put(document(7))
    db.close()
    db = open_db()
    assert state_of(db) == before
    db.compact()
    assert state_of(db) == before


def test_readers_of_before_go_on(db: Database) -> None:
    filled(db)
    before = state_of(db)
    with db.snapshot() as at:
        documents = db.collection("memory").documents()
        first = next(documents)
        db.compact()
        db.collection("memory").delete_many({"n": {"$lt": 20}})
        db.checkpoint()
        db.compact()
        assert state_of(at) == before
        assert len([first, *documents]) == 40
    assert len(db.collection("memory")) == 20


@pytest.mark.slow
@pytest.mark.parametrize("reopened", [False, True])
def test_nothing_deleted_is_left_in_any_file(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    monkeypatch.setattr("amberdb.engine.search.vector.file.UNSAVED_ROWS", 10)
    for name in ("GRAPH_ROWS", "FRESH_ROWS", "DEAD_ROWS"):
        monkeypatch.setattr(f"amberdb.engine.search.vector.cache.{name}", 10)
    db = filled(open_db())
    db.collection("memory").put({**document(1, "changed"), "v": vector(200)})
    db.collection("memory").search(vector=vector(1))
    db.build_indexes()
    gone = range(40, 100)
    if reopened:
        db.close()
        db = open_db()
    assert all(looked(db.path, gone).values()), "or this test sees nothing"
    db.compact()
    assert not any(looked(db.path, gone).values())
    assert not left_of(db.path, 1), "what was overwritten"
    assert left_of(db.path, 7)
    # And nothing comes back into a file from what was kept in memory.
    db.collection("memory").search(vector=vector(1))
    db.build_indexes()
    db.close()
    assert not any(looked(db.path, gone).values())


def test_what_is_committed_meanwhile_keeps_no_log_of_before(db: Database) -> None:
    """A commit after the checkpoint of the compaction, in a segment with deleted documents."""
    filled(db)
    numbers = iter(range(300, 400))

    def commit(name: str) -> None:
        if name in ("compact.copied", "compact.switched", "compact.log-renewed"):
            failpoints.install(None)
            db.collection("memory").put(document(next(numbers)))
            failpoints.install(commit)

    failpoints.install(commit)
    try:
        db.compact()
    finally:
        failpoints.install(None)
    assert next(numbers) == 303
    assert not any(looked(db.path, range(40, 100)).values())


def test_broken_and_unfinished_files_go(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = filled(open_db())
    whole = Path(db.path)
    segment = min(whole.glob("wal/*.wal"))
    half = f"MANIFEST.amber-{1:016x}.tmp"
    names = ["MANIFEST.broken", "MANIFEST.broken.1", f"wal/{segment.name}.broken", half]
    for name in names:
        (whole / name).write_bytes(b"keptunique41word")
    for name in ("data-1.broken", "data-2.tmp", "wal.broken"):
        (whole / name).mkdir()
        (whole / name / "data.mdb").write_bytes(b"keptunique41word")
    strangers = [whole / name for name in ("notes.txt", "half.tmp", "tooth.broken", "wal/x.tmp")]
    for stranger in strangers:
        stranger.write_text("not ours")
    removed = db.compact().removed
    assert sorted(removed) == sorted([*names, "data-1.broken", "data-2.tmp", "wal.broken"])
    assert not left_of(db.path, 41)
    assert all(stranger.exists() for stranger in strangers)
    assert not db.compact().removed


def test_a_broken_file_that_cannot_be_removed(tmp_path: Path) -> None:
    fs = FaultyFileSystem()
    with audited(tmp_path / "t.amber", fs=fs) as db:
        filled(db)
        broken = Path(db.path, "MANIFEST.broken")
        broken.write_bytes(b"old")

        def fail(name: str) -> None:
            if name == "compact.old-removed":
                fs.arm(("unlink",), 1)

        failpoints.install(fail)
        try:
            with pytest.raises(StorageError, match=r"MANIFEST\.broken"):
                db.compact()
        finally:
            failpoints.install(None)
        db.compact()
        assert not broken.exists()


def test_what_a_subscriber_has_yet_to_read_stays(db: Database) -> None:
    filled(db)
    subscriber = db.subscriber("feed")
    db.collection("memory").delete("7")
    db.collection("memory").put(document(300))
    db.compact()
    assert [(change.op, change.id) for change in subscriber.changes()] == [
        ("delete", "7"),
        ("put", "300"),
    ]


def test_a_disk_without_room_is_said_beforehand(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(db)
    usage = shutil.disk_usage(db.path)

    def full(_: str) -> Any:
        return usage._replace(free=1000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(DiskFullError, match="compaction needs"):
        db.compact()
    assert "data-2" not in os.listdir(db.path)
    monkeypatch.undo()
    db.compact()


class Stopped(Exception):
    """Raised at a named place."""


@pytest.mark.parametrize("place", PLACES)
def test_stopped_at_any_place_it_has_lost_nothing_and_can_run_again(
    tmp_path: Path, place: str
) -> None:
    def stop(name: str) -> None:
        if name == place:
            raise Stopped(name)

    path = tmp_path / "t.amber"
    with audited(path) as db:
        filled(db)
        before = state_of(db)
        failpoints.install(stop)
        try:
            with pytest.raises(Stopped):
                db.compact()
        finally:
            failpoints.install(None)
        assert state_of(db) == before
        if place == "compact.manifest-written":  # on the disk, and not in this process
            with pytest.raises(PoisonedError):
                db.collection("memory").put(document(8))
        else:
            db.collection("memory").put(document(7))
            db.compact()
        assert state_of(db) == before
    with audited(path) as db:
        assert state_of(db) == before
        assert len([name for name in os.listdir(path) if name.startswith("data-")]) == 1


@pytest.mark.parametrize("operation", ["pwrite", "sync", "rename", "sync_dir"])
def test_a_manifest_that_cannot_be_replaced(tmp_path: Path, operation: str) -> None:
    path = tmp_path / "t.amber"
    fs = FaultyFileSystem()
    db = filled(amberdb.open(path, **SMALL, fs=fs))
    before = state_of(db)

    def fail(name: str) -> None:
        if name == "compact.before-manifest":
            fs.arm((operation,), 1)

    failpoints.install(fail)
    try:
        with pytest.raises(StorageError):
            db.compact()
    finally:
        failpoints.install(None)
    assert state_of(db) == before
    if operation == "sync_dir":  # the name is there, and may not be after a power loss
        with pytest.raises(PoisonedError):
            db.collection("memory").put(document(8))
    else:
        db.collection("memory").put(document(7))
        db.compact()
    db.close()
    with audited(path) as db:
        assert state_of(db) == before


def test_what_a_crash_left_goes_at_the_next_open(open_db: OpenDatabase) -> None:
    db = filled(open_db())
    before = state_of(db)
    db.close()
    left = Path(db.path, "data-7")
    left.mkdir()
    (left / "data.mdb").write_bytes(b"half")
    db = open_db()
    assert not left.exists()
    assert state_of(db) == before


def test_after_an_unclean_end(db: Database, tmp_path: Path) -> None:
    filled(db)
    before = state_of(db)
    crashed = tmp_path / "crashed.amber"
    shutil.copytree(db.path, crashed)
    with audited(crashed) as db:
        db.compact()
        assert state_of(db) == before
        assert not any(looked(db.path, range(40, 100)).values())
    with audited(crashed) as db:
        assert state_of(db) == before


def test_dropped_indexes_go_and_waiting_ones_stay(db: Database) -> None:
    filled(db)
    db.collection("memory", indexes=[Ordered("n"), Ordered("content")])
    assert db.stats()["collections"]["memory"]["indexes"]["ordered:content"] == "building"
    db.compact()
    assert db.definition("memory").indexes[1].spec == Ordered("content")
    assert not any(b"tkeptunique" in data for _, data in files_of(db.path))
    db.build_indexes()
    assert [d["id"] for d in db.collection("memory").find(order_by="content", limit=2)] == [
        "0",
        "10",
    ]


def test_inside_a_transaction_it_is_refused(db: Database) -> None:
    db.collection("memory")
    with db.transaction(), pytest.raises(TransactionError):
        db.compact()


@pytest.mark.slow
@pytest.mark.sliced
def test_writers_and_readers_go_on(open_db: OpenDatabase) -> None:
    db = open_db(sync="os", clock=FakeClock())
    memory = db.collection("memory", indexes=[Ordered("n"), Text("content")])
    written = [0, 0]
    allowed, done = threading.Semaphore(0), threading.Semaphore(0)

    def write(thread: int) -> None:
        # Without a limit, what is written during a compaction makes the next one longer.
        if allowed.acquire(timeout=0.1):
            number = written[thread]
            memory.put({"id": f"{thread}-{number}", "n": number, "content": "tea"})
            written[thread] = number + 1
            done.release()

    def read() -> None:
        low = sum(written)
        with db.snapshot() as at:
            notes = at.collection("memory")
            count = len(notes)
            assert count >= low
            assert len(notes.search("tea", limit=10**6) if count else []) == count
            assert notes.count({"n": {"$gte": 0}}) == count

    with beside(partial(write, 0), partial(write, 1), read, read):
        for _ in range(slices.size(12, 4)):
            allowed.release(500)
            db.compact()
            for _ in range(500):
                assert done.acquire(timeout=60)
            db.checkpoint()
    assert len(memory) == sum(written)
