"""The directory of a database: made in place, private, and never taken for another's."""

import errno
import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import CorruptionError, DatabaseMissingError, LockedError, NotADatabaseError
from amberdb import _failpoints as failpoints
from amberdb._fs import OsFileSystem
from amberdb.engine.commit.recovery import open_parts
from amberdb.engine.options import Options
from support.databases import SMALL, OpenDatabase, assert_sound
from support.faulty_fs import FaultyFileSystem
from unit.engine.helpers import open_at
from unit.engine.test_open import Killed, dying_at, unfinished


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Generator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    """Permissions by name; segments of the log have one name."""
    return {
        "segment" if each.suffix == ".wal" else each.relative_to(path).as_posix(): stat.S_IMODE(
            each.stat().st_mode
        )
        for each in (path, *path.rglob("*"))
    }


def fill(path: Path, **options: Any) -> None:
    with open_at(path, **options) as db:
        notes = db.collection("n", indexes=[amberdb.Vector("v", dim=2)])
        notes.put_many({"id": str(n), "v": [n, 1.0]} for n in range(20))
        notes.search(vector=[1.0, 2.0])
        db.checkpoint()
        db.compact()
        assert_sound(db)


# -- who may read it -------------------------------------------------------------------------


def test_a_new_database_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "t.amber"
    fill(path)
    found = modes(path)
    assert {"LOCK", "MANIFEST", "STATUS", "data-2/data.mdb", "data-2/lock.mdb", "segment"} <= {
        *found
    }
    for name, mode in found.items():
        assert mode == (0o700 if (path / name).is_dir() else 0o600), name


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o770, 0o2770])
def test_the_files_in_a_users_own_folder_are_for_those_who_may_enter_it(
    tmp_path: Path, mode: int, umask: int
) -> None:
    path = tmp_path / "own"
    path.mkdir()
    path.chmod(mode)
    fill(path)
    for name, found in modes(path).items():
        if name == ".":
            assert found == mode
        elif name == "LOCK":
            assert found & ~umask == (0o600 | (mode & 0o020) | (mode & 0o020) << 1) & ~umask
        elif (path / name).is_dir():
            assert found & 0o777 == mode & 0o777 & ~umask, name
        else:
            assert found == mode & 0o666 & ~umask, name


def test_a_lock_file_that_strangers_could_hold_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    open_at(path).close()
    (path / "LOCK").chmod(0o644)
    with open_at(path) as db:
        assert stat.S_IMODE((path / "LOCK").stat().st_mode) == 0o600
        assert_sound(db)


def test_backups_are_private_wherever_they_are(tmp_path: Path) -> None:
    with open_at(tmp_path / "t.amber", backups=amberdb.RollingBackups()) as db:
        db.collection("n").put({"id": "a"})
        report = db.backup(tmp_path / "b")
        rolled = Path(db.backup().path)
        assert_sound(db)
    assert stat.S_IMODE(Path(report.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(rolled.stat().st_mode) == 0o600
    assert stat.S_IMODE(rolled.parent.stat().st_mode) == 0o700
    amberdb.restore(tmp_path / "b", tmp_path / "r.amber", **SMALL)
    assert modes(tmp_path / "r.amber")["."] == 0o700


# -- in place --------------------------------------------------------------------------------


def test_an_empty_folder_is_filled_in_place(tmp_path: Path) -> None:
    path = tmp_path / "own"
    path.mkdir()
    (path / "lost+found").mkdir()  # as in the root of a file system
    inode = path.stat().st_ino
    fill(path)
    assert path.stat().st_ino == inode
    assert [each.name for each in tmp_path.iterdir()] == ["own"]


def test_links_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for target in ("real", "later"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        fill(link)
        assert link.is_symlink()
        assert (tmp_path / target / "MANIFEST").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_mount_point_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("no mounts here")
    try:
        fill(path)
        fill(path)
        assert [each.name for each in tmp_path.iterdir()] == ["volume"]
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_database_beside_it_is_left_alone_whatever_its_name(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    for name in ("t.amber.tmp", "b.tmp", "r.amber.tmp", "t.amber.restored"):
        open_db(name).collection("n").put({"id": name})
    (tmp_path / "c.tmp").write_bytes(b"mine")
    db = open_db("t.amber")
    db.collection("n").put({"id": "a"})
    db.backup(tmp_path / "b")
    db.backup(tmp_path / "c")
    amberdb.restore(tmp_path / "b", tmp_path / "r.amber", **SMALL)
    assert (tmp_path / "c.tmp").read_bytes() == b"mine"
    for name in ("t.amber.tmp", "b.tmp", "r.amber.tmp", "t.amber.restored"):
        with amberdb.open(tmp_path / name, read_only=True, **SMALL) as reader:
            assert list(reader.collection("n")) == [name]


# -- creations that do not end ---------------------------------------------------------------


def test_an_unfinished_creation_counts_as_no_database_and_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    unfinished(path)
    for create, read_only in ((False, False), (True, True)):
        with pytest.raises(DatabaseMissingError):
            open_at(path, create=create, read_only=read_only)
    fill(path)
    assert "CREATING" not in os.listdir(path)


@pytest.mark.parametrize("mark", [b"", b"AMBERNEW", bytes(28), b"AMBERNEW" + bytes(20)])
def test_a_mark_that_is_not_ours_makes_nothing_removable(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "own"
    (path / "data-1").mkdir(parents=True)
    (path / "CREATING").write_bytes(mark)
    with pytest.raises(NotADatabaseError):
        open_at(path)
    assert sorted(os.listdir(path)) == ["CREATING", "data-1"]


def test_a_lost_manifest_is_damage_and_not_an_unfinished_creation(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    fill(path)
    (path / "MANIFEST").unlink()
    with pytest.raises(CorruptionError, match="MANIFEST is missing"):
        open_at(path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_creation_leaves_things_as_they_were(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "t.amber"
    if exists:
        path.mkdir()
    fs = FaultyFileSystem()
    fs.arm()
    open_at(tmp_path / "counted", fs=fs).close()
    for at in range(1, fs.counted):
        fs.arm(fail_at=at, code=errno.EIO)
        try:
            open_at(path, fs=fs).close()
        except amberdb.AmberError:
            pass
        fs.disarm()
        if "MANIFEST" in (os.listdir(path) if path.exists() else ()):
            shutil.rmtree(path)
            if exists:
                path.mkdir()
        elif exists:
            assert os.listdir(path) == []
        else:
            assert not path.exists()


def test_who_waits_for_a_creation_gets_the_database_or_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    errors: list[LockedError] = []

    def meanwhile(name: str) -> None:
        if name == "create.marked":
            with pytest.raises(LockedError) as caught:
                open_parts(str(path), Options(), create=True)  # as another process would
            errors.append(caught.value)

    failpoints.install(meanwhile)
    try:
        open_at(path).close()
    finally:
        failpoints.install(None)
    assert errors[0].pid == os.getpid()


class _Meanwhile(OsFileSystem):
    """Runs `other` once, before the call of number `at` (from 0) that looks for what exists."""

    def __init__(self, at: int, other: Callable[[], None]) -> None:
        self.left, self.other = at, other

    def _look(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.other()

    def exists(self, path: str) -> bool:
        self._look()
        return super().exists(path)

    def is_dir(self, path: str) -> bool:
        self._look()
        return super().is_dir(path)

    def listdir(self, path: str) -> list[str]:
        self._look()
        return super().listdir(path)

    def read(self, path: str) -> bytes:
        self._look()
        return super().read(path)


@pytest.mark.parametrize("end", [fill, shutil.rmtree])
def test_a_reader_that_comes_at_the_end_of_a_creation_sees_all_of_it_or_nothing(
    tmp_path: Path, end: Callable[[Path], None]
) -> None:
    """Another process completes the creation, or gives it up, between any two looks."""
    outcomes: list[bool] = []
    fs = None
    while fs is None or fs.left < 0:  # until the creation ends after the last look
        path = tmp_path / f"{len(outcomes)}.amber"
        unfinished(path)
        fs = _Meanwhile(len(outcomes), partial(end, path))
        try:
            with open_at(path, read_only=True, fs=fs) as db:
                outcomes.append(len(db.collection("n")) == 20)
        except DatabaseMissingError:
            outcomes.append(False)
    assert len(outcomes) > 4
    assert any(outcomes) == (end is fill)


def test_a_lock_that_is_removed_while_another_waits_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner removes it, with a creation that failed, just when the other has opened it."""
    fs, path = OsFileSystem(), str(tmp_path / "LOCK")
    first = fs.lock(path, "1 here")
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        if os.path.exists(path) and first.is_in_place():
            os.unlink(path)
            first.close()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = fs.lock(path, "2 here")
    assert not first.is_in_place()
    assert second.is_in_place()
    with pytest.raises(BlockingIOError):
        fs.lock(path, "3 here")
    second.close()


def test_a_restore_that_did_not_end_is_not_taken_for_an_empty_database(tmp_path: Path) -> None:
    with open_at(tmp_path / "t.amber") as db:
        db.collection("n").put({"id": "a"})
        db.backup(tmp_path / "b")
        assert_sound(db)
    target = tmp_path / "r.amber"
    target.mkdir()
    with pytest.raises(Killed):
        amberdb.restore(tmp_path / "b", target, **SMALL, fs=dying_at("wal"))
    with pytest.raises(amberdb.OpenError, match=r"a restore into .* did not end"):
        open_at(target)
    amberdb.restore(tmp_path / "b", target, **SMALL)
    with open_at(target) as db:
        assert list(db.collection("n")) == ["a"]
        assert_sound(db)
