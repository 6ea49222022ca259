"""A file system that fails on demand: the k-th call of one kind, or whatever a hook says.

Invariants:
- Calls that only read never fail here, and are not counted.
- What failed did nothing, except a `pwrite` with `torn` or Partial, which leaves some of its
  bytes, and a `sync` with `drops`.
- A sync that drops leaves the pages readable and marks them clean, as Linux does: the next sync
  succeeds and writes nothing of them. lose_power() shows what the device has.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from amberdb._fs import DirLock, File, FileSystem, OsFileSystem

KINDS = ("sync", "pwrite", "rename", "sync_dir", "open", "unlink", "truncate")
_PAGE = 4096

Hook: TypeAlias = Callable[[str, str], None]
"""Called with kind and path before each change; what it raises is the fault."""


class Partial(Exception):
    """Raised by a hook: write only so many bytes (None: half of them), then fail."""

    def __init__(self, size: int | None, error: OSError | None = None) -> None:
        self.size = size
        self.error = error


@dataclass
class _Cache:
    """One file's pages that the device does not have."""

    dirty: set[int] = field(default_factory=set[int])
    """Written since the last sync."""
    device: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """What the device has instead, by page."""


@dataclass
class FaultyFileSystem:
    """Fails call number `fail_at` (from 1) of the `kinds`, counted since arm()."""

    inner: FileSystem = field(default_factory=OsFileSystem)
    hook: Hook | None = None
    kinds: tuple[str, ...] = ()
    where: str = ""
    """Only calls on paths with this in them are counted, and fail."""
    fail_at: int = 0
    """0: nothing fails, and calls are counted."""
    code: int = errno.EIO
    lasting: bool = False
    torn: bool = False
    drops: bool = False
    counted: int = 0
    failed: list[str] = field(default_factory=list[str])
    """What has failed, as "kind name"."""
    calls: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """All changes that were asked for: kind and name."""
    reads: list[int] = field(default_factory=list[int])
    """Their offsets."""
    writes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Their offsets and sizes."""
    open_files: int = 0
    caches: dict[str, _Cache] = field(default_factory=dict[str, _Cache])
    """By path, kept while `drops` is set."""

    def arm(
        self,
        kinds: tuple[str, ...] = KINDS,
        fail_at: int = 0,
        code: int = errno.EIO,
        *,
        lasting: bool = False,
        torn: bool = False,
    ) -> None:
        self.kinds, self.fail_at, self.code = kinds, fail_at, code
        self.lasting, self.torn = lasting, torn
        self.counted = 0
        self.failed = []

    def disarm(self) -> None:
        self.arm(())

    def fails(self, kind: str, path: str) -> bool:
        if kind not in self.kinds or self.where not in path:
            return False
        self.counted += 1
        if not self.fail_at or self.counted < self.fail_at:
            return False
        if self.counted > self.fail_at and not self.lasting:
            return False
        self.failed.append(f"{kind} {os.path.basename(path)}")
        return True

    def before(self, kind: str, path: str) -> None:
        path = plain(path)
        self.calls.append((kind, os.path.basename(path)))
        if self.hook is not None:
            self.hook(kind, path)
        if self.fails(kind, path):
            if kind == "pwrite" and self.torn:
                raise Partial(None)
            raise self.error(path)

    def error(self, path: str) -> OSError:
        return OSError(self.code, os.strerror(self.code), path)

    def lose_power(self) -> None:
        """Puts the pages that the device never got back to what it has. Of the names and sizes
        nothing is lost: support/images.py takes those away."""
        for path, cache in self.caches.items():
            file = self.inner.open(path)
            try:
                for number, data in cache.device.items():
                    end = min(file.size(), (number + 1) * _PAGE)
                    if (room := end - number * _PAGE) > 0:
                        file.pwrite(data.ljust(room, b"\0")[:room], number * _PAGE)
            finally:
                file.close()
        self.caches.clear()

    # -- the seam ----------------------------------------------------------------------------

    def open(
        self, path: str, *, create: bool = False, read_only: bool = False, private: bool = False
    ) -> File:
        if not read_only:
            self.before("open", path)
        inner = self.inner.open(path, create=create, read_only=read_only, private=private)
        return _FaultyFile(self, path, inner)

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def map(self, path: str) -> memoryview:
        return self.inner.map(path)

    def map_shared(self, path: str, *, writable: bool = False) -> memoryview:
        return self.inner.map_shared(path, writable=writable)

    def lock_shared(self, path: str) -> DirLock:
        return self.inner.lock_shared(path)

    def is_read_only(self, path: str) -> bool:
        return self.inner.is_read_only(path)

    def file_identity(self, path: str) -> tuple[int, ...]:
        return self.inner.file_identity(path)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def is_dir(self, path: str) -> bool:
        return self.inner.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self.inner.listdir(path)

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        self.before("open", path)
        self.inner.mkdir(path, like=like)

    def copy_access(self, source: str, target: str) -> None:
        self.inner.copy_access(source, target)

    def rmdir(self, path: str) -> None:
        self.before("unlink", path)
        self.inner.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        self.before("rename", target)
        self.inner.rename(source, target)
        self.caches.pop(target, None)
        for path in [p for p in self.caches if p == source or p.startswith(source + os.sep)]:
            self.caches[target + path[len(source) :]] = self.caches.pop(path)

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        self.inner.unlink(path)
        self.caches.pop(path, None)

    def sync_dir(self, path: str) -> None:
        self.before("sync_dir", path)
        self.inner.sync_dir(path)

    def lock(self, path: str, owner: str) -> DirLock:
        return self.inner.lock(path, owner)

    def check_lock(self) -> None: ...

    def check_directory(self) -> None: ...


class _FaultyFile:
    def __init__(self, fs: FaultyFileSystem, path: str, inner: File) -> None:
        self._fs = fs
        self._path = path
        self._inner = inner
        fs.open_files += 1

    def pread(self, size: int, offset: int) -> bytes:
        self._fs.reads.append(offset)
        return self._inner.pread(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._fs.writes.append((offset, len(data)))
        try:
            self._fs.before("pwrite", self._path)
        except Partial as partial:
            size = len(data) // 2 if partial.size is None else partial.size
            self._write(data[:size], offset)
            raise (partial.error or self._fs.error(self._path)) from None
        self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        if self._fs.drops and data:
            cache = self._fs.caches.setdefault(self._path, _Cache())
            for number in range(offset // _PAGE, (offset + len(data) - 1) // _PAGE + 1):
                cache.dirty.add(number)
                if number not in cache.device:
                    cache.device[number] = self._inner.pread(_PAGE, number * _PAGE)
        self._inner.pwrite(data, offset)

    def sync(self) -> None:
        cache = self._fs.caches.get(self._path)
        try:
            self._fs.before("sync", self._path)
        except OSError:
            if cache is not None:
                cache.dirty.clear()
            raise
        self._inner.sync()
        if cache is not None:
            for number in cache.dirty:
                cache.device.pop(number, None)
            cache.dirty.clear()

    def truncate(self, size: int) -> None:
        self._fs.before("truncate", self._path)
        self._inner.truncate(size)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()
        self._fs.open_files -= 1


def plain(path: str) -> str:
    """Without the random part of a staging name."""
    return re.sub(r"\.amber-[0-9a-f]{16}\b", "", path)


def fail_on(kind: str, suffix: str, error: OSError) -> Hook:
    """Every such call on a path that ends so fails."""

    def hook(found: str, path: str) -> None:
        if found == kind and path.endswith(suffix):
            raise error

    return hook
