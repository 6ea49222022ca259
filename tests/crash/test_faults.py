"""A sync, a write, a rename ... fails: every one of a small workload, once or from then on.

After each: only typed errors, no acknowledgement behind a failed sync, reads as of the last
visible Lsn, and reopening finds everything that was acknowledged, in whole commits without a hole.
"""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    AmberError,
    CommitUnknownError,
    Database,
    DiskFullError,
    Ordered,
    PoisonedError,
    StorageError,
    StorageFullError,
)
from support.databases import SMALL, OpenDatabase, assert_sound
from support.faulty_fs import KINDS, FaultyFileSystem
from support.inside import engine_of
from unit.wal.helpers import join_preparation

COMMITS = 14
FINAL = (CommitUnknownError, PoisonedError)


def prepared(path: Path, fs: FaultyFileSystem) -> Database:
    db = amberdb.open(path, **SMALL, fs=fs)
    db.collection("a", indexes=[Ordered("n")])
    db.collection("b")
    return db


def workload(db: Database, acknowledged: list[int]) -> list[AmberError]:
    """Commit n puts n in both collections: 600 bytes, so a segment lasts for five or so."""
    errors: list[AmberError] = []
    for number in range(COMMITS):
        try:
            with db.transaction() as tx:
                for name in ("a", "b"):
                    tx[name].put({"id": f"{number:03}", "n": number, "text": "x" * 300})
            acknowledged.append(number)
            if number in (6, 11):
                db.checkpoint()
        except AmberError as error:
            errors.append(error)
    return errors


def numbers(db: Database, name: str) -> list[int]:
    return [document["n"] for document in db.collection(name).find(order_by="id")]


def calls_of(tmp_path: Path, kind: str) -> int:
    fs = FaultyFileSystem()
    db = prepared(tmp_path / "count.amber", fs)
    fs.arm((kind,))
    assert workload(db, []) == []
    count = fs.counted
    db.close()
    return count


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("kind", [*KINDS, "short pwrite"])
def test_every_single_fault(tmp_path: Path, kind: str, code: int, lasting: bool) -> None:
    torn = kind == "short pwrite"
    kind = kind.removeprefix("short ")
    for fail_at in range(1, calls_of(tmp_path, kind) + 1):
        path = tmp_path / f"{fail_at}.amber"
        fs = FaultyFileSystem()
        db = prepared(path, fs)
        fs.arm((kind,), fail_at, code, lasting=lasting, torn=torn)
        acknowledged: list[int] = []
        errors = workload(db, acknowledged)
        what = f"{fs.failed[:1]}: {errors}"
        assert all(isinstance(error, (StorageError, CommitUnknownError)) for error in errors), what
        if any(isinstance(error, FINAL) for error in errors):
            first = next(at for at, e in enumerate(errors) if isinstance(e, FINAL))
            assert all(isinstance(error, FINAL) for error in errors[first:]), what
        assert numbers(db, "a") == numbers(db, "b") == acknowledged, what
        assert db.collection("a").count({"n": {"$gte": 0}}) == len(acknowledged), what
        fs.disarm()
        try:
            db.close()
        except CommitUnknownError:
            assert any(isinstance(error, FINAL) for error in errors), what
        with amberdb.open(path, **SMALL) as again:
            found = numbers(again, "a")
            assert found == numbers(again, "b"), what
            assert set(found) >= set(acknowledged), what
            assert_sound(again)


def after_power_loss(fs: FaultyFileSystem, path: Path, copy: Path) -> list[int]:
    """What a database has that loses power now, and is opened elsewhere."""
    join_preparation()
    fs.lose_power()
    shutil.copytree(path, copy)
    with amberdb.open(copy, **SMALL) as db:
        found = numbers(db, "a")
        assert found == numbers(db, "b") == list(range(len(found)))
        assert_sound(db)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("reopened", [False, True], ids=["at once", "after reopening"])
def test_every_failed_sync_that_drops_its_pages(tmp_path: Path, reopened: bool) -> None:
    """The page cache shows what the device never got: what was read from there after reopening
    must not vanish with the next power loss."""
    kept = 0
    for fail_at in range(1, calls_of(tmp_path, "sync") + 1):
        path, copy = tmp_path / f"{fail_at}.amber", tmp_path / f"{fail_at}.copy"
        fs = FaultyFileSystem(drops=True)
        db = prepared(path, fs)
        fs.arm(("sync",), fail_at)  # once: the next one succeeds, and writes nothing of it
        served: list[int] = []
        workload(db, served)
        join_preparation()
        assert fs.failed
        if reopened:
            acknowledged = served
            db.close()
            db = amberdb.open(path, **SMALL, fs=fs)
            served = numbers(db, "a")
            assert set(served) >= set(acknowledged), fs.failed
            kept += len(served) - len(acknowledged)
        assert set(after_power_loss(fs, path, copy)) >= set(served), fs.failed
        db.close()
    assert bool(kept) == reopened, "some commit was not acknowledged, and is there all the same"


@pytest.mark.slow
def test_every_failed_sync_of_a_recovery(tmp_path: Path) -> None:
    fs = FaultyFileSystem()
    db = prepared(tmp_path / "t.amber", fs)
    acknowledged: list[int] = []
    workload(db, acknowledged)
    join_preparation()
    fail_at = 0
    while not fail_at or fs.failed:
        fail_at += 1
        path = tmp_path / f"{fail_at}.amber"
        shutil.copytree(db.path, path)
        fs = FaultyFileSystem(drops=True)
        fs.arm(("sync",), fail_at)
        try:
            amberdb.open(path, **SMALL, fs=fs).close()
        except AmberError:
            assert fs.failed
        assert after_power_loss(fs, path, tmp_path / f"{fail_at}.copy") == acknowledged
    assert fail_at > 3
    db.close()


@pytest.mark.parametrize("kind", ["sync", "sync_dir"])
def test_nothing_is_acknowledged_after_a_failed_sync(tmp_path: Path, kind: str) -> None:
    fs = FaultyFileSystem()
    db = prepared(tmp_path / "t.amber", fs)
    collection = db.collection("a")
    collection.put({"id": "before", "n": 0})
    visible = db.stats()["visible_lsn"]
    applied = db.stats()["applied_lsn"]
    fs.arm(("sync",), 1)  # once: the next one would succeed, and prove nothing
    with pytest.raises(CommitUnknownError):
        collection.put({"id": "doubtful", "n": 1})
    for sync in ("always", "interval", "os"):
        with pytest.raises(PoisonedError):
            collection.put({"id": "after", "n": 2}, sync=sync)
    with pytest.raises(PoisonedError), db.transaction():
        pass
    with pytest.raises(CommitUnknownError):
        db.sync()
    with pytest.raises(AmberError):
        db.checkpoint()
    assert db.stats()["applied_lsn"] == applied
    assert db.stats()["visible_lsn"] == visible
    assert numbers(db, "a") == [0]
    with db.snapshot() as at:
        assert at["a"].get("doubtful") is None
    assert [c.id for c in db.changes() if c.collection == "a"] == ["before"]
    db.close()
    with amberdb.open(tmp_path / "t.amber", **SMALL) as again:
        assert numbers(again, "a") in ([0], [0, 1])
        again.collection("a").put({"id": "after", "n": 2})


def test_a_full_disk_refuses_and_goes_on_when_there_is_space(open_db: OpenDatabase) -> None:
    fs = FaultyFileSystem()
    db = open_db(fs=fs)
    collection = db.collection("a")
    fs.arm(("open", "pwrite"), 1, errno.ENOSPC, lasting=True)
    stored: list[int] = []
    refused = 0
    for number in range(40):
        try:
            collection.put({"id": f"{number:03}", "n": number, "text": "x" * 300})
            stored.append(number)
        except DiskFullError:
            refused += 1
    assert refused
    assert numbers(db, "a") == stored
    fs.disarm()
    collection.put({"id": "999", "n": 999})
    assert numbers(db, "a") == [*stored, 999]
    db.close()
    assert numbers(open_db(), "a") == [*stored, 999]


def refuse(full: StorageFullError) -> None:
    raise full


@pytest.mark.parametrize("background", [False, True])
def test_a_failing_checkpoint_acknowledges_up_to_the_limit(
    open_db: OpenDatabase, background: bool
) -> None:
    """LMDB's map is full here, and cannot grow: its file does not go through the file seam."""
    options: dict[str, Any] = {
        "map_bytes": 1 << 20,
        "checkpoint_bytes": 400_000,
        "memtable_bytes_max": 2_000_000,
        "background": background,
        "busy_timeout_ms": 5000,
    }
    db = open_db(**options)
    engine_of(db).checkpointer.enlarge = refuse
    collection = db.collection("a")
    stored: list[int] = []
    refused = False
    while not refused and len(stored) < 4000:
        number = len(stored)
        try:
            collection.put({"id": f"{number:04}", "n": number, "text": "x" * 2000}, sync="os")
            stored.append(number)
        except StorageFullError:
            refused = True
    assert refused
    assert len(stored) > 500  # 2 MB of documents: more than the map holds
    assert numbers(db, "a") == stored
    with pytest.raises(StorageFullError):
        db.checkpoint()
    with pytest.raises(StorageFullError):
        collection.put({"id": "more"})
    db.close()
    options["map_bytes"] = 1 << 30
    db = open_db(**options)
    assert numbers(db, "a") == stored
    db.collection("a").put({"id": "more", "n": 0})
    db.checkpoint()


def test_no_descriptor_for_a_new_segment_refuses_and_goes_on(tmp_path: Path) -> None:
    refused = 0
    for fail_at in range(1, calls_of(tmp_path, "open") + 1):
        path = tmp_path / f"{fail_at}.amber"
        fs = FaultyFileSystem()
        db = prepared(path, fs)
        fs.arm(("open",), fail_at, errno.EMFILE)
        acknowledged: list[int] = []
        errors = workload(db, acknowledged)
        assert not [error for error in errors if isinstance(error, FINAL)], errors
        assert numbers(db, "a") == numbers(db, "b") == acknowledged
        refused += len(errors)
        assert_sound(db)
        db.close()
    assert refused, "some commit needed a new segment"
