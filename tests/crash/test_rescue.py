"""Interrupted automatic restores: neither the damaged database nor its backup is ever lost, and the
next open completes the restore."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import AmberError, RollingBackups
from amberdb._fs import FileSystem
from crash.test_backup import documents, fill, recorded, sweep
from support import slices
from support.databases import SMALL, FakeClock, assert_sound
from support.faulty_fs import KINDS, FaultyFileSystem
from unit.wal.helpers import join_preparation

SCRAP = b"all that is left"


def damaged(root: Path) -> dict[str, Any]:
    """A database whose data.mdb is scrap. Returns its documents: nine are in its backups, and one
    is in its log alone."""
    with amberdb.open(root / "t.amber", **SMALL, backups=RollingBackups()) as db:
        fill(db, range(6))
        db.backup()
        fill(db, range(6, 9))
        db.backup()
        fill(db, range(9, 10))
        wanted = documents(db)
    (data,) = (root / "t.amber").glob("data-*/data.mdb")
    data.write_bytes(SCRAP)
    return wanted


def rescue(root: Path, fs: FileSystem) -> bool:
    """Opens the database. Returns whether this open has restored it."""
    options: dict[str, Any] = {**SMALL, "backups": RollingBackups(), "on_damage": "restore"}
    with amberdb.open(root / "t.amber", **options, fs=fs, clock=FakeClock()) as db:
        return db.rescue is not None


def judge(root: Path, wanted: dict[str, Any]) -> None:
    """After any interruption an open restores backup and log, and the scrap is kept."""
    rescue(root, FaultyFileSystem())
    with amberdb.open(root / "t.amber", create=False, **SMALL) as db:
        assert documents(db) == wanted
        assert_sound(db)
    kept = [path.read_bytes() for path in root.glob("t.amber.damaged-*/data-*/data.mdb")]
    assert kept == [SCRAP]
    assert not list(root.glob("t.amber.*.tmp"))
    for path in root.glob("t.amber.backups/*.amberbak"):
        amberdb.verify_backup(path)


@pytest.mark.slow
@pytest.mark.sliced
def test_power_loss_at_any_step_loses_neither(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    wanted = damaged(root)

    def look(image: Path, is_done: bool) -> bool:
        data = list(image.glob("t.amber/data-*/data.mdb"))
        is_there = bool(data) and all(path.read_bytes() != SCRAP for path in data)
        judge(image, wanted)
        return is_there

    def work(fs: FileSystem) -> None:
        assert rescue(root, fs)

    after, before = sweep(recorded(root, work), tmp_path / "image", look, step=3)
    assert before > slices.size(50, 16)
    assert after > slices.size(10, 3)


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_call_that_fails_anywhere_loses_neither(tmp_path: Path, lasting: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wanted = damaged(source)
    root, at, is_done = tmp_path / "root", 0, False
    while not is_done:
        at += slices.size(1, 3)
        shutil.copytree(source, root)
        fs = FaultyFileSystem()
        fs.arm(KINDS, at, lasting=lasting)
        with suppress(AmberError):
            rescue(root, fs)
        is_done = not fs.failed
        judge(root, wanted)
        shutil.rmtree(root)
    assert at > 30


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_call_loses_neither(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wanted = damaged(source)
    join_preparation()
    root, at = tmp_path / "root", 0
    while True:
        at += slices.size(1, 4)
        shutil.copytree(source, root)
        is_killed = _killed(root, at)
        judge(root, wanted)
        shutil.rmtree(root)
        if not is_killed:
            break
    assert at > 30


def _killed(root: Path, at: int) -> bool:
    pid = os.fork()
    if pid == 0:
        count = 0

        def reached(*_: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            rescue(root, FaultyFileSystem(hook=reached))
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
