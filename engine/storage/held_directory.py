"""The file system of a database that is open to write: it changes the directory that was opened, or
nothing.

Paths lead to whatever has the name by now. When the directory was removed, renamed, replaced or
restored over, or a link to it was changed, its path leads to another database, or nowhere; files
that are open still belong to the old one.

Invariants:
- Before each change by path the lock file at the path is compared with the one that is locked, and
  MANIFEST with the one that was read or written last. Both are in the directory, so whatever takes
  its place is noticed.
- A MANIFEST of our own is known before it is renamed into place: other threads check meanwhile.
- Reads are not checked: their content has checksums and ids.
- Nothing is remembered: a directory that was renamed and renamed back is in order again.
"""

import os
from dataclasses import dataclass
from typing import final

from amberdb._errors import ReplacedError
from amberdb._fs import DirLock, File, FileSystem
from amberdb.engine.storage import manifest as manifests


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What MANIFEST may be."""

    stamp: tuple[int, ...]
    contents: tuple[bytes, ...]


@final
class HeldDirectory:
    """A FileSystem that refuses changes once `path` no longer leads to the locked directory."""

    def __init__(self, fs: FileSystem, path: str, lock: DirLock) -> None:
        self._fs = fs
        self._path = path
        self._lock = lock
        self._manifest = os.path.join(path, manifests.NAME)
        content = fs.read(self._manifest)
        self._known = _Manifest(fs.file_identity(self._manifest), (content,))

    def check_lock(self) -> None:
        if not self._lock.is_in_place():
            raise ReplacedError(
                f"{self._path} is no longer the directory that was opened: it was removed, renamed "
                "or replaced, and nothing is written there; close this database and open the path "
                "again",
                path=self._path,
            )

    def check_directory(self) -> None:
        self.check_lock()
        if not self._is_manifest_ours():
            raise ReplacedError(
                f"{self._manifest} was replaced by another program while the database was open, as "
                "by a copy over it: nothing is written there; close this database, and open or "
                "restore it",
                path=self._path,
            )

    def _is_manifest_ours(self) -> bool:
        while True:
            known = self._known
            try:
                if self._fs.file_identity(self._manifest) == known.stamp:
                    return True
                content = self._fs.read(self._manifest)
            except FileNotFoundError:
                return False
            if content in known.contents:  # it was touched, or the rename has yet to return
                return True
            if known is self._known:  # otherwise another thread has replaced it meanwhile
                return False

    # -- changes -----------------------------------------------------------------------------

    def open(
        self, path: str, *, create: bool = False, read_only: bool = False, private: bool = False
    ) -> File:
        if not read_only:
            self.check_directory()
        return self._fs.open(path, create=create, read_only=read_only, private=private)

    def map_shared(self, path: str, *, writable: bool = False) -> memoryview:
        if writable:
            self.check_directory()
        return self._fs.map_shared(path, writable=writable)

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        self.check_directory()
        self._fs.mkdir(path, like=like)

    def copy_access(self, source: str, target: str) -> None:
        self.check_directory()
        self._fs.copy_access(source, target)

    def rmdir(self, path: str) -> None:
        self.check_directory()
        self._fs.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        self.check_directory()
        if target != self._manifest:
            self._fs.rename(source, target)
            return
        stamp, content = self._fs.file_identity(source), self._fs.read(source)
        self._known = _Manifest(stamp, (*self._known.contents, content))
        self._fs.rename(source, target)
        self._known = _Manifest(stamp, (content,))

    def unlink(self, path: str) -> None:
        self.check_directory()
        self._fs.unlink(path)

    def sync_dir(self, path: str) -> None:
        self.check_directory()
        self._fs.sync_dir(path)

    # -- the same as without -----------------------------------------------------------------

    def read(self, path: str) -> bytes:
        return self._fs.read(path)

    def map(self, path: str) -> memoryview:
        return self._fs.map(path)

    def file_identity(self, path: str) -> tuple[int, ...]:
        return self._fs.file_identity(path)

    def exists(self, path: str) -> bool:
        return self._fs.exists(path)

    def is_dir(self, path: str) -> bool:
        return self._fs.is_dir(path)

    def listdir(self, path: str) -> list[str]:
        return self._fs.listdir(path)

    def lock(self, path: str, owner: str) -> DirLock:
        return self._fs.lock(path, owner)

    def lock_shared(self, path: str) -> DirLock:
        return self._fs.lock_shared(path)

    def is_read_only(self, path: str) -> bool:
        return self._fs.is_read_only(path)
