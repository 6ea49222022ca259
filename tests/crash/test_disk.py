"""Disks that are full, and disks that fail, behind the file seam too: in LMDB's own writes."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database, DiskFullError, Ordered, StorageError
from support.databases import OpenDatabase, assert_sound
from support.descriptors import replaced
from support.small_disk import SKIP

TESTS = Path(__file__).parent.parent
linux_only = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="it needs /proc")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "limit"])
def test_a_disk_that_is_full_again_and_again(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-m", "support.small_disk", kind, str(tmp_path), "1"]
    if kind != "limit":
        own = [found, "--mount"] if (found := shutil.which("unshare")) else []
        if not own or subprocess.run([*own, "true"], capture_output=True).returncode:
            pytest.skip("no mount namespace: it needs unshare, and to be root")
        command = own + command
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == SKIP:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert "'refused': " in done.stdout
    assert "'checkpoints refused': " in done.stdout
    assert "opened while full'" in done.stdout


def filled(open_db: OpenDatabase, **options: Any) -> Database:
    """Fifty documents in LMDB and fifty above it."""
    db = open_db(**options)
    notes = db.collection("a", indexes=[Ordered("n")])
    for number in range(100):
        if number == 50:
            db.checkpoint()
        notes.put({"id": f"{number:03}", "n": number, "text": "x" * 500})
    return db


def numbers(db: Database) -> list[int]:
    return [document["n"] for document in db.collection("a").find(order_by="n", limit=1000)]


def data_of(db: Database) -> Path:
    return Path(db.path) / "data-1" / "data.mdb"


@linux_only
@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"], ids=["write", "sync"])
def test_a_checkpoint_that_fails_inside_of_lmdb_is_tried_again(
    open_db: OpenDatabase, device: str
) -> None:
    db = filled(open_db)
    with replaced(data_of(db), device, meta=False):
        for _ in range(2):
            with pytest.raises(StorageError) as caught:
                db.checkpoint()
            assert isinstance(caught.value, DiskFullError) == (device == "/dev/full")
            assert numbers(db) == list(range(100))
            assert_sound(db)
        db.collection("a").put({"id": "100", "n": 100})
    db.checkpoint()
    assert numbers(db) == list(range(101))
    assert_sound(db)
    db.close()
    db = open_db()
    assert db.recovery is None
    assert numbers(db) == list(range(101))


@linux_only
def test_a_meta_page_that_cannot_be_written_ends_lmdb_and_not_the_reads(
    open_db: OpenDatabase,
) -> None:
    db = filled(open_db, memtable_bytes_max=200_000)
    notes = db.collection("a")
    at = db.snapshot()
    with replaced(data_of(db), "/dev/full", meta=True):
        kept = [_failure(db)]
    kept.append(_failure(db))  # the disk is well again: LMDB is not
    notes.put({"id": "100", "n": 100})
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(numbers, [db] * 40):
            assert found == list(range(101))
    assert notes.get("003") is not None
    assert len(at["a"]) == 100
    assert db.stats()["visible_lsn"] > at.lsn
    assert_sound(db)
    stored = 100
    while stored < 1000:
        try:
            notes.put({"id": f"{stored + 1:03}", "n": stored + 1, "text": "x" * 500})
        except StorageError as error:
            kept.append(error)
            break
        stored += 1
    assert 150 < stored < 1000
    assert numbers(db) == list(range(stored + 1))
    at.close()
    db.close()
    again = open_db()  # while the errors, and all that their tracebacks hold, are alive
    assert numbers(again) == list(range(stored + 1))
    again.checkpoint()
    assert all("open it again" in str(error) for error in kept)


def _failure(db: Database) -> StorageError:
    with pytest.raises(StorageError, match="open it again") as caught:
        db.checkpoint()
    assert not isinstance(caught.value, DiskFullError)
    return caught.value
