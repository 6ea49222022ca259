"""Spare files for the next segments: prepared ahead, or recycled.

Invariants:
- A spare file is named `free-<n>.seg`. Its content means nothing: a header with a new salt is
  written before its name changes.
- At most one short-lived thread prepares a file at any time; `take` tries again in the foreground
  when the thread failed, or could not be started.
- No more than `capacity` recycled files are kept, one while the log is idle, and none while
  `set_capacity(0)` holds.
- A file that take() has returned is removed by nobody else.
"""

import os
import re
import threading

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import ReplacedError
from amberdb._fs import FileSystem
from amberdb._worker import started
from amberdb.wal.segment import create_zeroed, discard

_NAME = re.compile(r"free-([0-9]+)\.seg")


def is_spare(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


class SegmentPool:
    """The spare files of one log directory. Thread-safe."""

    def __init__(self, fs: FileSystem, directory: str, capacity: int) -> None:
        self._fs = fs
        self._directory = directory
        self._capacity = capacity
        self._mutex = CallLock()
        self._spare: dict[str, int] = {}  # path -> bytes
        self._recycled: set[str] = set()
        self._taken: str | None = None
        self._number = 0
        self._worker: threading.Thread | None = None
        self._closed = False

    def adopt(self, name: str) -> None:
        """Takes over a file found at open. Its content is unknown, so it counts as recycled."""
        path = os.path.join(self._directory, name)
        match = _NAME.fullmatch(name)
        assert match is not None
        self._number = max(self._number, int(match[1]) + 1)
        if len(self._spare) >= self._capacity:
            discard(self._fs, path)
            return
        file = self._fs.open(path, read_only=True)
        try:
            self._spare[path] = file.size()
        finally:
            file.close()
        self._recycled.add(path)

    def count(self) -> int:
        return len(self._spare)

    def size_bytes(self) -> int:
        with self._mutex:
            return sum(self._spare.values())

    def take(self, size: int) -> tuple[str, int, bool]:
        """A spare file of at least `size` bytes: path, bytes, whether it was used before.

        It stays spare until `mark_used` is called. Raises OSError when no file can be made.
        """
        worker = self._worker
        if worker is not None:
            worker.join()
            self._worker = None
        path = self._take(size)
        while path is not None and not self._fs.exists(path):  # its use was interrupted
            self.mark_used(path)
            path = self._take(size)
        if path is None:
            self._make(size)
            path = self._take(size)
            assert path is not None
        return path, self._spare[path], path in self._recycled

    def secure(self, size: int) -> None:
        """Makes a spare file of at least `size` bytes, in this thread, unless there is one. Raises
        OSError."""
        if self._find(size) is None:
            self._make(size)

    def mark_used(self, path: str) -> None:
        """The file is a segment now, under another name."""
        with self._mutex:
            self._spare.pop(path, None)
            self._recycled.discard(path)
            self._taken = None

    def trim(self) -> None:
        """Removes all spare files but one: the log is idle, and may stay so."""
        with self._mutex:
            ascending = sorted((size, path) for path, size in self._spare.items())
            paths = [path for _, path in ascending[:-1] if path != self._taken]
            for path in paths:
                del self._spare[path]
                self._recycled.discard(path)
        for path in paths:
            discard(self._fs, path)

    def recycle(self, path: str, size: int, useful: range) -> None:
        """Retires a segment: renamed to a spare file when its size is in `useful` and the pool has
        room, else removed. The change is durable on return. Raises OSError."""
        with self._mutex:
            keep = size in useful and len(self._spare) < self._capacity
            spare = self._next_path()
        if failpoints.on:
            failpoints.reach("checkpoint.recycling")
        if keep:
            self._fs.rename(path, spare)
        else:
            self._fs.unlink(path)
        if failpoints.on:
            failpoints.reach("checkpoint.recycled")
        self._fs.sync_dir(self._directory)
        if keep:
            with self._mutex:
                self._spare[spare] = size
                self._recycled.add(spare)

    def set_capacity(self, capacity: int) -> None:
        """Limits the number of recycled files from now on. 0 removes those that there are, and may
        raise OSError."""
        with self._mutex:
            self._capacity = capacity
            paths = [] if capacity else list(self._recycled)
            for path in paths:
                del self._spare[path]
                self._recycled.discard(path)
        for path in paths:
            self._fs.unlink(path)
        if paths:
            self._fs.sync_dir(self._directory)

    def prepare(self, size: int) -> None:
        """Prepares, in the background, a spare file of at least `size` bytes."""
        if self._find(size) is not None or self._worker is not None or self._closed:
            return
        worker = threading.Thread(
            target=self._prepare, args=(size,), name="amberdb-wal-prepare", daemon=True
        )
        if started(worker):
            self._worker = worker

    def close(self) -> None:
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.join()
            self._worker = None

    def _prepare(self, size: int) -> None:
        try:
            self._make(size)
        except (OSError, ReplacedError):
            pass  # `take` tries again in a thread that can raise it

    def _find(self, size: int) -> str | None:
        with self._mutex:
            return self._smallest(size)

    def _take(self, size: int) -> str | None:
        """_find(), and nobody removes the file until mark_used()."""
        with self._mutex:
            self._taken = self._smallest(size)
            return self._taken

    def _smallest(self, size: int) -> str | None:
        fits = [(bytes_, path) for path, bytes_ in self._spare.items() if bytes_ >= size]
        return min(fits)[1] if fits else None

    def _make(self, size: int) -> None:
        """Also removes files that are too small: segments grow with the log."""
        with self._mutex:
            outgrown = [path for path, bytes_ in self._spare.items() if bytes_ < size]
            for path in outgrown:
                del self._spare[path]
                self._recycled.discard(path)
            target = self._next_path()
        for path in outgrown:
            discard(self._fs, path)
        create_zeroed(self._fs, target, size)
        with self._mutex:
            self._spare[target] = size

    def _next_path(self) -> str:
        number = self._number
        self._number += 1
        return os.path.join(self._directory, f"free-{number}.seg")
