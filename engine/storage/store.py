"""The store: the one LMDB file. The only module that imports lmdb.

Invariants:
- Identity and size are checked before LMDB maps anything: a file shorter than its meta pages say
  would kill the process (SIGBUS), and an empty one would pass for an empty database.
- A write transaction is committed with sync, and carries `applied_lsn` with what it applied.
- Read transactions live for one call, unless a Snapshot holds one.
- When a meta page cannot be written LMDB gives its environment up, reads too. Then all reads go
  on in the one transaction that was begun before that write; nothing is written any more.
"""

import contextlib
import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import takewhile
from typing import Final, NoReturn, TypeAlias, cast

import lmdb

from amberdb._errors import (
    ClosedError,
    CorruptionError,
    DiskFullError,
    OpenError,
    StorageError,
)
from amberdb._fs import FileSystem
from amberdb._types import Lsn
from amberdb.engine.schema.keyspace import APPLIED
from amberdb.engine.storage.data_file import DATA_FILE, check_file

ReadTransaction: TypeAlias = "lmdb.Transaction[bytes]"
_FULL_BYTES = 1 << 16
"""Less is no space left: a write that is cut short has taken all but a part of a block."""

EngineError: Final = lmdb.Error
"""What reads raise inside of the engine; `locate` makes the typed error of it."""
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.ProblemError,
    lmdb.CursorFullError,
    lmdb.PageFullError,
    lmdb.BadTxnError,  # of a read that goes on behind one of the others
)
"""Pages are not as they were written."""

_abandoned: list[object] = []
_opening = threading.Lock()
_environments: "weakref.WeakValueDictionary[tuple[int, int, int], lmdb.Environment]" = (
    weakref.WeakValueDictionary()
)
"""By process, device and file: LMDB must not open one file twice in a process, and after close()
any reference to an old read, as in a kept exception, keeps the environment open."""


class Store:
    """One LMDB environment with one unnamed database."""

    def __init__(
        self,
        directory: str,
        *,
        fs: FileSystem,
        create: bool,
        map_bytes: int,
        sync: bool = True,
        read_only: bool = False,
        beside: bool = False,
    ) -> None:
        """Raises CorruptionError for a file that LMDB must not map, OpenError otherwise.

        `read_only` touches no file; whoever asks for it closes with `drop`. `beside` reads while
        a writer may be there, in this process or another one.
        """
        self.path = os.path.join(directory, DATA_FILE)
        if not create:
            check_file(fs, self.path, repair=not (read_only or beside))
        with _opening:
            # Who comes here to write holds the directory's lock, so an environment that is still
            # there was left by a database that is closed, or is of one that only reads.
            left = None if create or read_only else self._left_open(writes=not beside)
            try:
                env = left or lmdb.open(
                    directory,
                    map_size=map_bytes,
                    max_readers=1024,
                    max_spare_txns=16,
                    sync=sync,
                    metasync=sync,
                    create=create,
                    readonly=read_only or beside,
                    lock=not read_only,
                    lib_version=0,
                )
            except lmdb.Error as error:
                raise OpenError(
                    f"{self.path}: LMDB cannot open it: {error}", path=self.path
                ) from error
            if not read_only:
                _environments[self._identity()] = env
        if left is not None and not beside and left.info()["map_size"] < map_bytes:
            left.set_mapsize(map_bytes)
        self._begin = cast("Callable[[], ReadTransaction]", env.begin)
        self._env: lmdb.Environment | None = env
        self._last_read: ReadTransaction | None = None
        """Begun before the write that is on its way, or that was the last one."""
        if create:  # LMDB never syncs its folder
            fs.sync_dir(directory)

    def begin(self) -> ReadTransaction:
        """A read transaction as of now. Raises ClosedError, StorageError."""
        try:
            return self._begin()
        except lmdb.PanicError:
            assert self._last_read is not None, "only a write can bring LMDB there"
            return cast("ReadTransaction", _SharedTransaction(self._last_read))
        except lmdb.Error as error:  # no free slot for a reader, say
            raise_typed(self.path, error)
            raise

    def get(self, key: bytes) -> bytes | None:
        """Raises CorruptionError, StorageError, ClosedError."""
        try:
            with self._begin() as txn:  # begin() would cost a call
                return txn.get(key)
        except lmdb.PanicError:
            return self.begin().get(key)
        except lmdb.Error as error:
            raise_typed(self.path, error)
            raise

    @property
    def applied_lsn(self) -> Lsn:
        return Lsn(int.from_bytes(self.get(APPLIED) or b""))

    @contextlib.contextmanager
    def write(self) -> Generator["StoreWriter", None, None]:
        """One write transaction: committed and synced on leaving, undone by an exception.

        Raises DiskFullError, StorageError.
        """
        try:
            self._live().reader_check()  # those of dead processes would keep pages for ever
            with contextlib.suppress(lmdb.PanicError):
                self._last_read = self._begin()
            with StoreWriter(self._live().begin(write=True)) as writer:
                yield writer
            self._fill_tail()
        except lmdb.Error as error:
            if self._is_given_up():
                raise StorageError(
                    f"{self.path}: a meta page could not be written ({error}), and LMDB writes no "
                    "more until the database is closed and opened again: nothing acknowledged is "
                    "lost",
                    path=self.path,
                ) from error
            if self._is_full(error):
                raise DiskFullError(
                    f"{self.path}: no space for a checkpoint: free space; nothing is lost",
                    path=self.path,
                ) from error
            raise_typed(self.path, error)
        except CorruptionError as error:
            raise_typed(self.path, error)
            raise
        finally:
            if not self._is_given_up():
                self._last_read = None

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

    def _is_full(self, error: lmdb.Error) -> bool:
        """Whether a write failed for want of space. Of the code that the system gave LMDB keeps
        the text alone; and it calls a write that the disk cut short an input/output error."""
        text = str(error)
        if isinstance(error, lmdb.MapFullError) or os.strerror(errno.ENOSPC) in text:
            return True
        if os.strerror(errno.EIO) not in text:
            return False
        import shutil  # not at the top: most programs never need it, and all would pay

        return shutil.disk_usage(self.path).free < _FULL_BYTES

    def _is_given_up(self) -> bool:
        """Whether LMDB begins no more transactions."""
        try:
            self._begin().abort()
        except lmdb.PanicError:
            return True
        return False

    def _left_open(self, *, writes: bool) -> lmdb.Environment | None:
        """What this process has open of this file, if it will do. Raises OpenError."""
        identity = self._identity()
        env = _environments.get(identity)
        if env is None:
            return None
        says = "in an environment that LMDB has given up"
        try:
            env.begin().abort()
            if not (writes and env.flags()["readonly"]):
                return env
            says = "to read only"
        except lmdb.PanicError:
            pass
        del env
        gc.collect()  # it closes with what holds it
        if identity in _environments:
            raise OpenError(
                f"{self.path}: this process has it open {says}: close that database and let go of "
                "its iterators, or start the process again",
                path=self.path,
            )
        return None

    def _identity(self) -> tuple[int, int, int]:
        found = os.stat(self.path)
        return os.getpid(), found.st_dev, found.st_ino

    def _live(self) -> lmdb.Environment:
        if self._env is None:
            raise ClosedError("the database is closed: open it again")
        return self._env

    def release(self, begin: Callable[[], NoReturn]) -> None:
        """Releases the file; later reads call `begin`, which raises.

        The environment is dropped, not closed: unmapping under a reader in another thread would
        kill the process. It closes with the last reference to a read; until then, opening the
        file again goes on with the same environment.
        """
        self._begin = begin
        self._env = None
        self._last_read = None

    def close(self) -> None:
        """Closes a store that was opened to read only, by one thread, which has read all of it."""
        env = self._live()
        self._env = self._last_read = None
        del self._begin
        env.close()

    def abandon_after_fork(self, begin: Callable[[], NoReturn]) -> None:
        """release() in a forked child: the environment is the parent's, and is kept untouched
        until the child exits, since closing it here would be closing it there."""
        _abandoned.append(self._env)
        self.release(begin)


@contextlib.contextmanager
def new_store(directory: str, fs: FileSystem, map_bytes: int) -> Generator[Store]:
    """A store in a directory that is made for it, filled by one thread, whose commits are not
    synced; whole and on the disk when the block ends well."""
    fs.mkdir(directory)
    store = Store(directory, fs=fs, create=True, map_bytes=map_bytes, sync=False)
    try:
        yield store
    finally:
        store.close()
    file = fs.open(store.path)
    try:
        file.sync()
    finally:
        file.close()
    fs.sync_dir(directory)


class _SharedTransaction:
    """One read transaction for all who read, which none of them ends. Threads may share it: a
    read changes nothing in it."""

    __slots__ = ("cursor", "get")

    def __init__(self, txn: ReadTransaction) -> None:
        self.get = txn.get
        self.cursor = txn.cursor

    def abort(self) -> None: ...


class StoreWriter:
    """What a checkpoint or an index build does inside one write transaction: committed when the
    block ends well. Then all is forgotten: a traceback keeps it, and it the environment."""

    __slots__ = ("_cursor", "_txn", "delete", "get", "put")

    def __init__(self, txn: ReadTransaction) -> None:
        self._txn = txn
        self._cursor = txn.cursor()
        self.get: Callable[[bytes], bytes | None] = txn.get
        self.put: Callable[[bytes, bytes], object] = txn.put
        self.delete: Callable[[bytes], object] = txn.delete

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._txn.commit()
            else:
                self._txn.abort()
        finally:
            for name in self.__slots__:
                delattr(self, name)

    def put_sorted(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._cursor.putmulti(pairs)

    def append_sorted(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """The same behind every key that is there, which leaves full pages."""
        self._cursor.putmulti(pairs, append=True)

    def items(self, low: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Pairs from `low` on, ascending."""
        cursor = self._txn.cursor()
        return cursor.iternext() if cursor.set_range(low) else ()

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with low <= key < high, ascending."""
        return takewhile(lambda pair: pair[0] < high, self.items(low))

    def delete_range(self, low: bytes, high: bytes, limit: int) -> int:
        """Removes up to `limit` keys in low <= key < high; how many there were."""
        cursor = self._cursor
        count = 0
        found = cursor.set_range(low)
        while found and count < limit and cursor.key() < high:
            found = cursor.delete()
            count += 1
        return count


def raise_typed(path: str, error: BaseException) -> None:
    """Raises the typed error, with the file's path, in place of what a read of it raised."""
    if isinstance(error, lmdb.Error):
        if not isinstance(error, _DAMAGE):
            raise StorageError(f"{path}: {error}", path=path) from error
        raise CorruptionError(
            f"{path}: LMDB finds its pages damaged ({error}): run `amberdb check`, then `repair`",
            path=path,
        ) from error
    if isinstance(error, CorruptionError) and "path" not in error.facts:
        raise error.at(path) from error
