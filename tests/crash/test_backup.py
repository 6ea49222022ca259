"""Interrupted backups and restores: the final name never has an incomplete file.

Power loss is simulated after every operation on the file system, and each operation fails in turn.
"""

import contextlib
import errno
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

import amberdb
from amberdb import AmberError, Database, DiskFullError, RollingBackups, Text
from amberdb._fs import FileSystem
from amberdb.engine.backup import backup
from amberdb.engine.storage import tree_file
from amberdb.wal import segment
from support import slices
from support.databases import SMALL, FakeClock, assert_sound, audited
from support.disk import Disk
from support.faulty_fs import KINDS, FaultyFileSystem, fail_on
from support.images import MODES, Mode, images
from support.recorder import RecordingFileSystem
from support.reference import Doc
from support.trace import Trace, TraceBuilder
from unit.engine.pages import PAGE
from unit.wal.helpers import join_preparation

Documents = dict[str, Doc]
CHAIN = ("full", "later")


def documents(db: Database) -> Documents:
    return {doc["id"]: doc for doc in db.collection("n").documents()}


def fill(db: Database, numbers: range) -> None:
    notes = db.collection("n", indexes=[Text("text")])
    for n in numbers:
        notes.put({"id": f"{n}", "text": f"umbrella {n} " + "x" * 500})


def make_chain(directory: Path) -> Documents:
    with audited(directory / "t.amber") as db:
        fill(db, range(8))
        db.backup(directory / "full")
        fill(db, range(8, 12))
        db.backup(directory / "later", base=directory / "full")
        return documents(db)


def recorded(root: Path, work: Callable[[RecordingFileSystem], None]) -> Trace:
    builder = TraceBuilder(root)
    fs = RecordingFileSystem(builder)
    with fs.stores(), patch.object(segment, "_FILL_SIZE", 2048):
        work(fs)
        join_preparation()
    fs.note(b"done")
    return builder.trace


def crashed(trace: Trace, root: Path, step: int = 1) -> Iterator[tuple[int, Mode]]:
    """Yields (operation, mode) for every crash; its disk image is at `root` meanwhile. In a slice
    only each `step`-th operation, and the last one."""
    disk = Disk(trace)
    last = len(trace.ops) - 1
    points = {*slices.every(step, range(last)), last}
    for at, op in enumerate(trace.ops):
        disk.apply(op)
        for mode in MODES if at in points else ():
            for image in images(disk, mode, random.Random(f"{at}/{mode}"), 2):
                image.write_to(root)
                try:
                    yield at, mode
                finally:
                    shutil.rmtree(root)


def sweep(
    trace: Trace, root: Path, judge: Callable[[Path, bool], bool], step: int = 1
) -> tuple[int, int]:
    """Judges every image. `judge(root, is_end)` returns whether the result was complete, which it
    must be at the end of the trace. Returns (images with it, images without it)."""
    seen = [0, 0]
    for at, mode in crashed(trace, root, step):
        try:
            seen[judge(root, at == len(trace.ops) - 1)] += 1
        except AssertionError as error:
            raise AssertionError(f"operation {at}, {trace.ops[at]}, {mode}") from error
    return seen[1], seen[0]


# -- power loss ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("base", [None, "full"])
def test_a_backup_is_whole_or_not_there(tmp_path: Path, base: str | None) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make_chain(root)
    wanted: list[Documents] = []

    def work(fs: FileSystem) -> None:
        with amberdb.open(root / "t.amber", **SMALL, fs=fs) as db:
            fill(db, range(20, 24))
            wanted.append(documents(db))
            with (
                patch.object(backup, "BLOCK_BYTES", 1000),
                patch.object(tree_file, "PAGES_BYTES", PAGE),
            ):
                db.backup(root / "new", base=root / "later" if base else None)

    def judge(image: Path, is_done: bool) -> bool:
        if not (image / "new").exists():
            assert not is_done
            return False
        chain = [image / name for name in CHAIN] if base else []
        amberdb.verify_backup([*chain, image / "new"])
        return True

    trace = recorded(root, work)
    there, missing = sweep(trace, tmp_path / "image", judge, step=2)
    assert there > slices.size(20, 10)
    assert missing > slices.size(50, 25)
    target = tmp_path / "r.amber"
    amberdb.restore([*([root / n for n in CHAIN] if base else []), root / "new"], target, **SMALL)
    with audited(target) as db:
        assert documents(db) == wanted[0]


@pytest.mark.slow
@pytest.mark.sliced
def test_rolling_backups_are_whole_and_none_is_without_its_base(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    schedule = RollingBackups(keep_hourly=1, keep_daily=1)
    clock = FakeClock()

    def work(fs: FileSystem) -> None:
        with amberdb.open(root / "t.amber", **SMALL, fs=fs, clock=clock, backups=schedule) as db:
            for number in range(6):
                fill(db, range(number, number + 3))
                if number == 3:
                    db.compact()
                clock.advance(40 * 60)
                db.backup()

    def judge(image: Path, is_done: bool) -> bool:
        folder = image / "t.amber.backups"
        found = [amberdb.verify_backup(path)[0] for path in folder.glob("*.amberbak")]
        ends = {report.lsn for report in found}
        assert all(report.is_full or report.after_lsn in ends for report in found)
        assert found or not is_done
        return bool(found)

    there, missing = sweep(recorded(root, work), tmp_path / "image", judge, step=5)
    assert there > slices.size(100, 20)
    assert missing > slices.size(20, 4)
    assert len(list((root / "t.amber.backups").iterdir())) < 6


@pytest.mark.slow
@pytest.mark.sliced
def test_a_restored_database_is_whole_or_not_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    wanted = make_chain(root)
    shutil.rmtree(root / "t.amber")
    chain = [root / name for name in CHAIN]

    def judge(image: Path, is_done: bool) -> bool:
        target = image / "r.amber"
        is_there = target.exists()
        assert is_there or not is_done
        if not is_there:  # leftovers do not block another try
            amberdb.restore([image / name for name in CHAIN], target, **SMALL)
        with amberdb.open(target, create=False, **SMALL) as db:
            assert documents(db) == wanted
            assert_sound(db)
            assert db.recovery is None
        assert not [path for path in image.iterdir() if path.name.endswith(".tmp")]
        return is_there

    trace = recorded(root, lambda fs: restore(chain, root / "r.amber", fs))
    there, missing = sweep(trace, tmp_path / "image", judge, step=2)
    assert there > 1
    assert missing > slices.size(50, 25)


def restore(chain: list[Path], target: Path, fs: FileSystem) -> None:
    amberdb.restore(chain, target, **SMALL, fs=fs)


def test_what_is_renamed_was_synced_before(tmp_path: Path) -> None:
    """LMDB bypasses our file system, so its sync is found by its name."""
    make_chain(tmp_path)
    fs = FaultyFileSystem()
    restore([tmp_path / name for name in CHAIN], tmp_path / "r.amber", fs)
    calls = fs.calls
    marked, named = calls.index(("rename", "CREATING")), calls.index(("rename", "MANIFEST"))
    synced = calls.index(("sync", "data.mdb"))
    assert marked < calls.index(("sync_dir", "r.amber.tmp")) < synced
    assert synced < calls.index(("sync_dir", "data-1"), synced) < named
    unmarked, renamed = calls.index(("unlink", "CREATING")), calls.index(("rename", "r.amber"))
    assert named < calls.index(("sync_dir", "r.amber.tmp"), named) < unmarked < renamed
    assert calls[renamed + 1] == ("sync_dir", tmp_path.name)


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_backup_that_fails_anywhere_leaves_nothing_and_can_be_taken_again(
    tmp_path: Path, lasting: bool
) -> None:
    fs = FaultyFileSystem()
    with audited(tmp_path / "t.amber", fs=fs) as db:
        fill(db, range(8))
        db.sync()
        db.checkpoint()
        at, is_done = 0, False
        while not is_done:
            at += 1
            target = tmp_path / f"b{at}"
            fs.hook = fault_at(fs, at, target, lasting)
            try:
                db.backup(target)
                is_done = True
            except AmberError:
                assert lasting or not list(tmp_path.glob(f"{target.name}*"))
                if target.exists():  # it was renamed, and could be neither synced nor removed
                    assert amberdb.verify_backup(target)
                    target.unlink()
            fs.hook = None
        assert at > 6
        for number in range(1, at):
            db.backup(tmp_path / f"b{number}")  # whatever could not be removed
        assert len(amberdb.verify_backup(tmp_path / f"b{at}")) == 1


def fault_at(
    fs: FaultyFileSystem, at: int, target: Path, lasting: bool
) -> Callable[[str, str], None]:
    """The call with this number, of those on the backup's file or its directory."""
    count = 0

    def hook(kind: str, path: str) -> None:
        nonlocal count
        if Path(path).name.startswith(target.name) or Path(path) == target.parent:
            count += 1
            if count == at or (lasting and count > at):
                raise OSError(errno.EIO, "fault", path)

    return hook


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    fs = FaultyFileSystem()
    full = OSError(errno.ENOSPC, "no space")
    with audited(tmp_path / "t.amber", fs=fs) as db:
        fill(db, range(8))
        fs.hook = fail_on("pwrite", "b.tmp", full)
        with pytest.raises(DiskFullError):
            db.backup(tmp_path / "b")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t.amber"]
        fs.hook = None
        db.backup(tmp_path / "b")
        fs.hook = fail_on("pwrite", "MANIFEST.tmp", full)
        with pytest.raises(DiskFullError):
            restore([tmp_path / "b"], tmp_path / "r.amber", fs)
        fs.hook = None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "t.amber"]


@pytest.mark.slow
def test_a_restore_that_fails_anywhere_leaves_nothing_and_can_be_run_again(tmp_path: Path) -> None:
    wanted = make_chain(tmp_path)
    chain = [tmp_path / name for name in CHAIN]
    target = tmp_path / "r.amber"
    at, is_done = 0, False
    while not is_done:
        at += 1
        fs = FaultyFileSystem()
        fs.arm(KINDS, at)
        with contextlib.suppress(AmberError):
            restore(chain, target, fs)
        is_done = not fs.failed
        names = {path.name for path in tmp_path.iterdir()}
        if "r.amber" not in names:
            assert fs.failed
            restore(chain, target, FaultyFileSystem())
        with audited(target) as db:
            assert documents(db) == wanted, f"failed at call {at}: {fs.failed}"
        shutil.rmtree(target)
    assert at > 15


# -- kills ---------------------------------------------------------------------------------------


def keep_and_bring_back(root: Path, fs: FileSystem, reached: Callable[[], None]) -> None:
    """Takes two backups and restores them; skips the parts that exist already."""

    def progress(what: str, count: int) -> None:
        reached()

    new, more = root / "new", root / "more"
    with amberdb.open(root / "t.amber", **SMALL, fs=fs) as db:
        if not new.exists():
            db.backup(new, progress=progress)
        if not more.exists():
            db.collection("n").put({"id": "more"})
            db.backup(more, base=new, progress=progress)
    if not (root / "r.amber").exists():
        amberdb.restore([new, more], root / "r.amber", progress=progress, **SMALL, fs=fs)


def killed(root: Path, at: int) -> bool:
    """Whether a child process reached this call, or call of progress, and was killed there."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def reached(*_: str) -> None:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with (
                patch.object(backup, "BLOCK_BYTES", 2000),
                patch.object(tree_file, "PAGES_BYTES", PAGE),
            ):
                keep_and_bring_back(root, FaultyFileSystem(hook=reached), reached)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_killed_anywhere_leaves_what_can_be_gone_on_with(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wanted: Documents = {**make_chain(source), "more": {"id": "more"}}
    join_preparation()
    root, at = tmp_path / "root", 0
    while True:
        at += slices.size(1, 4)
        shutil.copytree(source, root)
        if not killed(root, at):
            break
        chain = [path for path in (root / "new", root / "more") if path.exists()]
        if chain:
            amberdb.verify_backup(chain)
        keep_and_bring_back(root, FaultyFileSystem(), lambda: None)
        with audited(root / "r.amber") as db:
            assert documents(db) == wanted, at
        shutil.rmtree(root)
    assert at > 80
