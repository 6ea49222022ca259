"""Records what a whole process does to its files, LMDB's own writes among it: a Recorder.

A worker process runs under support/preload.c, which is compiled on the spot and writes down every
call of libc that changes a file. Linux only.

    calls -> events, in the order of their effects -> a trace -> checked against the directory

Invariants:
- Every trace is complete: replayed, it gives byte for byte what the process left.
- A call that the events cannot express ends the process, or raises here; nothing is passed over.
"""

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple, final
from unittest.mock import patch

from amberdb._fs import OsFileSystem
from support.disk import PAGE, Disk
from support.trace import (
    Image,
    Mkdir,
    Note,
    Rmdir,
    Sync,
    SyncDir,
    Trace,
    TraceBuilder,
    Truncate,
    Write,
)
from support.workload import MigrationStep, Recording, Workload, reopen_image

SOURCE: Final = Path(__file__).with_suffix(".c")
# number, covers, a, b, descriptor, kind, size of text, size of data
_EVENT: Final = struct.Struct("=QQqqiIII")
assert _EVENT.size == 48


def why_not() -> str | None:
    """The reason why this machine cannot record, to skip with."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return "the recorder of system calls is for 64-bit Linux"
    if shutil.which("cc") is None:
        return "no C compiler (cc) to build the recorder of system calls with"
    return None


def compiled(directory: Path) -> Path:
    """The library, made in a directory, for LD_PRELOAD."""
    library = directory / "preload.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-pthread", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library


@final
class PreloadRecorder(AbstractContextManager["PreloadRecorder"]):
    """One worker process that records, one request after the other."""

    def __init__(self, bug: Callable[[], AbstractContextManager[Any]] | None = None) -> None:
        """`bug` is a patch that the worker runs with."""
        self._scratch = Path(tempfile.mkdtemp()).resolve()
        library = compiled(self._scratch)
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_begin, initargs=(bug,)
        )
        with patch.dict(os.environ, LD_PRELOAD=str(library)):
            self._pool.submit(os.getpid).result()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        shutil.rmtree(self._scratch)

    def record(self, root: Path, act: Callable[[Path], None]) -> Trace:
        """Of act(root), a function that the worker can import."""
        return self._pool.submit(_recorded, TraceBuilder(root), root, partial(act, root)).result()

    def workload(self, root: Path, seed: int, steps: list[MigrationStep]) -> Recording:
        return self._pool.submit(_workload, root, seed, steps).result()

    def opening(self, builder: TraceBuilder, root: Path, served: int, now: float) -> Trace:
        return self._pool.submit(_opening, builder, root, served, now).result()


# -- in the worker -----------------------------------------------------------------------------

_patches: Final = ExitStack()


def _begin(bug: Callable[[], AbstractContextManager[Any]] | None) -> None:
    if bug is not None:
        _patches.enter_context(bug())


def _workload(root: Path, seed: int, steps: list[MigrationStep]) -> Recording:
    work = Workload(root, seed, _note)
    return work.recording(_recorded(TraceBuilder(root), root, partial(work.run, steps)))


def _opening(builder: TraceBuilder, root: Path, served: int, now: float) -> Trace:
    act = partial(reopen_image, root, served, now, _note, OsFileSystem())
    return _recorded(builder, root, act)


def _note(data: bytes) -> None:
    ctypes.CDLL(None).trace_note(data, ctypes.c_size_t(len(data)))


def _recorded(builder: TraceBuilder, root: Path, act: Callable[[], None]) -> Trace:
    library = ctypes.CDLL(None)
    with tempfile.NamedTemporaryFile() as log:
        library.trace_begin(os.fsencode(root), os.fsencode(log.name))
        try:
            act()
        finally:
            library.trace_end()
        events = log.read()
    reader = _Reader(builder)
    for event in _events(events):
        reader.take(event)
    check_complete(builder.trace, root)
    return builder.trace


def check_complete(trace: Trace, root: Path) -> None:
    """Raises AssertionError when the trace does not lead to what is in the directory."""
    disk = Disk.after(trace)
    replayed, found = disk.image(disk.changes, {}), Image.read_from(root)
    assert replayed.directories == found.directories
    assert replayed.files.keys() == found.files.keys()
    differ = [path for path, data in found.files.items() if data != replayed.files[path]]
    assert not differ, f"what was recorded does not lead to the content of {differ}"


class _Event(NamedTuple):
    number: int
    covers: int
    a: int
    b: int
    fd: int
    kind: str
    text: str
    data: bytes


def _events(log: bytes) -> Iterator[_Event]:
    at = 0
    while at < len(log):
        number, covers, a, b, fd, kind, text_size, data_size = _EVENT.unpack_from(log, at)
        middle = at + _EVENT.size + text_size
        text = os.fsdecode(log[at + _EVENT.size : middle])
        at = middle + data_size
        yield _Event(number, covers, a, b, fd, chr(kind), text, log[middle:at])


@dataclass
class _Descriptor:
    inode: int | None
    """None for a directory."""
    path: str
    is_synchronous: bool
    """A write is durable on return."""


@final
class _Reader:
    """Knows what the descriptors stand for, and turns events into operations."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._descriptors: dict[int, _Descriptor] = {}
        self._regions: dict[int, tuple[int, int]] = {}
        """(inode, offset in the file)"""
        self._counts: dict[int, int] = {}
        """By number of an event: the operations before it."""

    def take(self, event: _Event) -> None:
        builder = self._builder
        self._counts[event.number] = self._count
        match event.kind:
            case "o":
                self._opened(event)
            case "c":
                self._descriptors.pop(event.fd, None)
            case "d":
                self._descriptors[event.a] = self._descriptors[event.fd]
            case "w":
                self._written(event)
            case "t":
                builder.add(Truncate(self._inode(event), event.a))
            case "s":
                self._synced(event)
            case "M":
                self._regions[event.b] = (self._inode(event), event.a)
            case "m":
                inode, offset = self._regions[event.b]
                builder.add(Write(inode, offset + event.a, event.data, is_mapped=True))
            case "k":
                builder.add(Mkdir(builder.name(event.text)))
            case "D":
                builder.add(Rmdir(builder.name(event.text)))
            case "u":
                builder.unlinked(event.text)
            case "r":
                builder.renamed(event.text, os.fsdecode(event.data))
            case "n":
                builder.add(Note(event.data))
            case _:
                raise NotImplementedError(f"event {event}")

    @property
    def _count(self) -> int:
        return len(self._builder.trace.ops)

    def _inode(self, event: _Event) -> int:
        inode = (
            self._builder.inodes[self._builder.name(event.text)]
            if event.text
            else self._descriptors[event.fd].inode
        )
        assert inode is not None
        return inode

    def _opened(self, event: _Event) -> None:
        name = self._builder.name(event.text)
        inode = self._builder.created(event.text) if event.b else self._builder.inodes.get(name)
        synchronous = bool(event.a & (os.O_DSYNC | os.O_SYNC))
        self._descriptors[event.fd] = _Descriptor(inode, event.text, synchronous)
        if event.a & os.O_TRUNC and inode is not None and not event.b:
            self._builder.add(Truncate(inode, 0))

    def _written(self, event: _Event) -> None:
        inode = self._inode(event)
        self._builder.add(Write(inode, event.a, event.data))
        if self._descriptors[event.fd].is_synchronous:
            first, end = event.a // PAGE, -(-(event.a + len(event.data)) // PAGE)
            self._builder.add(Sync(inode, self._count, (first, end - first)))

    def _synced(self, event: _Event) -> None:
        covers = self._counts.get(event.covers, self._count)
        found = self._descriptors[event.fd]
        if found.inode is None:
            self._builder.add(SyncDir(self._builder.name(found.path), covers))
        else:
            self._builder.add(Sync(found.inode, covers))
