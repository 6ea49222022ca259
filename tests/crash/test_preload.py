"""Power loss inside of LMDB's commits: sweeps over the recorded system calls of a whole process, a
slice of `make sweep ARGS=--preload`. And the proof of the recorder: it misses nothing, and sees
what the seam cannot."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from amberdb import AmberError
from support import slices
from support.bugs import INSIDE_LMDB, Bug
from support.calls import every_call
from support.databases import audited
from support.disk import Disk
from support.images import MODES
from support.preload import PreloadRecorder, check_complete, why_not
from support.sweep import Figures, Lost, Sweep
from support.trace import (
    Create,
    Image,
    Mkdir,
    Rename,
    Rmdir,
    Sync,
    SyncDir,
    Trace,
    Truncate,
    Unlink,
    Write,
)
from support.workload import (
    ALPHABET,
    NAME,
    OPTIONS,
    STORE_ALPHABET,
    Documents,
    Recorder,
    prepare,
)

STEPS = {**ALPHABET, **STORE_ALPHABET}
SLICES = (
    ("overwrite", "delete", "checkpoint", "burst", "checkpoint", "reopen"),
    ("index", "burst", "purge", "checkpoint"),
)
CAUGHT = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


@pytest.fixture(scope="module")
def recorder() -> Generator[PreloadRecorder]:
    with PreloadRecorder() as found:
        yield found


def sweep(names: tuple[str, ...], recorder: Recorder | None, variants: int = 2) -> Figures:
    figures = Figures()
    steps = [prepare, *(STEPS[name] for name in names)]
    Sweep(figures, "+".join(names), steps, variants=variants, recorder=recorder).run(
        recoveries=0.02
    )
    return figures


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("grow", "index", "reopen", "shrink"), marks=pytest.mark.campaign),
        ("crowd_at_checkpoints", "purge"),
    ],
)
def test_power_loss_inside_of_commits_of_lmdb(
    recorder: PreloadRecorder, names: tuple[str, ...]
) -> None:
    figures = sweep(names, recorder, variants=1)
    assert figures.inside > 5
    assert all(figures.images[mode] for mode in MODES), figures.line()


def test_every_call_is_recorded(recorder: PreloadRecorder, tmp_path: Path) -> None:
    """Each trace is compared, when it is made, with the directory that it should lead to."""
    trace = recorder.record(tmp_path.resolve(), every_call)
    kinds = {type(op) for op in trace.ops}
    assert kinds == {Create, Mkdir, Write, Truncate, Sync, SyncDir, Rename, Unlink, Rmdir}
    assert sum(isinstance(op, Sync) and op.pages is not None for op in trace.ops) == 2
    assert any(isinstance(op, Write) and op.is_mapped for op in trace.ops)


def test_a_missing_operation_does_not_go_unseen(recorder: PreloadRecorder, tmp_path: Path) -> None:
    root = tmp_path.resolve()
    trace = recorder.record(root, every_call)
    check_complete(trace, root)
    inodes = Disk.after(trace).live_files().values()
    assert len(inodes) > 3
    for inode in inodes:
        writes = [
            at for at, op in enumerate(trace.ops) if isinstance(op, Write) and op.inode == inode
        ]
        ops = [op for at, op in enumerate(trace.ops) if at != max(writes)]
        with pytest.raises(AssertionError):
            check_complete(Trace(trace.base, trace.inodes, ops), root)


def test_a_meta_page_of_lmdb_that_is_torn(recorder: PreloadRecorder, tmp_path: Path) -> None:
    """It is written within one sector, which no power loss tears. Torn from the front all the
    same, the other meta page serves, and the log completes it."""
    root = tmp_path.resolve()
    steps = [prepare, *(STEPS[name] for name in ("grow", "index", "burst", "checkpoint"))]
    recording = recorder.workload(root, 1, steps)
    trace = recording.trace
    disk = Disk(trace)
    metas = 0
    for at, op in enumerate(trace.ops):
        before = disk.files[op.inode].pending[:] if isinstance(op, Write) else []
        disk.apply(op)
        if not _is_meta_write(trace, at):
            continue
        assert isinstance(op, Write)
        assert op.offset % 4096 + len(op.data) <= 512
        assert not before, "the pages were to be durable before the meta page"
        metas += 1
        for size in range(0, len(op.data), 24):
            torn = bytearray(disk.files[op.inode].durable)
            torn[op.offset : op.offset + size] = op.data[:size]
            image = disk.image(disk.changes, {op.inode: bytes(torn)})
            if NAME + "/MANIFEST" in image.files:
                assert _documents(image, tmp_path / "image") in recording.states
    assert metas > 5


def _is_meta_write(trace: Trace, at: int) -> bool:
    later = trace.ops[at + 1] if at + 1 < len(trace.ops) else None
    return isinstance(later, Sync) and later.pages is not None


def _documents(image: Image, root: Path) -> Documents:
    image.write_to(root)
    try:
        with audited(root / NAME, **OPTIONS) as db:
            return {
                (name, doc["id"]): doc
                for name in db.collections()
                for doc in db.collection(name).documents()
            }
    finally:
        shutil.rmtree(root)


# -- the proof ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slices.parameters(len(INSIDE_LMDB), INSIDE_LMDB))
def test_a_bug_inside_of_lmdb_is_caught(name: str) -> None:
    """In a process of its own, since pages that were lost can end it inside LMDB."""
    found = _exit_of(_swept_below, INSIDE_LMDB[name])
    assert found == CAUGHT or found < 0
    assert _exit_of(_swept_at_the_seam, INSIDE_LMDB[name]) == 0


def _exit_of(sweeps: Callable[[Bug], None], bug: Bug) -> int:
    """CAUGHT, 0, or the negative number of the signal that ended it."""
    process = multiprocessing.get_context("fork").Process(target=_judge, args=(sweeps, bug))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _judge(sweeps: Callable[[Bug], None], bug: Bug) -> None:
    try:
        sweeps(bug)
    except (Lost, AmberError):
        sys.exit(CAUGHT)


def _swept_below(bug: Bug) -> None:
    with PreloadRecorder(bug) as broken:
        for names in SLICES:
            sweep(names, broken)


def _swept_at_the_seam(bug: Bug) -> None:
    with bug():
        for names in SLICES:
            sweep(names, None, variants=1)
