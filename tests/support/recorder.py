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
from amberdb.engine.store import Store, StoreWriter
from support.trace import (
    Content,
    Create,
    Image,
    Mkdir,
    Note,
    Op,
    Rename,
    Rmdir,
    Sync,
    SyncDir,
    Trace,
    Truncate,
    Unlink,
    Write,
)


class RecordingFileSystem:
    """Over a real directory; paths outside of it are not recorded."""

    def __init__(self, root: Path, inodes: dict[str, int] | None = None) -> None:
        """`inodes` names the files that are there as an earlier trace did."""
        self._root = str(root)
        self._inner = OsFileSystem()
        self._mutex = threading.RLock()
        base = Image.read_from(root)
        names = enumerate(sorted(base.files))
        self._inodes = inodes or {path: number + 1 for number, path in names}
        self._next = max(self._inodes.values(), default=0) + 1
        self.trace = Trace(base, dict(self._inodes), [])

    # -- what tests call ---------------------------------------------------------------------

    def note(self, data: bytes) -> None:
        with self._mutex:
            self.trace.ops.append(Note(data))

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

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        with self._mutex:
            inner = self._inner.open(path, create=create, read_only=read_only)
            if create:
                self._created(path)
            return _RecordingFile(self, self._inodes.get(self._name(path), 0), inner)

    def read(self, path: str) -> bytes:
        return self._inner.read(path)

    def exists(self, path: str) -> bool:
        return self._inner.exists(path)

    def is_dir(self, path: str) -> bool:
        return self._inner.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self._inner.listdir(path)

    def mkdir(self, path: str) -> None:
        with self._mutex:
            self._inner.mkdir(path)
            self.add(Mkdir(self._name(path)))

    def rmdir(self, path: str) -> None:
        with self._mutex:
            self._inner.rmdir(path)
            self.add(Rmdir(self._name(path)))

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            self._inner.rename(source, target)
            old, new = self._name(source), self._name(target)
            for path in [p for p in self._inodes if p == old or p.startswith(old + "/")]:
                self._inodes[new + path[len(old) :]] = self._inodes.pop(path)
            self.add(Rename(old, new))

    def unlink(self, path: str) -> None:
        with self._mutex:
            self._inner.unlink(path)
            if self._inodes.pop(self._name(path), None) is not None:
                self.add(Unlink(self._name(path)))

    def sync_dir(self, path: str) -> None:
        with self._mutex:
            self._notice(path)
            covers = len(self.trace.ops)
        self._inner.sync_dir(path)
        self.add(SyncDir(self._name(path), covers))

    def lock(self, path: str, owner: str) -> DirLock:
        with self._mutex:
            lock = self._inner.lock(path, owner)
            if self._name(path) not in self._inodes:
                self._created(path)
            return lock

    # -- inside ------------------------------------------------------------------------------

    def add(self, op: Op) -> None:
        with self._mutex:
            self.trace.ops.append(op)

    def effect(self, act: Callable[[], None], op: Op) -> None:
        with self._mutex:
            act()
            self.trace.ops.append(op)

    def _name(self, path: str) -> str:
        found = os.path.relpath(path, self._root)
        return "" if found == "." else found

    def _created(self, path: str) -> None:
        self._inodes[self._name(path)] = self._next
        self.add(Create(self._name(path), self._next))
        self._next += 1

    def _notice(self, directory: str) -> None:
        """Files that are there without having been made through the seam."""
        for name in self._inner.listdir(directory):
            path = os.path.join(directory, name)
            if self._name(path) not in self._inodes and not self._inner.is_dir(path):
                self._created(path)
                self._content(path)

    def _content(self, path: str) -> None:
        with self._mutex:
            inode = self._inodes.get(self._name(path))
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
        covers = len(self._fs.trace.ops)
        self._inner.sync()
        self._fs.add(Sync(self._inode, covers))

    def truncate(self, size: int) -> None:
        self._fs.effect(lambda: self._inner.truncate(size), Truncate(self._inode, size))

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()
