"""The store: the LMDB environment of one generation. The only module that opens LMDB; trees.py and
store_writer.py are its reads and its writes.

Invariants:
- Identity and size of the file are checked before LMDB maps it: a file shorter than its meta pages
  say would kill the process (SIGBUS), and an empty one would pass for an empty database.
- A write transaction is committed with sync, and stores `applied_lsn` with the effects applied.
- A process that may write reads nothing before LMDB has found its newest commit, so a memtable that
  was applied is not applied again.
- Read transactions last for one call, unless a Snapshot holds one.
- When a meta page cannot be written, LMDB refuses every later transaction of the environment, reads
  too. Then all reads share the one transaction that was begun before that write, and nothing is
  written any more.
"""

import contextlib
import errno
import gc
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NoReturn, TypeAlias, cast

import lmdb

from amberdb._errors import (
    ClosedError,
    CorruptionError,
    DiskFullError,
    OpenError,
    ReadersFullError,
    ReplacedError,
    StorageError,
    StorageFullError,
)
from amberdb._fs import File, FileSystem, file_mode, what_is_full
from amberdb._types import Lsn
from amberdb.engine.schema.keyspace import APPLIED
from amberdb.engine.storage.data_file import DATA_FILE, check_file
from amberdb.engine.storage.store_writer import StoreWriter
from amberdb.engine.storage.trees import (
    TREES_MAX,
    LmdbTransaction,
    Trees,
)
from amberdb.index.ordered.keys import KEYSPACE_BYTES

_MAP_BYTES_MIN = 1 << 20
_GROWTH_BYTES = 256 << 20
"""More than one write transaction of a restore or a repair needs."""
_FULL_BYTES = 1 << 16
"""Free bytes below which a short write counts as a full disk: it has taken all but part of a
block."""

_READERS_MAX = 4096
"""Slots of the reader table, which all processes share; 64 bytes each."""
_SLOT_WAIT_S = 0.1
"""How long a read waits for a slot: another thread may soon end a read."""

EngineError: Final = lmdb.Error
"""What reads raise inside the engine; raise_typed() turns it into a typed error."""
MappedTransaction: TypeAlias = "lmdb.Transaction[memoryview]"
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.ProblemError,
    lmdb.CursorFullError,
    lmdb.PageFullError,
    lmdb.BadTxnError,  # of a read after one of the others
)
"""LMDB's errors for damaged pages."""

_opening = threading.Lock()
_environments: "weakref.WeakValueDictionary[tuple[int, int, int], lmdb.Environment]" = (
    weakref.WeakValueDictionary()
)
"""Open environments by process, device and inode: LMDB must not open a file twice in one process,
and any reference to a read, as in a kept exception, keeps an environment open after close()."""
_trees: "weakref.WeakKeyDictionary[lmdb.Environment, Trees]" = weakref.WeakKeyDictionary()
_abandoned: list[object] = []
"""Environments of the parent process, in a forked child: see abandon_after_fork()."""


class Store:
    """An LMDB environment with a tree for each keyspace. Threads may share it."""

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
        may_write: bool = False,
    ) -> None:
        """`read_only` takes no lock and changes no file; end such a store with close(). `beside`
        reads while this process or another one may be writing; end it, as a writing one, with
        release(). With `may_write` this process may become the one that writes, while it reads.
        Raises CorruptionError for a file that LMDB must not map, OpenError, ReadersFullError.
        """
        self.path = os.path.join(directory, DATA_FILE)
        self._fs = fs
        if not create:
            check_file(fs, self.path, repair=not (read_only or beside))
        with _opening:
            # A writer holds the directory's lock. So an environment that is open in this process
            # is of a database that was closed, or of one that only reads.
            left = None if create or read_only else self._left_open(writes=not beside)
            try:
                env = left or _open_mapped(
                    self.path,
                    map_bytes,
                    max_readers=_READERS_MAX,
                    max_dbs=TREES_MAX,
                    max_spare_txns=16,
                    sync=sync,
                    metasync=sync,
                    create=create,
                    readonly=read_only or (beside and not may_write),
                    lock=not read_only,
                    mode=file_mode(directory),
                    lib_version=0,
                )
            except lmdb.ReadersFullError:
                raise ReadersFullError(
                    f"{self.path}: all slots of LMDB's reader table are taken: close snapshots in "
                    "the processes that have it open; those of processes that have ended are free "
                    "again after the next checkpoint of the one that writes",
                    path=self.path,
                ) from None
            except lmdb.Error as error:
                raise _cannot_open(self.path, error) from error
            if not read_only:
                _environments[self._identity()] = env
        if left is not None and not beside and left.info()["map_size"] < map_bytes:
            left.set_mapsize(map_bytes)
        self._opened_as = self._identity()
        self._begin = cast("Callable[[], LmdbTransaction]", env.begin)
        self._env: lmdb.Environment | None = env
        self.trees = _trees.setdefault(env, Trees(env))
        self._tree_of = self.trees.of
        self._follows = read_only or beside
        self.grows = False
        """The map grows with the file: one thread has the store, and no transaction is open between
        its writes."""
        if not (create or self._follows):
            self._find_last_commit()
        with contextlib.suppress(lmdb.Error):  # the first read raises it
            self._begin().abort()  # LMDB keeps the slot for later reads, whoever takes the others
        self._last_read: LmdbTransaction | None = None
        """Begun before the write that runs now, or before the one that LMDB failed in."""
        if create:  # LMDB never syncs its directory
            fs.sync_dir(directory)

    def _find_last_commit(self) -> None:
        """Lets LMDB find its newest commit, and opens the trees. LMDB writes the meta page of a
        commit, and then the id of the transaction into lock.mdb, where reads look it up. A writer
        that is killed in between leaves the older id there, as long as any process has the file
        open. The next write transaction finds that the holder of the write lock has died, and
        corrects the id. Raises CorruptionError, StorageError."""
        try:
            with self._live().begin(write=True) as txn:
                self.trees.open(txn, txn)
        except lmdb.Error as error:
            raise_typed(self.path, error)
            raise

    def begin(self) -> LmdbTransaction:
        """Begins a read transaction. Raises ClosedError, ReadersFullError, StorageError."""
        try:
            while True:
                try:
                    txn = self._begin()
                except lmdb.ReadersFullError:
                    txn = self._begin_when_free()
                if not (self._follows and self.trees.lacks(txn)) and self.trees.are_usable(txn):
                    return txn
                txn.abort()
                time.sleep(0)  # a moment later it has all trees
        except lmdb.PanicError:
            if self._last_read is None:  # there was no slot for it
                raise self._failure() from None
            return cast("LmdbTransaction", _SharedTransaction(self._last_read))
        except lmdb.Error as error:
            raise_typed(self.path, error)
            raise

    def _begin_when_free(self) -> LmdbTransaction:
        """begin() once a slot of the reader table is free, or that of a dead process."""
        deadline = time.monotonic() + _SLOT_WAIT_S
        while True:
            self._live().reader_check()
            try:
                return self._begin()
            except lmdb.ReadersFullError:
                if time.monotonic() > deadline:
                    raise self._no_slot() from None
            time.sleep(_SLOT_WAIT_S / 20)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None. Raises CorruptionError, StorageError, ClosedError."""
        try:
            with self._begin() as txn:  # begin() would cost one more call
                return txn.get(key, None, self._tree_of(key[:KEYSPACE_BYTES]))
        # The last one: a tree that was made since the transaction began.
        except (lmdb.PanicError, lmdb.ReadersFullError, lmdb.InvalidParameterError):
            txn = self.begin()
            try:
                return self.trees.get(txn, key)
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise_typed(self.path, error)
            raise

    def begin_mapped(self) -> "MappedTransaction":
        """Begins a read of a few values, which are views of LMDB's map: to be copied before it
        ends. Raises EngineError also where begin() would wait, or begin once more."""
        return self._live().begin(buffers=True)

    @property
    def applied_lsn(self) -> Lsn:
        """The Lsn of the last commit that a checkpoint has written."""
        return Lsn(int.from_bytes(self.get(APPLIED) or b""))

    @contextlib.contextmanager
    def write(self) -> Generator["StoreWriter", None, None]:
        """A write transaction: committed and synced when the block ends, aborted by an exception.

        Raises DiskFullError, StorageError, ReplacedError.
        """
        self._fs.check_directory()
        if self.grows:
            self._grow()
        try:
            self._live().reader_check()  # readers of dead processes would keep pages for ever
            with contextlib.suppress(lmdb.PanicError, lmdb.ReadersFullError):
                self._last_read = self._begin()
            txn = self._live().begin(write=True)
            try:
                with StoreWriter(self._live(), txn, self.trees) as writer:
                    yield writer
            finally:
                txn.abort()  # an interruption may have kept the writer from ending it
                del txn  # or a traceback would keep the environment open
            self._fill_tail()
        except lmdb.Error as error:
            if self._has_failed():
                raise self._failure(error) from error
            if isinstance(error, lmdb.MapFullError):
                raise StorageFullError(
                    f"{self.path}: LMDB's map of {self.map_bytes} bytes is full; no commit is "
                    "lost: open the database with a larger map_bytes (address space, not disk)",
                    path=self.path,
                ) from error
            if self._is_full(error):
                raise DiskFullError(
                    f"{self.path}: {what_is_full(self.path)}; no commit is lost", path=self.path
                ) from error
            raise_typed(self.path, error)
        except CorruptionError as error:
            raise_typed(self.path, error)
            raise
        finally:
            if not self._has_failed():
                self._last_read = None

    @property
    def is_older(self) -> bool:
        """Whether the file is of format 1, at least in part."""
        txn = self.begin()
        try:
            return self.trees.has_unnamed(txn)
        finally:
            txn.abort()

    @property
    def map_bytes(self) -> int:
        """The size of the map, which the file cannot outgrow."""
        return self._live().info()["map_size"]

    @property
    def file_bytes(self) -> int:
        """The size of the file, free pages included."""
        env = self._live()
        return (env.info()["last_pgno"] + 1) * env.stat()["psize"]

    @property
    def used_bytes(self) -> int:
        """The size of the pages in use."""
        return sum(_pages(stat) * stat["psize"] for stat in self._tree_stats())

    def tree_bytes(self) -> dict[bytes, int]:
        """The size of the pages of each named tree, by the prefix of its keyspace."""
        txn = self.begin()
        try:
            stats = self.trees.named_stats(txn)
        finally:
            txn.abort()
        return {prefix: _pages(stat) * stat["psize"] for prefix, stat in stats.items()}

    def _tree_stats(self) -> list[Mapping[str, int]]:
        txn = self.begin()
        try:
            return self.trees.stats(txn)
        finally:
            txn.abort()

    def stats(self) -> dict[str, int]:
        """Bytes of the file and of the pages in use, entries, depth of the deepest tree,
        readers."""
        env = self._live()
        unnamed, *named = self._tree_stats()
        return {
            "file_bytes": self.file_bytes,
            "used_bytes": sum(_pages(stat) * stat["psize"] for stat in (unnamed, *named)),
            # The unnamed tree has an entry for each of the others.
            "entries": sum(stat["entries"] for stat in (unnamed, *named)) - len(named),
            "depth": max(stat["depth"] for stat in (unnamed, *named)),
            "readers": len(env.readers().splitlines()) - 1,
        }

    def _grow(self) -> None:
        """Doubles the map when less than _GROWTH_BYTES of it is free, and the address space allows
        it. Raises StorageFullError; LMDB has no map then, and the store cannot be used any
        more."""
        env = self._live()
        info = env.info()
        used = (info["last_pgno"] + 1) * env.stat()["psize"]
        wanted = 2 * info["map_size"] + _GROWTH_BYTES
        if info["map_size"] - used >= _GROWTH_BYTES or not _has_address_space(wanted):
            return  # what is there may be enough
        try:
            env.set_mapsize(wanted)
        except (lmdb.Error, MemoryError) as error:
            raise StorageFullError(
                f"{self.path}: LMDB's map cannot grow to {wanted} bytes ({error}): raise the limit "
                "of address space (ulimit -v)",
                path=self.path,
            ) from error

    def _fill_tail(self) -> None:
        """Extends the file with zeros by the pages that a transaction allocated at its end and
        freed. LMDB counts them and does not write them, so the file would look truncated."""
        env = self._live()
        size = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        try:
            self._fs.check_directory()
            if os.path.getsize(self.path) < size:
                os.truncate(self.path, size)
        except (OSError, ReplacedError):
            pass  # the next open checks the pages themselves

    def _is_full(self, error: lmdb.Error) -> bool:
        """Whether a write failed because the disk is full. LMDB keeps only the text of the system's
        error code, and reports a short write as an input/output error."""
        text = str(error)
        if os.strerror(errno.ENOSPC) in text:
            return True
        if os.strerror(errno.EIO) not in text:
            return False
        import shutil  # imported on demand: few programs need it

        try:
            return shutil.disk_usage(self.path).free < _FULL_BYTES
        except OSError:  # the directory has gone
            return False

    def _has_failed(self) -> bool:
        """Whether LMDB refuses to begin transactions, after a failed write of a meta page."""
        try:
            self._begin().abort()
        except lmdb.PanicError:
            return True
        except lmdb.ReadersFullError:  # a reader's own error: a write needs no slot
            return False
        return False

    def _failure(self, error: object = "an earlier write") -> StorageError:
        """The error of an environment that refuses all transactions."""
        return StorageError(
            f"{self.path}: a meta page could not be written ({error}): close the database and open "
            "it again; no acknowledged commit is lost",
            path=self.path,
        )

    def _no_slot(self) -> ReadersFullError:
        """The error of a reader table that live processes have filled."""
        lines = self._live().readers().splitlines()[1:]  # "pid thread txnid", below a heading
        pids = Counter(int(line.split()[0]) for line in lines)
        pid, count = max(pids.items(), key=lambda item: item[1], default=(0, 0))
        whose = "this process" if pid == os.getpid() else f"process {pid}"
        return ReadersFullError(
            f"{self.path}: all {len(lines):,} slots of LMDB's reader table are taken, {count:,} of "
            f"them by {whose}: close snapshots there, or end it",
            path=self.path,
            pid=pid,
            count=count,
        )

    def _left_open(self, *, writes: bool) -> lmdb.Environment | None:
        """The environment that this process still has open of this file, or None. Raises OpenError
        when it cannot be used: it is read-only and `writes` is set, or it has failed."""
        identity = self._identity()
        env = _environments.get(identity)
        if env is None:
            return None
        state = "in an LMDB environment that has failed"
        try:
            with contextlib.suppress(lmdb.ReadersFullError, lmdb.MapResizedError):
                env.begin().abort()
            if not (writes and env.flags()["readonly"]):
                return env
            state = "read-only"
        except lmdb.PanicError:
            pass
        del env
        gc.collect()  # it closes with the last object that refers to it
        if identity in _environments:
            raise OpenError(
                f"{self.path}: this process has it open {state}: close that database and drop its "
                "iterators and exceptions, or restart the process",
                path=self.path,
            )
        return None

    def _identity(self) -> tuple[int, int, int]:
        stat = os.stat(self.path)
        return os.getpid(), stat.st_dev, stat.st_ino

    def _live(self) -> lmdb.Environment:
        if self._env is None:
            raise ClosedError("the database is closed: open it again")
        return self._env

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            return self._identity() == self._opened_as
        except FileNotFoundError:
            return False

    def release(self, refuse: Callable[[], NoReturn]) -> None:
        """Releases the file; later reads call `refuse`, which raises.

        The environment is not closed: unmapping the file under a reader in another thread would
        kill the process. It closes with the last reference to a read; until then, opening the
        file again uses the same environment.
        """
        self._begin = refuse
        self._env = None
        self._last_read = None

    def close(self) -> None:
        """Closes a store of one thread that has no read open: one that was opened read-only, or
        that new_store() made."""
        env = self._live()
        self._env = self._last_read = None
        del self._begin
        env.close()

    def abandon_after_fork(self, refuse: Callable[[], NoReturn]) -> None:
        """release() in a forked child. The environment is the parent's: it is kept open until the
        child exits, since closing it would free the parent's entries in LMDB's table of readers."""
        _abandon([self._env])
        self.release(refuse)


@contextlib.contextmanager
def new_store(
    directory: str, fs: FileSystem, map_bytes: int, make: Callable[[File], None] | None = None
) -> Generator[Store]:
    """Makes a directory with a store, for one thread to fill: an empty one, or with `make` one that
    has the file which that writes. Its commits are not synced; the file is synced and closed when
    the block ends without an exception."""
    fs.mkdir(directory, like=os.path.dirname(directory))
    if make is not None:
        file = fs.open(os.path.join(directory, DATA_FILE), create=True)
        try:
            make(file)
        finally:
            file.close()
    create = make is None
    store = Store(directory, fs=fs, create=create, map_bytes=map_bytes, sync=False)
    store.grows = True
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


def _open_mapped(path: str, map_bytes: int, **options: Any) -> lmdb.Environment:
    """Opens an environment with room to grow; with a smaller map where the address space of the
    process is short. Raises lmdb.Error."""
    directory = os.path.dirname(path)
    size = os.path.getsize(path) if os.path.exists(path) else 0
    wanted, least = max(map_bytes, 2 * size), max(size, _MAP_BYTES_MIN)
    is_short = False
    while True:
        try:
            env = lmdb.open(directory, map_size=wanted, **options)
        except lmdb.Error as error:
            if os.strerror(errno.ENOMEM) not in str(error) or wanted == least:
                raise
            is_short, wanted = True, max(wanted // 4, least)
            continue
        if not is_short or wanted == least:
            return env
        env.close()  # it took most of what is left, which the process needs for other things
        is_short, wanted = False, max(wanted // 4, least)


def _has_address_space(size: int) -> bool:
    """Whether this process could map so many bytes just now."""
    import mmap  # imported on demand

    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ).close()
    except (OSError, MemoryError):
        return False
    return True


def _cannot_open(path: str, error: lmdb.Error) -> OpenError:
    text = str(error)
    if os.strerror(errno.ENOMEM) in text:
        text += (
            ": the address space of this process is used up (ulimit -v, or many open databases): "
            "close some, or open with a smaller map_bytes"
        )
    elif os.strerror(errno.EAGAIN) in text:
        text += (
            ": a process with the same pid in another container has it open: let the containers "
            "share a pid namespace, or start this process again"
        )
    return OpenError(f"{path}: LMDB cannot open it: {text}", path=path)


class _SharedTransaction:
    """One read transaction for all readers; abort() does nothing. Threads may share it, since
    reads do not change it."""

    __slots__ = ("cursor", "get", "id", "stat")

    def __init__(self, txn: LmdbTransaction) -> None:
        self.get = txn.get
        self.cursor = txn.cursor
        self.id = txn.id
        self.stat = txn.stat

    def abort(self) -> None: ...


def _pages(stat: Mapping[str, int]) -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


def _abandon(environments: list[object]) -> None:
    if not _abandoned:
        _forget_files_of_parent()
    _abandoned.extend(environments)


def _abandon_what_is_left_open() -> None:
    """In a forked child: a database that the parent has closed may still have its environment, kept
    by an exception or by garbage that is not collected yet."""
    if _environments:
        _abandon(list(_environments.values()))


os.register_at_fork(after_in_child=_abandon_what_is_left_open)


def _forget_files_of_parent() -> None:
    """Lets a forked child open the files that its parent has open.

    py-lmdb refuses to open a file twice in one process, and its list of open files, made by a
    function of this module, is inherited by a fork. There is no public call for it: the keys in the
    list get the pid. LMDB itself allows it, since locks of a file belong to one process.
    """
    from lmdb import _envid  # imported on demand: it is private, and only forked children need it

    identities: Any = _envid
    keys_of = identities.env_keys

    def keys_of_process(path: object, subdir: bool) -> tuple[object, ...]:
        return tuple((os.getpid(), *key) for key in keys_of(path, subdir))

    identities.env_keys = keys_of_process


def raise_typed(path: str, error: BaseException) -> None:
    """Raises a typed error with the file's path for an LMDB error, or for a CorruptionError without
    a path: StorageFullError where the file was opened with too small a map, and has to be opened
    again. Returns for any other error."""
    if isinstance(error, lmdb.MapResizedError):
        raise StorageFullError(
            f"{path}: another process has written more than LMDB's map in this one shows: close "
            "snapshots and iterators of this process, or open with a larger map_bytes",
            path=path,
        ) from error
    if isinstance(error, lmdb.Error):
        if not isinstance(error, _DAMAGE):
            raise StorageError(f"{path}: {error}", path=path) from error
        raise CorruptionError(
            f"{path}: LMDB pages are damaged ({error}): run `amberdb check`, then `amberdb repair`",
            path=path,
        ) from error
    if isinstance(error, CorruptionError) and "path" not in error.facts:
        raise error.at(path) from error
