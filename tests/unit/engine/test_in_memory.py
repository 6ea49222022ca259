"""Databases in memory leave nothing behind; a closed database leaves no map and no descriptor."""

import os
import signal
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Database
from amberdb._fs import OsFileSystem
from amberdb.engine.database import in_memory
from support.databases import SMALL, assert_sound

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux")


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The directory of temporary files, without another file system in memory."""
    monkeypatch.setattr(in_memory, "_SHARED_MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("amberdb-")] == []


def terminate() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def die_with_a_database(how: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            db = amberdb.open(":memory:", **SMALL)
            db.collection("n").put({"id": "secret"})
            db.checkpoint()
            how()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "how",
    [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        terminate,
        lambda: os._exit(0),
    ],
    ids=["SIGKILL", "SIGTERM", "_exit"],
)
def test_what_a_dead_process_left_goes_at_the_next_open(
    parent: Path, how: Callable[[], object]
) -> None:
    die_with_a_database(how)
    assert list(parent.glob("amberdb-*/memory.amber/data-1/data.mdb"))
    with amberdb.open(":memory:", **SMALL) as db:
        assert len(list(parent.glob("amberdb-*"))) == 1
        assert "secret" not in db.collection("n")
        assert_sound(db)


def test_a_living_one_and_what_is_not_ours_stay(parent: Path) -> None:
    first = amberdb.open(":memory:", **SMALL)
    first.collection("n").put({"id": "a"})
    mine = parent / "amberdb-notes"
    with amberdb.open(parent / "x", **SMALL) as db:
        assert_sound(db)
    mine.mkdir()
    (parent / "x").rename(mine / "memory.amber")
    begun = in_memory.new_directory()
    lock_only = Path(in_memory.inner_path(begun))
    lock_only.mkdir()
    lock = OsFileSystem().lock(str(lock_only / "LOCK"), "1 here")
    lock.close()
    with amberdb.open(":memory:", **SMALL) as second:
        assert_sound(second)
    assert (mine / "memory.amber" / "MANIFEST").exists()
    assert (lock_only / "LOCK").exists()
    assert list(first.collection("n")) == ["a"]
    assert_sound(first)
    first.close()
    in_memory.remove(begun)
    mine.rename(parent / "mine")


# -- maps ------------------------------------------------------------------------------------


def held(directory: Path) -> list[str]:
    """The files below a directory that this process has mapped or open."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split(maxsplit=5)[-1] for line in lines]
    for name in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{name}"):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(f"{directory}/")]


def a_kept_error(db: Database) -> Any:
    try:
        db.collection("n").put({"id": "x", "text": object()})
    except amberdb.AmberError as error:
        return error


def begun(iterator: Any) -> Any:
    next(iterator)
    return iterator


KEPT: dict[str, Callable[[Database], Any]] = {
    "nothing": lambda db: None,
    "documents": lambda db: [db.collection("n").get("1"), db.collection("n").find({"id": "2"})],
    "hits": lambda db: db.collection("n").search("amber", vector=[1.0, 0.0]),
    "iterator": lambda db: begun(iter(db.collection("n").documents())),
    "ids": lambda db: begun(iter(db.collection("n"))),
    "snapshot": lambda db: db.snapshot(),
    "iterator of a snapshot": lambda db: begun(iter(db.snapshot()["n"].documents())),
    "error": a_kept_error,
    "backup": lambda db: db.backup(Path(db.path).with_name("b")),
    "compacted": lambda db: db.compact(),
}


@needs_proc
@pytest.mark.parametrize("read_only", [False, True], ids=["writing", "reading"])
@pytest.mark.parametrize("kept", KEPT)
def test_a_closed_database_has_nothing_mapped(tmp_path: Path, kept: str, read_only: bool) -> None:
    path = tmp_path / "t.amber"
    for last in (False, True):
        db = amberdb.open(path, **SMALL)
        notes = db.collection("n", indexes=[amberdb.Text("text"), amberdb.Vector("v", dim=2)])
        notes.put_many({"id": str(n), "text": "amber", "v": [n, 1.0]} for n in range(300))
        db.checkpoint()
        if last and not (read_only and kept in ("backup", "compacted")):
            if read_only:
                db.close()
                db = amberdb.open(path, read_only=True, **SMALL)
            result = KEPT[kept](db)
            assert held(tmp_path)
            db.close()
            assert held(tmp_path) == []
            del result
        else:
            db.close()
