"""The database as programs see it: one facade over an engine that writes, or one that follows.

Invariants:
- Every method reads or writes through its engine; on a following engine each method that would
  write raises ReadOnlyError.
- After close(), and in a forked child, every call raises; nothing is written any more.
- At interpreter exit the log is synced and no thread is started.
"""

import atexit
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from amberdb._errors import AmberError, ForkedError, ReadOnlyError
from amberdb._types import Lsn, Progress, Sync, Where
from amberdb.engine.backup.backup import Compress
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.rescue import Rescue
from amberdb.engine.commit.change_feed import Change, Subscriber, changes
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.declarations import declaration_of
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.database.stats import Stats
from amberdb.engine.database.transaction import Snapshot, Transaction
from amberdb.engine.integrity.check import CheckReport, check
from amberdb.engine.maintenance.compaction import CompactProgress, CompactReport
from amberdb.engine.maintenance.erasure import Erasure, receipts_of
from amberdb.engine.options import Options
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.storage.view import schema_of
from amberdb.index.registry import IndexSpec
from amberdb.wal import Recovery

_open_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()


class Database:
    """An open database; made by amberdb.open(). A context manager; threads may share it."""

    def __init__(self, engine: Engine | FollowingEngine) -> None:
        self._engine = engine
        self.path: str = engine.path
        self.options: Options = engine.options
        self.recovery: Recovery | None = engine.recovery
        """The records that open replayed and the tail that it cut after an unclean end; else
        None."""
        self.rescue: Rescue | None = engine.rescue
        """The restore that open made with on_damage="restore", and what is lost; else None."""
        _open_databases.add(self)

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
        marks = " read-only" if isinstance(self._engine, FollowingEngine) else ""
        marks += " closed" if self._engine.is_closed else ""
        return f"<amberdb.Database {self.path!r}{marks}>"

    def __getitem__(self, name: str) -> Collection:
        """db["event"]: the collection as the catalog has it. Raises CollectionMissingError."""
        with self._engine.readable.view() as view:
            schema_of(view, name)
        return Collection(name, self._engine)

    def _writing(self, verb: str) -> Engine:
        """The engine, open, for a method that writes. Raises ReadOnlyError, ClosedError,
        ForkedError, and TransactionError inside one's own transaction."""
        engine = self._engine
        engine.check_open()
        if isinstance(engine, FollowingEngine):
            raise ReadOnlyError(
                f"{self.path} was opened with read_only=True: call {verb}() in the process that "
                "writes, or open it to write",
                path=self.path,
            )
        return engine

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
        self._engine.declare(name, declaration)
        return Collection(name, self._engine)

    def rename_collection(self, old: str, new: str) -> None:
        """The same documents and indexes under another name. Open Collection objects go by name:
        those of the old one raise CollectionMissingError. Raises CollectionError when there is a
        `new` already, CollectionMissingError when there is no `old`."""
        self._writing("rename_collection").declarations.rename(old, new)

    def drop_collection(self, name: str) -> None:
        """The collection is gone with this commit: its documents, its indexes, its name. Snapshots
        keep it. Its space is given back in the background, in bounded batches; build_indexes()
        returns when that is done, and after compact() no file has anything of it. Raises
        CollectionMissingError."""
        engine = self._writing("drop_collection")
        engine.declarations.drop(name)
        engine.background.note_indexes()

    def collections(self) -> list[str]:
        """The names in the catalog, sorted."""
        with self._engine.readable.view() as view:
            return sorted(view.catalog.schemas)

    def definition(self, name: str) -> CollectionDef:
        """How a collection is declared. Raises CollectionMissingError."""
        with self._engine.readable.view() as view:
            return schema_of(view, name).definition

    def migrate(self, progress: Progress | None = None) -> None:
        """Returns when every document is stored at its collection's version;
        `progress(collection, documents)` is called as it goes. Raises MigrationError for the first
        that cannot be, when all others are; CollectionError when a function was not given."""
        engine = self._writing("migrate")
        engine.migrator.finish(progress)
        engine.background.note_indexes()

    def build_indexes(self, progress: Progress | None = None) -> None:
        """Returns when no index is waiting to be built or purged, and no graph of vectors that a
        search has found missing, nor a migration whose functions are there (MigrationError);
        `progress(name, documents)` is called as it goes."""
        engine = self._writing("build_indexes")
        engine.indexer.run(progress)
        engine.searchers.build()

    # -- reading and writing -----------------------------------------------------------------

    def transaction(
        self, *, sync: Sync | None = None, timeout_ms: int | None = None
    ) -> Transaction:
        """`with db.transaction() as tx:` writes several collections in one commit, or none."""
        return Transaction(self._writing("transaction"), sync, timeout_ms)

    def refresh(self) -> Lsn:
        """With `read_only`: looks for what the writing process has acknowledged since, which reads
        from now on see; how far that goes. Needed only with `refresh_interval_ms`, since without
        it each read looks. The writing process itself always sees all of it.

        Raises ReplacedError when there is another database at this path by now,
        DatabaseMissingError when there is none.
        """
        return self._engine.refresh()

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        """`with db.snapshot() as at:` reads several collections at one Lsn."""
        engine = self._engine
        limit_ms = self.options.snapshot_max_age_ms if max_age_ms is None else max_age_ms
        return Snapshot(engine.held_views.hold(engine.readable.view(), limit_ms), engine.searchers)

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """Changes of documents behind `since`, durable ones only, in order.

        None means as far back as the log reaches. With `follow` it waits for more, until the
        database is closed or nothing came for `timeout_s`. Raises LogTruncatedError.
        """
        self._engine.check_open()
        self._engine.refresh()
        return changes(self._engine.readable, since, follow, timeout_s)

    def subscriber(self, name: str, *, since: Lsn | None = None) -> Subscriber:
        """A reader of the feed whose position is kept in the database; new ones begin at `since`,
        or now. The log is kept for it, up to `subscriber_log_bytes_max`."""
        return self._writing("subscriber").feed.subscriber(name, since)

    def expire(self) -> int:
        """Removes everything that has expired by now; how many documents there were."""
        engine = self._writing("expire")
        return engine.expiry.expire(engine.committer.now_us())

    # -- care --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Returns when everything committed so far survives power loss."""
        self._writing("sync").committer.log.sync()

    def checkpoint(self) -> None:
        """Moves everything committed so far into LMDB and lets its log go.

        Raises StorageError, and CommitUnknownError after a failed sync; nothing is lost by that.
        """
        self._writing("checkpoint").checkpointer.run()

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """Writes data.mdb anew without free pages and dead rows, and renews the log and the files
        in cache/. Readers and writers go on, but a writer may have to wait for memory; the disk
        holds both files until it is done. Nothing deleted before is left in the directory, save
        what a subscriber has yet to read; so `.broken` files go, and the next backup is a full one.
        `progress(pairs, of)` is called as it goes.

        Raises StorageError, DiskFullError: then nothing has changed, or all but the removal of
        what is no longer needed.
        """
        return self._writing("compact").maintenance.erasures.compact(progress)

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
        erasures = self._writing("erase").maintenance.erasures
        return erasures.run(collection, where, reason, progress)

    def erasures(self) -> list[Erasure]:
        """The receipts, the oldest first (the last 1,000); `completed` is None in one that was
        interrupted and is not complete yet."""
        with self._engine.readable.view() as view:
            return receipts_of(view)

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Compares every index, count and checksum with the documents, as of now."""
        return check(self._engine.readable, self._engine.searchers, progress)

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
        maintenance = self._writing("backup").maintenance
        if path is None:
            return maintenance.backup(progress)
        return maintenance.backups.run(path, base, compress, rate_bytes_s, hold_log, progress)

    def stats(self) -> Stats:
        """Lsns, bytes by kind, latencies, collections, readers: a snapshot of the insides."""
        return self._engine.stats()

    @property
    def archived_lsn(self) -> Lsn | None:
        """Where the newest backup ends, while an incremental one can go on from there."""
        self._engine.check_open()
        return self._engine.archived_lsn

    def close(self) -> None:
        """Checkpoints, syncs and releases the directory; a second call does nothing.

        Open snapshots are closed. Raises BusyError while another thread is inside a transaction,
        CommitUnknownError when the last sync failed.
        """
        self._engine.close()
        _open_databases.discard(self)

    def _abandon(self) -> None:
        """In a forked child: makes every call raise."""
        self._engine.abandon(
            ForkedError(
                f"{self.path} was opened before this process was forked: open it in the child, "
                "or start children with the spawn method",
                path=self.path,
            )
        )


def _close_all() -> None:
    for database in list(_open_databases):
        try:
            database.close()
        except AmberError:
            pass  # no caller is left; the log is synced as far as it went


def _after_fork_in_child() -> None:
    for database in list(_open_databases):
        database._abandon()  # pyright: ignore[reportPrivateUsage]
    _open_databases.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
