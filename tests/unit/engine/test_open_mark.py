"""The mark of a clean close in MANIFEST: it stays until the first record."""

import errno
from pathlib import Path

import pytest

from amberdb import DiskFullError, Ordered, StorageError
from support.databases import OpenDatabase
from support.faulty_fs import FaultyFileSystem
from unit.engine.helpers import abandon, ids, open_at


@pytest.fixture
def made(open_db: OpenDatabase, tmp_path: Path) -> Path:
    """A closed database with one document."""
    db = open_db()
    db.collection("n", indexes=[Ordered("x")]).put({"id": "a", "x": 1})
    db.close()
    return tmp_path / "t.amber"


def test_a_process_that_only_reads_syncs_nothing(made: Path, tmp_path: Path) -> None:
    before = (made / "MANIFEST").read_bytes()
    fs = FaultyFileSystem()
    db = open_at(made, fs=fs)
    assert db.collection("n").find({"x": 1}) == [{"id": "a", "x": 1}]
    killed = abandon(db, tmp_path / "killed.amber")
    db.close()
    assert {kind for kind, _ in fs.calls} & {"sync", "sync_dir", "rename", "pwrite"} == set()
    assert (made / "MANIFEST").read_bytes() == before == (killed / "MANIFEST").read_bytes()
    with open_at(killed) as db:
        assert db.recovery is None
        assert ids(db.collection("n").find()) == ["a"]
        assert db.check().ok


def test_the_mark_is_durable_before_the_first_record(made: Path, tmp_path: Path) -> None:
    fs = FaultyFileSystem()
    with open_at(made, fs=fs) as db:
        notes = db.collection("n")
        fs.calls.clear()
        notes.put({"id": "b"})
        record = next(i for i, (_, name) in enumerate(fs.calls) if name.endswith(".wal"))
        assert fs.calls.index(("sync_dir", "t.amber")) < record
        assert ("rename", "MANIFEST") in fs.calls[:record]
        fs.calls.clear()
        notes.put({"id": "c"})
        assert ("rename", "MANIFEST") not in fs.calls
        killed = abandon(db, tmp_path / "killed.amber")
    with open_at(killed) as db:
        assert db.recovery is not None
        assert ids(db.collection("n").find()) == ["a", "b", "c"]


@pytest.mark.parametrize("operation", ["pwrite", "sync", "rename"])
def test_a_mark_that_cannot_be_written_stores_nothing(made: Path, operation: str) -> None:
    fs = FaultyFileSystem()
    db = open_at(made, fs=fs)
    notes = db.collection("n")
    for code, error in ((errno.ENOSPC, DiskFullError), (errno.EIO, StorageError)):
        fs.where = "MANIFEST"
        fs.arm((operation,), 1, code)
        with pytest.raises(error):
            notes.put({"id": "b"})
        fs.disarm()
        assert ids(notes.find()) == ["a"]
    notes.put({"id": "c"})
    assert db.check().ok
    db.close()
    with open_at(made) as db:
        assert ids(db.collection("n").find()) == ["a", "c"]
