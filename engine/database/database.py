"""The database: opens, owns every part, and closes.

Invariants:
- One Database per directory and process; threads share it.
- After close(), and in a forked child, every call raises; nothing is written any more.
- At interpreter exit the log is synced and no thread is started.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn

from amberdb import _failpoints as failpoints
from amberdb._errors import (
    AmberError,
    ClosedError,
    CommitUnknownError,
    CorruptionError,
    ForkedError,
)
from amberdb._types import Lsn, Progress, Sync, Where
from amberdb.engine.backup.backup import Compress
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.rescue import Rescue, explain, finish_rescue, rescue
from amberdb.engine.commit.change_feed import Change, Feed, Subscriber
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.recovery import Opened, mark_clean, open_parts
from amberdb.engine.database.collection import Collection, schema_of
from amberdb.engine.database.declarations import Declarations, declaration_of
from amberdb.engine.database.stats import Stats, stats_of
from amberdb.engine.database.transaction import Snapshot, Transaction, held
from amberdb.engine.database.upkeep import Upkeep
from amberdb.engine.integrity.check import CheckReport, check
from amberdb.engine.jobs import Jobs
from amberdb.engine.maintenance.background import Background
from amberdb.engine.maintenance.compaction import CompactProgress, CompactReport
from amberdb.engine.maintenance.embedding_backfill import EmbeddingWorker
from amberdb.engine.maintenance.erasure import Erasure
from amberdb.engine.maintenance.expiry import ExpiryWorker
from amberdb.engine.maintenance.index_build import Indexer, built_keyspaces
from amberdb.engine.maintenance.migrator import Migrator
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.schema.schema import CollectionDef
from amberdb.engine.search.searchers import VectorParts
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.view import NEWEST, State, View
from amberdb.index.registry import IndexSpec
from amberdb.wal import Recovery

open_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()


class _ClosedState(State):
    """In place of the state of a database that cannot be used any more: touching it raises."""

    __slots__ = ("_error",)

    def __init__(self, error: AmberError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:  # the slots of State were never set
        raise self._error


class Database:
    """An open database; made by amberdb.open(). A context manager; threads may share it."""

    rescue: Rescue | None = None
    """What open has restored with on_damage="restore", and what is lost. None otherwise."""

    def __init__(self, opened: Opened, options: Options, temporary: str | None = None) -> None:
        self.path = opened.directory
        self.options = options
        self.recovery: Recovery | None = opened.recovery
        """What open found after an unclean end: records replayed, tail cut. None otherwise."""
        self._opened = opened
        self._temporary = temporary
        self._closing = threading.Lock()
        self._is_closed = False
        bootstrap = State(opened.memtable, None, frozenset(), Catalog({}))
        with View(NEWEST, bootstrap, opened.store.begin(), 0, opened.store.path) as view:
            catalog = Catalog.load(view, options.document_bytes_max)
            built = built_keyspaces(view)
        opened.memtable.find_rows(catalog.row_prefixes)
        self._committer = Committer(
            opened.store,
            opened.log,
            opened.memtable,
            built,
            catalog,
            opened.last_us,
            opened.status,
            options,
        )
        self._feed = Feed(self._committer, options.subscriber_log_bytes_max)
        with self._committer.view() as view:
            self._feed.load(view)
        self._checkpointer = Checkpointer(self._committer, self._feed.retained)
        self._migrator = Migrator(self._committer, self._checkpointer, options)
        self._indexer = Indexer(self._committer, self._checkpointer, self._migrator)
        self._declarations = Declarations(
            self._committer, self._indexer, options.document_bytes_max
        )
        self._upkeep = Upkeep(
            opened, self._committer, self._checkpointer, self._indexer, self._feed, options
        )
        self._reaper = ExpiryWorker(self._committer, options)
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._background = Background(
            self._committer,
            self._checkpointer,
            self._indexer,
            self._reaper,
            self._upkeep,
            self._snapshots,
            options,
        )
        self._committer.on_commit = self._background.note_commit
        if opened.memtable.entries:
            self._background.note_commit(opened.memtable.size_bytes, NEVER)
        self._committer.searchers.attach(
            VectorParts(
                CacheFolder(
                    options.fs,
                    opened.directory,
                    opened.manifest.database_id,
                    opened.log.last_lsn,
                    [index.number for index in catalog.row_indexes.values()],
                ),
                Jobs("vectors", background=options.background),
                self._committer,
            ),
            self._indexer,
        )
        self._filler = EmbeddingWorker(self._committer, background=options.background)
        self._declarations.renew_texts()
        self._background.note_indexes()
        self._background.note_expiry()
        self._upkeep.begin(self._background.note_upkeep)
        open_databases.add(self)

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<amberdb.Database {self.path!r}{' closed' if self._is_closed else ''}>"

    # -- collections -------------------------------------------------------------------------

    def collection(
        self,
        name: str,
        *,
        indexes: Sequence[IndexSpec] | None = None,
        expires_at: str | None = None,
        required: Mapping[str, type | None] | Sequence[str] | None = None,
        version: int | None = None,
        migrate: Mapping[int, Upgrade] | None = None,
    ) -> Collection:
        """The collection, declared as given; what is not given stays as the catalog has it.

        A `version` above the catalog's comes with `migrate={version: function}` for each step: it
        makes a document of that version of one of the version below. Every read shows documents
        of the newest version from here on; they are stored so in the background (migrate() waits
        for it), meanwhile queries scan. CollectionVersionError: this program is too old.

        A new index over existing documents is built in the background, and queries scan until it
        is done; a Unique one is built before this returns. An index that is no longer listed is
        dropped. Raises CollectionError; for a Unique index that cannot be, and is dropped again,
        DuplicateKeyError (two documents share a value) or InvalidDocumentError (one has no key).
        """
        declaration = declaration_of(indexes, expires_at, required, version, migrate)
        self._declarations.declare(name, declaration)
        self._background.note_indexes()
        if declaration.indexes is not None:
            schema = self._committer.state.catalog.schema(name)
            self._committer.embedders.attach(schema, declaration.indexes)
        return Collection(name, self._committer)

    def rename_collection(self, old: str, new: str) -> None:
        """The same documents and indexes under another name. Open Collection objects go by name:
        those of the old one raise CollectionMissingError. Raises CollectionError when there is a
        `new` already, CollectionMissingError when there is no `old`."""
        self._declarations.rename(old, new)

    def drop_collection(self, name: str) -> None:
        """The collection is gone with this commit: its documents, its indexes, its name. Snapshots
        keep it. Its space is given back in the background, in bounded batches; build_indexes()
        returns when that is done, and after compact() no file has anything of it. Raises
        CollectionMissingError."""
        self._declarations.drop(name)
        self._background.note_indexes()

    def collections(self) -> list[str]:
        """The names in the catalog, sorted."""
        return sorted(self._committer.state.catalog.schemas)

    def definition(self, name: str) -> CollectionDef:
        """How a collection is declared. Raises CollectionMissingError."""
        with self._committer.view() as view:
            return schema_of(view, name).definition

    def migrate(self, progress: Progress | None = None) -> None:
        """Returns when every document is stored at its collection's version;
        `progress(collection, documents)` is called as it goes. Raises MigrationError for the first
        that cannot be, when all others are; CollectionError when a function was not given."""
        self._check_open()
        self._migrator.finish(progress)
        self._background.note_indexes()

    def build_indexes(self, progress: Progress | None = None) -> None:
        """Returns when no index is waiting to be built or purged, and no graph of vectors that a
        search has found missing, nor a migration whose functions are there (MigrationError);
        `progress(name, documents)` is called as it goes."""
        self._check_open()
        self._indexer.run(progress)
        self._committer.searchers.build()

    # -- reading and writing -----------------------------------------------------------------

    def transaction(
        self, *, sync: Sync | None = None, timeout_ms: int | None = None
    ) -> Transaction:
        """`with db.transaction() as tx:` writes several collections in one commit, or none."""
        return Transaction(self._committer, sync, timeout_ms)

    def refresh(self) -> Lsn:
        """With `read_only`: looks for what the writing process has acknowledged since, which reads
        from now on see; how far that goes. Needed only with `refresh_interval_ms`, since without
        it each read looks. The writing process itself always sees all of it.

        Raises ReplacedError when there is another database at this path by now,
        DatabaseMissingError when there is none.
        """
        with self._committer.view() as view:
            return Lsn(view.lsn)

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        """`with db.snapshot() as at:` reads several collections at one Lsn."""
        limit = self.options.snapshot_max_age_ms if max_age_ms is None else max_age_ms
        snapshot = Snapshot(self._committer, limit, self._snapshots.discard)
        self._snapshots.add(snapshot)
        self._background.note_snapshot()
        return snapshot

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """Changes of documents behind `since`, durable ones only, in order.

        None means as far back as the log reaches. With `follow` it waits for more, until the
        database is closed or nothing came for `timeout_s`. Raises LogTruncatedError.
        """
        self._check_open()
        return self._feed.changes(since, follow, timeout_s)

    def subscriber(self, name: str, *, since: Lsn | None = None) -> Subscriber:
        """A reader of the feed whose position is kept in the database; new ones begin at `since`,
        or now. The log is kept for it, up to `subscriber_log_bytes_max`."""
        self._check_open()
        return self._feed.subscriber(name, since)

    def expire(self) -> int:
        """Removes everything that has expired by now; how many documents there were."""
        return self._reaper.expire(self._committer.now_us())

    # -- care --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Returns when everything committed so far survives power loss."""
        self._check_open()
        self._committer.log.sync()

    def checkpoint(self) -> None:
        """Moves everything committed so far into LMDB and lets its log go.

        Raises StorageError, and CommitUnknownError after a failed sync; nothing is lost by that.
        """
        self._check_open()
        self._checkpointer.run()

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """Writes data.mdb anew without free pages and dead rows, and renews the log and the files
        in cache/. Readers and writers go on, but a writer may have to wait for memory; the disk
        holds both files until it is done. Nothing deleted before is left in the directory, save
        what a subscriber has yet to read; so `.broken` files go, and the next backup is a full one.
        `progress(pairs, of)` is called as it goes.

        Raises StorageError, DiskFullError: then nothing has changed, or all but the removal of
        what is no longer needed.
        """
        self._check_open()
        return self._upkeep.erasures.compact(progress)

    def erase(
        self,
        collection: str,
        where: Where,
        *,
        reason: str,
        progress: CompactProgress | None = None,
    ) -> Erasure:
        """Deletes all that match, in one commit, expired ones too, and does what compact() does,
        so that no file of the directory holds anything of them; the receipt, which is kept.
        Subscribers who lag get LogTruncatedError. Backups are out of reach; the receipt names
        them.

        Raises QueryError, CollectionMissingError, TransactionTooLargeError: nothing was done;
        StorageError, DiskFullError: they are deleted, and the next open, compact() or erase()
        completes it.
        """
        self._check_open()
        return self._upkeep.erasures.run(collection, where, reason, progress)

    def erasures(self) -> list[Erasure]:
        """The receipts, the oldest first (the last 1,000); `completed` is None in one that was
        interrupted and is not complete yet."""
        return self._upkeep.erasures.receipts()

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Compares every index, count and checksum with the documents, as of now."""
        return check(self._committer, progress)

    def backup(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        base: str | os.PathLike[str] | None = None,
        compress: Compress = None,
        rate_bytes_s: float | None = None,
        hold_log: bool = True,
        progress: Progress | None = None,
    ) -> BackupReport:
        """Writes one file with everything committed before the call, verified, or nothing. Without
        `path` it is the next of the rolling backups, now.

        With `base`, the path of the last backup, only the commits since. Readers and writers go on.
        For the next incremental one the log is kept from here on (up to
        `subscriber_log_bytes_max`), unless `hold_log` is False. `rate_bytes_s` limits the speed;
        `progress(path, bytes)` is called for each block. Raises BackupExistsError,
        BackupChainError when it cannot go on from the base, BackupError, DiskFullError,
        CorruptionError when the database is damaged.
        """
        self._check_open()
        if path is None:
            return self._upkeep.backup(progress)
        return self._upkeep.backups.run(path, base, compress, rate_bytes_s, hold_log, progress)

    def stats(self) -> Stats:
        """Lsns, bytes by kind, latencies, collections, readers: a snapshot of the insides."""
        return stats_of(
            self.path,
            self._committer,
            self._checkpointer,
            self._migrator,
            self._feed,
            [snapshot.age_ms for snapshot in held(self._snapshots)],
            self.options.fs,
            self._upkeep.stats(),
        )

    @property
    def archived_lsn(self) -> Lsn | None:
        """Where the newest backup ends, while an incremental one can go on from there."""
        self._check_open()
        return self._feed.archived

    def close(self) -> None:
        """Checkpoints, syncs and lets go of the directory; a second call does nothing.

        Open snapshots are closed. Raises BusyError while another thread is inside a transaction,
        CommitUnknownError when the last sync failed.
        """
        self._committer.refuse_inside()
        with self._closing:
            if self._is_closed:
                return
            self._filler.close()
            self._background.stop()
            self._upkeep.stop()
            self._committer.searchers.stop()
            for snapshot in held(self._snapshots):
                snapshot.close()
            self._close_parts()

    # -- inside ------------------------------------------------------------------------------

    def _check_open(self) -> None:
        """Raises ClosedError, ForkedError, or TransactionError inside one's own transaction."""
        self._committer.state.active  # noqa: B018  raises when it is gone
        self._committer.refuse_inside()

    def _close_parts(self) -> None:
        committer = self._committer
        log = committer.log
        try:
            if log.failed is None:
                self._checkpointer.run()
        except AmberError:
            pass  # the log has it all; the next open replays it
        if failpoints.on:
            failpoints.reach("close.checkpointed")
        committer.searchers.save()
        with self._checkpointer.mutex:
            committer.shut(_ClosedState(ClosedError("the database is closed: open it again")))
        self._is_closed = True
        open_databases.discard(self)
        try:
            log.close()
            if log.failed is None:
                if failpoints.on:
                    failpoints.reach("close.synced")
                mark_clean(self._opened, self.options, log.last_lsn)
                if failpoints.on:
                    failpoints.reach("close.marked-clean")
        except CommitUnknownError:
            raise
        except OSError:
            pass  # without the mark the next open recovers, which is slower and as safe
        finally:
            self._opened.lock.close()
            if self._temporary is not None:
                import shutil

                shutil.rmtree(self._temporary, ignore_errors=True)

    def _abandon(self) -> None:
        """In a forked child: lets go of the lock, and makes every call raise."""
        error = ForkedError(
            f"{self.path} was opened before this process was forked: open it in the child, "
            "or start children with the spawn method",
            path=self.path,
        )
        self._is_closed = True
        self._committer.abandon(_ClosedState(error), forked=True)
        self._opened.lock.close()


def open_database(
    path: str | os.PathLike[str], *, create: bool = True, read_only: bool = False, **settings: Any
) -> Database:
    """Opens a database, creating it when it is missing; `:memory:` keeps nothing. With `read_only`
    it is read beside the process that writes it, or without one, and never created or changed.

    `settings` are the fields of Options. Raises OpenError (LockedError, NotADatabaseError,
    DatabaseMissingError, FormatError), CorruptionError, DiskFullError.
    """
    options = Options(**settings)
    name = os.fspath(path)
    if read_only:
        from amberdb.engine.database.read_only import open_to_read  # it is a Database itself

        return open_to_read(name, options)
    if name != ":memory:":
        return _opened(name, options, create, settings)
    import shutil  # not at the top: most programs never need them, and all would pay
    import tempfile

    options = replace(options, compact="manual", backups=None)
    shm = "/dev/shm"
    parent = shm if os.path.isdir(shm) and os.access(shm, os.W_OK) else None
    temporary = tempfile.mkdtemp(prefix="amberdb-", dir=parent)
    try:
        inner = os.path.join(temporary, "memory.amber")
        opened = open_parts(inner, options, create=True, durable=False)
        return _database_of(opened, options, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _opened(path: str, options: Options, create: bool, settings: dict[str, Any]) -> Database:
    finish_rescue(path, options)
    try:
        return _database_of(open_parts(path, options, create=create), options)
    except CorruptionError as error:
        if options.on_damage == "raise":
            explain(path, options, error)
        found = rescue(path, options, settings, error)
    database = _database_of(open_parts(path, options, create=False), options)
    database.rescue = found
    return database


def _database_of(opened: Opened, options: Options, temporary: str | None = None) -> Database:
    try:
        return Database(opened, options, temporary)
    except BaseException:  # a damaged catalog: the directory can be opened again once it is mended
        opened.close()
        raise


def _close_all() -> None:
    for database in list(open_databases):
        try:
            database.close()
        except AmberError:
            pass  # nobody is left to tell; the log is synced as far as it went


def _after_fork_in_child() -> None:
    for database in list(open_databases):
        database._abandon()  # pyright: ignore[reportPrivateUsage]
    open_databases.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
