"""The store: the one LMDB file. The only module that imports lmdb.

Invariants:
- Identity and size are checked before LMDB maps anything: a file shorter than its meta pages say
  would kill the process (SIGBUS), and an empty one would pass for an empty database.
- A write transaction is committed with sync, and carries `applied_lsn` with what it applied.
- Read transactions live for one call, unless a Snapshot holds one.
"""

import contextlib
import errno
import os
import struct
import weakref
from collections.abc import Callable, Generator, Iterable
from typing import NoReturn, TypeAlias, cast

import lmdb

from amberdb._errors import ClosedError, CorruptionError, DiskFullError, OpenError, StorageError
from amberdb._fs import FileSystem
from amberdb._types import Lsn
from amberdb.engine.trees import APPLIED

ReadTransaction: TypeAlias = "lmdb.Transaction[bytes]"
KEY_BYTES_MAX = 511
DATA_FILE = "data.mdb"

# LMDB 0.9, 64 bit: a 16-byte page header, then MDB_meta.
_META = struct.Struct("<IIQQI92xQQ")  # magic, version, address, map, page size, last page, txn
_META_OFFSET = 16
assert _META.size == 136
_MAGIC = 0xBEEFC0DE

_abandoned: list[object] = []
_environments: "weakref.WeakValueDictionary[tuple[int, int, int], lmdb.Environment]" = (
    weakref.WeakValueDictionary()
)
"""By process, device and file: LMDB must not open one file twice in a process, and after close()
any reference to an old read, as in a kept exception, keeps the environment open."""


class Store:
    """One LMDB environment with one unnamed database."""

    def __init__(
        self, directory: str, *, fs: FileSystem, create: bool, map_bytes: int, sync: bool = True
    ) -> None:
        """Raises CorruptionError for a file that LMDB must not map, OpenError otherwise."""
        self.path = os.path.join(directory, DATA_FILE)
        if not create:
            check_file(fs, self.path)
        # Whoever comes here holds the directory's lock, so an environment that is still there was
        # left by a database that is closed.
        left = None if create else _environments.get(self._identity())
        try:
            env = left or lmdb.open(
                directory,
                map_size=map_bytes,
                max_readers=1024,
                max_spare_txns=16,
                sync=sync,
                metasync=sync,
                create=create,
                lib_version=0,
            )
        except lmdb.Error as error:
            raise OpenError(f"{self.path}: LMDB cannot open it: {error}", path=self.path) from error
        _environments[self._identity()] = env
        if left is not None and left.info()["map_size"] < map_bytes:
            left.set_mapsize(map_bytes)
        self.begin = cast("Callable[[], ReadTransaction]", env.begin)
        self._env: lmdb.Environment | None = env
        if create:  # LMDB never syncs its folder
            fs.sync_dir(directory)

    def get(self, key: bytes) -> bytes | None:
        with self.begin() as txn:
            return txn.get(key)

    @property
    def applied_lsn(self) -> Lsn:
        return Lsn(int.from_bytes(self.get(APPLIED) or b""))

    @contextlib.contextmanager
    def write(self) -> Generator["StoreWriter", None, None]:
        """One write transaction: committed and synced on leaving, undone by an exception.

        Raises DiskFullError, StorageError.
        """
        try:
            with self._live().begin(write=True) as txn:
                yield StoreWriter(txn)
            self._fill_tail()
        except lmdb.Error as error:
            if os.strerror(errno.ENOSPC) in str(error) or isinstance(error, lmdb.MapFullError):
                raise DiskFullError(
                    f"{self.path}: no space for a checkpoint: free space; nothing is lost",
                    path=self.path,
                ) from error
            raise StorageError(f"{self.path}: {error}", path=self.path) from error

    def stats(self) -> dict[str, int]:
        """Bytes of the file, bytes of pages in use, entries, depth, and readers."""
        env = self._live()
        info = env.info()
        stat = env.stat()
        page = stat["psize"]
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return {
            "file_bytes": (info["last_pgno"] + 1) * page,
            "used_bytes": pages * page,
            "entries": stat["entries"],
            "depth": stat["depth"],
            "readers": len(env.readers().splitlines()) - 1,
        }

    def _fill_tail(self) -> None:
        """LMDB counts pages that one transaction took at the end of the file and gave back, and
        does not write them. Made of zeros, the file does not look truncated at the next open."""
        env = self._live()
        size = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        try:
            if os.path.getsize(self.path) < size:
                os.truncate(self.path, size)
        except OSError:
            pass  # the next open looks closer

    def _identity(self) -> tuple[int, int, int]:
        found = os.stat(self.path)
        return os.getpid(), found.st_dev, found.st_ino

    def _live(self) -> lmdb.Environment:
        if self._env is None:
            raise ClosedError("the database is closed: open it again")
        return self._env

    def close(self, begin: Callable[[], NoReturn]) -> None:
        """Lets go of the file; `begin` is what later reads meet, and should raise.

        The environment is dropped, not closed: unmapping under a reader in another thread would
        kill the process. It closes with the last reference to a read; until then, opening the
        file again goes on with the same environment.
        """
        self.begin = begin
        self._env = None

    def abandon(self, begin: Callable[[], NoReturn]) -> None:
        """close() in a forked child: the environment is the parent's, and is kept untouched
        until the child exits, since closing it here would be closing it there."""
        _abandoned.append(self._env)
        self.close(begin)


class StoreWriter:
    """What a checkpoint or an index build does inside one write transaction."""

    __slots__ = ("_cursor", "_txn", "delete", "get", "put")

    def __init__(self, txn: ReadTransaction) -> None:
        self._txn = txn
        self._cursor = txn.cursor()
        self.get: Callable[[bytes], bytes | None] = txn.get
        self.put: Callable[[bytes, bytes], object] = txn.put
        self.delete: Callable[[bytes], object] = txn.delete

    def put_sorted(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._cursor.putmulti(pairs)

    def items(self, low: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Pairs from `low` on, ascending."""
        cursor = self._txn.cursor()
        return cursor.iternext() if cursor.set_range(low) else ()

    def delete_range(self, low: bytes, high: bytes, limit: int) -> int:
        """Removes up to `limit` keys in low <= key < high; how many there were."""
        cursor = self._cursor
        count = 0
        found = cursor.set_range(low)
        while found and count < limit and cursor.key() < high:
            found = cursor.delete()
            count += 1
        return count


def lmdb_version() -> int:
    major, minor, patch = lmdb.version()[:3]
    return major << 16 | minor << 8 | patch


def check_file(fs: FileSystem, path: str) -> None:
    """Whether LMDB may map this file. Raises CorruptionError naming what is wrong.

    Only unwritten free pages may be missing at the end; they are made good.
    """
    if not fs.exists(path):
        raise CorruptionError(f"{path} is missing: restore a backup", path=path, offset=0)
    file = fs.open(path, read_only=True)
    try:
        size = file.size()
        metas = _read_metas(file.pread(1 << 16, 0))
        if not metas and size > 1 << 16:
            raise CorruptionError(f"{path}: both meta pages are damaged", path=path, offset=0)
    finally:
        file.close()
    if not metas:
        raise CorruptionError(f"{path}: no LMDB meta page in it", path=path, offset=0)
    _, page_size, last_page = max(metas)
    wanted = (last_page + 1) * page_size
    if size < wanted:
        problems = _verify(path)
        if problems:
            raise CorruptionError(
                f"{path}: {size} bytes, but its meta page speaks of {wanted}, and {problems[0]}: "
                "the file was truncated; restore a backup",
                path=path,
                offset=size,
            )
        file = fs.open(path)
        try:
            file.truncate(wanted)
        finally:
            file.close()


def _verify(path: str) -> list[str]:
    """Reads every page that can be reached, without LMDB; what is wrong with them."""
    from lmdb import verify  # needed once in a thousand opens

    look = cast(
        "Callable[[str, bool], list[str]]",
        verify.verify,  # pyright: ignore[reportUnknownMemberType]
    )
    try:
        return look(path, False)
    except verify.VerifyError as error:
        return [str(error)]


def _read_metas(head: bytes) -> list[tuple[int, int, int]]:
    """(transaction, page size, last page) of each valid meta page."""
    found: list[tuple[int, int, int]] = []
    page_size = 4096
    for number in range(2):
        offset = number * page_size + _META_OFFSET
        if len(head) < offset + _META.size:
            break
        magic, version, _, _, size, last_page, txn = _META.unpack_from(head, offset)
        if magic == _MAGIC and version == 1 and 512 <= size <= 1 << 16 and not size & (size - 1):
            page_size = size
            found.append((txn, size, last_page))
    return found
