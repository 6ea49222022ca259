"""The follower: what a process that only reads has of a database that another one may be writing.

    MANIFEST changed?  ->  LMDB transaction  ->  visible Lsn of STATUS  ->  log up to it -> memtable

Invariants:
- A view is of what was acknowledged: up to the visible Lsn that the writer shows, which is read
  after the LMDB transaction has begun, so LMDB never holds more than the view may see.
- The memtable has the commits behind the applied Lsn of the view's LMDB transaction, all of them up
  to the view's Lsn, and nothing that LMDB has as well.
- When the log has been recycled under it, LMDB has gone on: it is looked at again.
- After an unclean end of the writer the next one may have lost a tail: with a new epoch everything
  is begun anew, what searches keep in memory too.
- Where LMDB cannot keep its table of readers, on a file system that is mounted to read only, a
  shared lock keeps writers away: they would reuse the pages that are read here.
- No file is changed, and no LMDB transaction outlives a call, unless a Snapshot holds it.
"""

import os
import threading
import time
from collections.abc import Iterator
from typing import Final, NoReturn, final

from amberdb._errors import (
    AmberError,
    CorruptionError,
    DatabaseMissingError,
    LockedError,
    LogTruncatedError,
    OpenError,
    ReplacedError,
    StorageError,
)
from amberdb._fs import DirLock
from amberdb._types import NO_LSN, Lsn, lsn_epoch
from amberdb.engine.jobs import Jobs
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import (
    APPLIED,
    COLLECTIONS,
    COUNTERS,
    ENTRY_PREFIX_SIZE,
    LAST_TIME,
    Effects,
)
from amberdb.engine.schema.migration import Upgrades
from amberdb.engine.schema.search_index import identity_of
from amberdb.engine.search.searcher import VectorParts
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.data_file import check_version
from amberdb.engine.storage.directory import LOCK, WAL, data_directory
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import ReadTransaction, Store
from amberdb.engine.storage.view import State, View, built_keyspaces
from amberdb.wal import ForeignLogReader, Record

_TRIES_MAX: Final = 20
_PAUSE_MS_MAX: Final = 50
_POLL_S: Final = 0.02
"""How often a follower of changes looks whether there is one: no other process wakes it."""
_CATALOG: Final = (COLLECTIONS, COUNTERS)
_NEVER: Final = -1
"""As the id of an LMDB transaction: none was looked at yet."""


class _MovedOn(Exception):
    """The writer has gone on between two looks: look again."""


_RETRIED = (_MovedOn, LogTruncatedError, CorruptionError, FileNotFoundError)
"""What a writer that goes on can cause, and what lasts only when the files are damaged."""


@final
class Follower:
    """The readable of a database that another process may be writing. Threads may share it."""

    def __init__(self, path: str, options: Options) -> None:
        """Raises OpenError and its kin, CorruptionError."""
        self.path = path
        self._searchers: Searchers | None = None
        self.state = State(Memtable(), None, frozenset(), Catalog({}))
        self._options = options
        self._fs = options.fs
        self._mutex = threading.Lock()
        self._closed: AmberError | None = None
        self._closing = threading.Event()
        self._where = os.path.join(path, manifests.NAME)
        self._stamp: tuple[int, ...] = ()
        """Of the MANIFEST that was read last."""
        self._manifest: Manifest | None = None
        self._store: Store | None = None
        self._status: Status | None = None
        self._upgrades: dict[str, Upgrades] = {}
        """By collection, what this process was given for documents of older versions."""
        self._end = NO_LSN
        """Up to where all is acknowledged, while no STATUS says more."""
        self._looked_at = 0.0
        self._begin_anew()
        self.log = FollowedLog(self)
        self._lock = self._kept_away()
        try:
            self.refresh()
        except BaseException:
            self._let_go()
            raise

    # -- reading -----------------------------------------------------------------------------

    def now_us(self) -> int:
        """The clock, never behind the last commit."""
        return max(int(self._options.clock() * 1_000_000), self._last_us)

    @property
    def visible(self) -> int:
        """Of the newest view so far."""
        return self._lsn

    @property
    def store(self) -> Store:
        self.check_open()
        assert self._store is not None
        return self._store

    @property
    def searchers(self) -> Searchers:
        """Of the files as they were opened last; new after an unclean end of the writer."""
        self.check_open()
        assert self._searchers is not None
        return self._searchers

    @property
    def manifest(self) -> Manifest:
        assert self._manifest is not None
        return self._manifest

    def view(self) -> View:
        """At the newest Lsn, or at one that is no older than `refresh_interval_ms`.

        Raises ReplacedError, DatabaseMissingError; CorruptionError, StorageError.
        """
        with self._mutex:
            return self._view(self._is_due())

    def refresh(self) -> Lsn:
        """Looks for what was acknowledged since; the Lsn of the next view, at least."""
        with self._mutex, self._view(looks=True) as view:
            return Lsn(view.lsn)

    def register_upgrades(self, name: str, upgrades: Upgrades) -> None:
        """Functions for the documents of a collection that are of an older version."""
        with self._mutex:
            self._upgrades[name] = {**self._upgrades.get(name, {}), **upgrades}
            if name in self.state.catalog.schemas:
                self.state.catalog.schemas[name].register_upgrades(upgrades)

    @property
    def status(self) -> Status | None:
        """What the writer says, if there was one since the machine started."""
        return self._status

    @property
    def tail(self) -> ForeignLogReader:
        return self._tail

    def wait_for_commit(self, after: int, timeout_s: float | None) -> bool:
        """Blocks until something after `after` is durable; False when time ran out."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self.refresh()
            if self.log.durable_lsn > after:
                return True
            left = _POLL_S if until is None else min(_POLL_S, until - time.monotonic())
            if left <= 0 or self._closing.wait(left):
                return False

    def close(self, error: AmberError, *, forked: bool = False) -> None:
        """Every later call raises the error. In a forked child no lock is waited for: the thread
        that had it does not exist there."""
        if forked:
            self._mutex = threading.Lock()
        else:
            self._closing.set()
            if self._searchers is not None:
                self._searchers.stop()
        with self._mutex:
            self._closed = error
            self._let_go()
            if self._store is not None:
                (self._store.abandon_after_fork if forked else self._store.release)(self._refuse)

    def _kept_away(self) -> DirLock | None:
        """A lock against writers, where there must be none. Raises LockedError."""
        if not self._fs.is_read_only(self.path):
            return None
        try:
            return self._fs.lock_shared(os.path.join(self.path, LOCK))
        except FileNotFoundError:  # no writer has been there since it was put there
            return None
        except BlockingIOError as error:
            pid, _, host = str(error.filename2 or "").partition(" ")
            raise LockedError(
                f"{self.path} is mounted to read only and open in process {pid or '?'} on "
                f"{host or '?'}, which cannot be told that its pages are read: mount it so that "
                "its lock.mdb can be written, or close it there",
                path=self.path,
                pid=int(pid) if pid.isdigit() else None,
                host=host,
            ) from None

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # -- looking -----------------------------------------------------------------------------

    def _is_due(self) -> bool:
        interval_ms = self._options.refresh_interval_ms
        if not interval_ms:
            return interval_ms == 0
        return time.monotonic() - self._looked_at >= interval_ms / 1000

    def _view(self, looks: bool) -> View:
        """With the mutex held."""
        tries = 0
        while True:
            self.check_open()
            try:
                return self._try_view(looks or tries > 0)
            except _RETRIED as error:
                tries += 1
                if tries == _TRIES_MAX:
                    _fail(self.path, error)
            except OSError as error:
                if isinstance(error, AmberError):
                    raise
                kind = OpenError if self._manifest is None else StorageError
                raise kind(f"{self.path} cannot be read: {error}", path=self.path) from error
            time.sleep(min(2**tries, _PAUSE_MS_MAX) / 1000)

    def _try_view(self, looks: bool) -> View:
        if looks:
            self._look()
        txn = self.store.begin()
        try:
            self._catch_up(txn, looks)
            return View(self._lsn, self.state, txn, self.now_us(), self.store.path)
        except BaseException:
            txn.abort()
            raise

    def _look(self) -> None:
        """Whether MANIFEST says something else than it did."""
        try:
            stamp = self._fs.file_identity(self._where)
        except FileNotFoundError:
            raise DatabaseMissingError(
                f"there is no database at {self.path} any more", path=self.path
            ) from None
        if stamp != self._stamp:
            self._open(manifests.read(self._fs, self.path), stamp)
            self._stamp = stamp
        self._looked_at = time.monotonic()

    def _open(self, manifest: Manifest, stamp: tuple[int, ...]) -> None:
        """What a MANIFEST that was replaced names."""
        known = self._manifest
        if known is None:
            check_version(self.path, manifest.lmdb_version)
            self._tail = ForeignLogReader(
                self._fs, os.path.join(self.path, WAL), manifest.database_id
            )
        elif manifest.database_id != known.database_id:
            raise ReplacedError(
                f"{self.path} is another database than the one that was opened: open it again",
                path=self.path,
            )
        if known is None or manifest.generation != known.generation:
            self._change_store(manifest, stamp)
        self._manifest = manifest
        if known is None or manifest.epoch != known.epoch:
            self._begin_anew()
        end, status = manifest.clean_lsn, self._read_status(manifest)
        if end is None and status is None:
            end = self._tail.end(self.store.applied_lsn)
            status = self._read_status(manifest)
            if status is not None:  # a writer has come, and may not have acknowledged all of that
                end = None
        self._end, self._status = end or NO_LSN, status

    def _read_status(self, manifest: Manifest) -> Status | None:
        return Status.read(self._fs, self.path, manifest.database_id)

    def _change_store(self, manifest: Manifest, stamp: tuple[int, ...]) -> None:
        """To another generation. Who reads in the old one reads on there."""
        data = data_directory(self.path, manifest.generation)
        map_bytes = self._options.map_bytes
        try:
            store = Store(data, fs=self._fs, create=False, map_bytes=map_bytes, beside=True)
        except OpenError:
            if self._fs.file_identity(self._where) != stamp:  # and another one by now
                raise _MovedOn from None
            raise
        if self._store is not None:
            self._store.release(self._refuse)
        self._store = store
        self._txn_id = _NEVER

    def _begin_anew(self) -> None:
        """Nothing that was read counts any more."""
        self._txn_id = _NEVER
        self._applied: Lsn = NO_LSN
        self._lsn: Lsn = NO_LSN
        self._last_us = 0
        self._memtable = Memtable()
        self._prefixes: frozenset[bytes] = frozenset()
        if self._manifest is not None:
            id = self._manifest.database_id
            folder = CacheFolder(self._fs, self.path, id, NO_LSN, (), read_only=True)
            builder = Jobs("vectors", background=self._options.background)
            self._searchers = Searchers(VectorParts(folder, builder, self))

    # -- catching up -------------------------------------------------------------------------

    def _catch_up(self, txn: ReadTransaction, looks: bool) -> None:
        """To the LMDB transaction, and with `looks` to what is visible now."""
        id = txn.id()
        is_new = id != self._txn_id
        applied = Lsn(int.from_bytes(txn.get(APPLIED) or b"")) if is_new else self._applied
        lsn: int = max(self._lsn, applied)
        if looks:
            lsn = max(lsn, self._newest())  # after the transaction began: see the invariants
        if not is_new and lsn == self._lsn:
            return
        if lsn_epoch(lsn) > self.manifest.epoch:
            raise _MovedOn
        memtable = self._memtable if applied == self._applied else self._memtable.behind(applied)
        last = Lsn(max(memtable.last_lsn, applied))
        records = list(self._tail.read(last, Lsn(lsn)))
        try:
            commits = _published(memtable, records)
            self._take(txn, memtable, lsn, commits, is_new, has_jumped=applied > self._lsn)
        except BaseException:
            self._begin_anew()  # some of it may be in the memtable, and not all
            raise
        self._memtable, self._lsn = memtable, Lsn(lsn)
        self._txn_id, self._applied = id, applied

    def _newest(self) -> int:
        return self._end if self._status is None else max(self._status.visible, self._end)

    def _take(
        self,
        txn: ReadTransaction,
        memtable: Memtable,
        lsn: int,
        commits: list[tuple[Lsn, Effects]],
        is_new: bool,
        has_jumped: bool,
    ) -> None:
        """What LMDB and the commits say of the catalog, and the rows of search indexes."""
        catalog, built = self.state.catalog, self.state.built
        changes = any(key.startswith(_CATALOG) for _, effects in commits for key in effects)
        if is_new or changes:
            bare = State(memtable, None, frozenset(), Catalog({}))
            view = View(lsn, bare, txn, 0, self.store.path)
            built = built_keyspaces(view)
            if changes or has_jumped or self._txn_id == _NEVER:
                catalog = self._load_catalog(view)
        if self._prefixes:
            for at, effects in commits:
                rows = [key for key in effects if key[:ENTRY_PREFIX_SIZE] in self._prefixes]
                if rows:
                    memtable.note_rows(at, rows, effects)
        self._last_us = memtable.last_us or int.from_bytes(txn.get(LAST_TIME) or b"")
        self.state = State(memtable, None, built, catalog)

    def _load_catalog(self, view: View) -> Catalog:
        catalog = Catalog.load(view, self._options.document_bytes_max)
        for name, upgrades in self._upgrades.items():
            if name in catalog.schemas:
                catalog.schemas[name].register_upgrades(upgrades)
        self._prefixes = catalog.row_prefixes
        self.searchers.forget(catalog.retired)
        indexes = [one for s in catalog.schemas.values() for one in s.definition.indexes]
        self.searchers.foreign = frozenset(
            index.keyspace for index in indexes if index.identity != identity_of(index.spec)
        )
        return catalog

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        if self._closed is not None:
            raise self._closed

    def _refuse(self) -> NoReturn:
        self.check_open()
        raise AssertionError("a store that is not in use any more")


def _published(memtable: Memtable, records: list[Record]) -> list[tuple[Lsn, Effects]]:
    """The commits of the records, which are in the memtable now."""
    commits: list[tuple[Lsn, Effects]] = []
    for record in records:
        effects = decode_effects(record.payload)
        memtable.publish(record.lsn, effects, len(record.payload), record.time_us)
        commits.append((record.lsn, effects))
    return commits


def _fail(path: str, error: Exception) -> NoReturn:
    """After the last try."""
    if isinstance(error, AmberError) and not isinstance(error, LogTruncatedError):
        raise error
    raise StorageError(
        f"{path}: its writer goes on faster than this process can follow, or files are missing "
        f"({error or type(error).__name__}): try again, then run `amberdb check`",
        path=path,
    ) from error


@final
class FollowedLog:
    """The log as far as the follower has come."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @property
    def durable_lsn(self) -> Lsn:
        """Of what this process has seen."""
        visible, status = self._follower.visible, self._follower.status
        return Lsn(visible if status is None else min(visible, status.durable))

    @property
    def first_lsn(self) -> Lsn:
        """The oldest record kept, or the next one when there is none."""
        segments = self._follower.tail.segments()
        return segments[0].header.first_lsn if segments else Lsn(self._follower.visible + 1)

    def read(self, after: Lsn, *, upto: Lsn | None = None) -> Iterator[Record]:
        """Raises LogTruncatedError, CorruptionError."""
        last = self.durable_lsn if upto is None else min(upto, Lsn(self._follower.visible))
        return self._follower.tail.read(after, last)

    def wait(self, lsn: int) -> None:
        """Another process syncs; what it has not is not told."""

    def sync(self) -> None:
        """Nothing here waits for it."""
