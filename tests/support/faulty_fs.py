"""A file system that fails on demand: the k-th call of one kind, once or from then on.

Invariants:
- Calls that only read never fail here, and are not counted.
- What failed did nothing, except a `pwrite` with `torn`, which leaves half of its bytes.
"""

import errno
import os
from dataclasses import dataclass, field

from amberdb._fs import DirLock, File, FileSystem, OsFileSystem

KINDS = ("sync", "pwrite", "rename", "sync_dir", "open", "unlink", "truncate")


@dataclass
class FaultyFileSystem:
    """Fails call number `fail_at` (from 1) of the `kinds`, counted since arm()."""

    inner: FileSystem = field(default_factory=OsFileSystem)
    kinds: tuple[str, ...] = ()
    fail_at: int = 0
    """0: nothing fails, and calls are counted."""
    code: int = errno.EIO
    lasting: bool = False
    torn: bool = False
    calls: int = 0
    failed: list[str] = field(default_factory=list[str])
    """What has failed, as "kind name"."""

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
        self.calls = 0
        self.failed = []

    def disarm(self) -> None:
        self.arm(())

    def fails(self, kind: str, path: str) -> bool:
        if kind not in self.kinds:
            return False
        self.calls += 1
        if not self.fail_at or self.calls < self.fail_at:
            return False
        if self.calls > self.fail_at and not self.lasting:
            return False
        self.failed.append(f"{kind} {os.path.basename(path)}")
        return True

    def before(self, kind: str, path: str) -> None:
        if self.fails(kind, path):
            raise self.error(path)

    def error(self, path: str) -> OSError:
        return OSError(self.code, os.strerror(self.code), path)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        if not read_only:
            self.before("open", path)
        return _FaultyFile(self, path, self.inner.open(path, create=create, read_only=read_only))

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def is_dir(self, path: str) -> bool:
        return self.inner.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self.inner.listdir(path)

    def mkdir(self, path: str) -> None:
        self.before("open", path)
        self.inner.mkdir(path)

    def rmdir(self, path: str) -> None:
        self.before("unlink", path)
        self.inner.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        self.before("rename", target)
        self.inner.rename(source, target)

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        self.inner.unlink(path)

    def sync_dir(self, path: str) -> None:
        self.before("sync_dir", path)
        self.inner.sync_dir(path)

    def lock(self, path: str, owner: str) -> DirLock:
        return self.inner.lock(path, owner)


class _FaultyFile:
    def __init__(self, fs: FaultyFileSystem, path: str, inner: File) -> None:
        self._fs = fs
        self._path = path
        self._inner = inner

    def pread(self, size: int, offset: int) -> bytes:
        return self._inner.pread(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        if self._fs.fails("pwrite", self._path):
            if self._fs.torn:
                self._inner.pwrite(data[: len(data) // 2], offset)
            raise self._fs.error(self._path)
        self._inner.pwrite(data, offset)

    def sync(self) -> None:
        self._fs.before("sync", self._path)
        self._inner.sync()

    def truncate(self, size: int) -> None:
        self._fs.before("truncate", self._path)
        self._inner.truncate(size)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()
