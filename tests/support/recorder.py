"""A file system at the seam that records what is done through it as a trace.

Invariants:
- An operation takes effect and is recorded under one lock, so the trace has them in their order;
  a sync runs outside of it, and covers what was recorded when it began.
- LMDB's file is written behind the seam: each commit of the store is recorded as its whole
  content, durable at once, and files that it made are noticed when their directory is synced.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from unittest.mock import patch

from amberdb._fs import DirLock, File, OsFileSystem
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.store_writer import StoreWriter
from support.trace import (
    Content,
    Mkdir,
    Note,
    Op,
    Rmdir,
    Sync,
    SyncDir,
    Trace,
    TraceBuilder,
    Truncate,
    Write,
)
from support.workload import MigrationStep, Recording, Workload, reopen_image


class SeamRecorder:
    """Records in this process, at the file seam."""

    def workload(self, root: Path, seed: int, steps: list[MigrationStep]) -> Recording:
        builder = TraceBuilder(root)
        fs = RecordingFileSystem(builder)
        work = Workload(root, seed, fs.note, fs)
        with fs.stores():
            work.run(steps)
        return work.recording(builder.trace)

    def opening(self, builder: TraceBuilder, root: Path, served: int, now: float) -> Trace:
        fs = RecordingFileSystem(builder)
        with fs.stores():
            reopen_image(root, served, now, fs.note, fs)
        return builder.trace


class RecordingFileSystem:
    """Over a real directory; paths outside of it are not recorded."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._inner = OsFileSystem()
        self._mutex = threading.RLock()

    # -- what tests call ---------------------------------------------------------------------

    def note(self, data: bytes) -> None:
        self.add(Note(data))

    @contextlib.contextmanager
    def stores(self) -> Generator[None]:
        """While inside, commits of every store below the root are recorded."""
        write = Store.write

        @contextlib.contextmanager
        def recorded(store: Store) -> Generator[StoreWriter, None, None]:
            with write(store) as writer:
                yield writer
            self._content(store.path)

        with patch.object(Store, "write", recorded):
            yield

    # -- the seam ----------------------------------------------------------------------------

    def open(
        self, path: str, *, create: bool = False, read_only: bool = False, private: bool = False
    ) -> File:
        with self._mutex:
            inner = self._inner.open(path, create=create, read_only=read_only, private=private)
            if create:
                self._builder.created(path)
            return _RecordingFile(self, self._inode(path) or 0, inner)

    def read(self, path: str) -> bytes:
        return self._inner.read(path)

    def map(self, path: str) -> memoryview:
        return self._inner.map(path)

    def map_shared(self, path: str, *, writable: bool = False) -> memoryview:
        return self._inner.map_shared(path, writable=writable)

    def lock_shared(self, path: str) -> DirLock:
        return self._inner.lock_shared(path)

    def is_read_only(self, path: str) -> bool:
        return self._inner.is_read_only(path)

    def file_identity(self, path: str) -> tuple[int, ...]:
        return self._inner.file_identity(path)

    def exists(self, path: str) -> bool:
        return self._inner.exists(path)

    def is_dir(self, path: str) -> bool:
        return self._inner.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self._inner.listdir(path)

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        with self._mutex:
            self._inner.mkdir(path, like=like)
            self.add(Mkdir(self._builder.name(path)))

    def copy_access(self, source: str, target: str) -> None:
        self._inner.copy_access(source, target)

    def rmdir(self, path: str) -> None:
        with self._mutex:
            self._inner.rmdir(path)
            self.add(Rmdir(self._builder.name(path)))

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            self._inner.rename(source, target)
            self._builder.renamed(source, target)

    def unlink(self, path: str) -> None:
        with self._mutex:
            self._inner.unlink(path)
            self._builder.unlinked(path)

    def sync_dir(self, path: str) -> None:
        with self._mutex:
            self._notice(path)
            covers = self.count
        self._inner.sync_dir(path)
        self.add(SyncDir(self._builder.name(path), covers))

    def lock(self, path: str, owner: str) -> DirLock:
        with self._mutex:
            lock = self._inner.lock(path, owner)
            if self._inode(path) is None:
                self._builder.created(path)
            return lock

    def check_lock(self) -> None: ...

    def check_directory(self) -> None: ...

    # -- inside ------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Of the operations so far."""
        return len(self._builder.trace.ops)

    def add(self, op: Op) -> None:
        with self._mutex:
            self._builder.add(op)

    def effect(self, act: Callable[[], None], op: Op) -> None:
        with self._mutex:
            act()
            self._builder.add(op)

    def _inode(self, path: str) -> int | None:
        return self._builder.inodes.get(self._builder.name(path))

    def _notice(self, directory: str) -> None:
        """Files that are there without having been made through the seam."""
        for name in self._inner.listdir(directory):
            path = os.path.join(directory, name)
            if self._inode(path) is None and not self._inner.is_dir(path):
                self._builder.created(path)
                self._content(path)

    def _content(self, path: str) -> None:
        with self._mutex:
            inode = self._inode(path)
            if inode is not None:
                self.add(Content(inode, Path(path).read_bytes()))


class _RecordingFile:
    def __init__(self, fs: RecordingFileSystem, inode: int, inner: File) -> None:
        self._fs = fs
        self._inode = inode
        self._inner = inner

    def pread(self, size: int, offset: int) -> bytes:
        return self._inner.pread(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._fs.effect(
            lambda: self._inner.pwrite(data, offset), Write(self._inode, offset, bytes(data))
        )

    def sync(self) -> None:
        covers = self._fs.count
        self._inner.sync()
        self._fs.add(Sync(self._inode, covers))

    def truncate(self, size: int) -> None:
        self._fs.effect(lambda: self._inner.truncate(size), Truncate(self._inode, size))

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()
