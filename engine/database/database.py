"""The database as programs see it: one facade over an engine that writes, or one that follows.

Invariants:
- Every method reads or writes through its engine; on a following engine each method that would
  write raises ReadOnlyError.
- After close(), and in a forked child, every call raises; nothing is written any more.
- At interpreter exit the log is synced and no thread is started.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from amberdb._attempts import ATTEMPTS, repeated
from amberdb._errors import QueryError, TransactionError
from amberdb._public import public
from amberdb._types import Isolation, Lsn, Progress, Sync, Where
from amberdb.engine.backup.backup import Compress
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.history import KnownBackup, known_backups
from amberdb.engine.backup.rescue import Rescue
from amberdb.engine.commit.change_feed import Change, Subscriber, changes
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.declarations import declaration_of
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.stats import Stats
from amberdb.engine.database.transaction import Snapshot, Transaction
from amberdb.engine.integrity.check import CheckReport, check
from amberdb.engine.maintenance.compaction import CompactProgress, CompactReport
from amberdb.engine.maintenance.erasure import Erasure, receipts_of
from amberdb.engine.options import Options, check_isolation
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.storage.view import schema_of
from amberdb.index.registry import IndexSpec
from amberdb.wal import Recovery

T = TypeVar("T")


@public
class Database:
    """An open database, returned by amberdb.open(). Threads may share it.

    with amberdb.open("memory.amber") as db:      # closed at the end of the block
        events = db.collection("event")           # created when it is missing
        db["event"].put({"content": "..."})       # an existing collection by its name
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        engine = handle.engine
        self.path: str = handle.path
        self.options: Options = handle.options
        self.recovery: Recovery | None = engine.recovery
        """The records that open replayed and the tail that it cut after an unclean end; else
        None."""
        self.rescue: Rescue | None = engine.rescue
        """The restore that open made with on_damage="restore", and what is lost; else None."""

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
        marks = " read-only" if self._handle.is_read_only else ""
        marks += " closed" if self._handle.is_closed else ""
        return f"<amberdb.Database {self.path!r}{marks}>"

    def __getitem__(self, name: str) -> Collection:
        """The existing collection of this name, with the definition in the catalog.

            db["event"].get("a")

        Unlike collection(), it creates and declares nothing. Raises CollectionMissingError.
        """
        with self._handle.engine.readable.view() as view:
            schema_of(view, name)
        return Collection(name, self._handle)

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
        owner: str | None = None,
    ) -> Collection:
        """Creates or declares a collection and returns it.

            events = db.collection(
                "event",
                indexes=[Ordered("entity_id", "created_at"), Unique("source_key", sparse=True)],
                expires_at="expiry_date",
                required={"content": str},
            )

        indexes     the complete list: a new index is built in the background over the documents
                    that exist (a Unique one before this returns), an index that is not listed is
                    dropped
        expires_at  the field with the time of expiry: an aware datetime, or seconds since 1970; a
                    document without it never expires
        required    fields that every document must have: a list of names, or {name: type}
        version     the version of documents that this program writes; the first is 1
        migrate     {version: function} for each step up to `version`; a function takes a document
                    of the version below and returns the new document. Reads show upgraded
                    documents from now on; the stored ones are upgraded in the background
                    (migrate() waits for it)
        owner       the name of the system that declares, for a library with collections of its own:
                    nobody else changes what it declared. None: the program

        An argument that is left out keeps the definition in the catalog.

        Raises CollectionError for an invalid declaration, and for one that would change a
        collection of another owner; CollectionVersionError when the stored
        documents are newer than `version`. A Unique index that cannot be built is dropped again:
        DuplicateKeyError (two documents share a value), InvalidDocumentError (a document has no
        key for it).
        """
        declaration = declaration_of(indexes, expires_at, required, version, migrate, owner)
        self._handle.engine.declare(name, declaration)
        return Collection(name, self._handle)

    def rename_collection(self, old: str, new: str) -> None:
        """Renames a collection, with its documents and indexes.

        A Collection object refers to its collection by name: an object of the old name raises
        CollectionMissingError. Raises CollectionError when `new` exists already,
        CollectionMissingError when `old` does not exist.
        """
        self._handle.writing("rename_collection").declarations.rename(old, new)

    def drop_collection(self, name: str) -> None:
        """Deletes a collection in one commit: documents, indexes and name.

        Open snapshots keep it. Its space is freed in the background, in bounded batches;
        build_indexes() returns when that is done. After compact() no file of the database holds
        any of it. Raises CollectionMissingError.
        """
        engine = self._handle.writing("drop_collection")
        engine.declarations.drop(name)
        engine.background.note_declared()

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        with self._handle.engine.readable.view() as view:
            return sorted(view.catalog.schemas)

    def definition(self, name: str) -> CollectionDef:
        """The definition of a collection, from the catalog. Raises CollectionMissingError."""
        with self._handle.engine.readable.view() as view:
            return schema_of(view, name).definition

    def migrate(self, progress: Progress | None = None) -> None:
        """Waits until every document is stored at the version of its collection.

        `progress(collection, documents)` is called during the work. Raises CollectionError when a
        function of `migrate=` was not given, and MigrationError for the first document that cannot
        be upgraded, after all others were.
        """
        engine = self._handle.writing("migrate")
        engine.indexer.migrate(progress)
        engine.background.note_indexes()

    def build_indexes(self, progress: Progress | None = None) -> None:
        """Waits until every index is built, every dropped one is removed, and every migration
        whose functions were given is complete.

        Graphs of vectors that a search found missing are built too. `progress(name, documents)` is
        called during the work. Raises MigrationError.
        """
        engine = self._handle.writing("build_indexes")
        engine.indexer.run(progress)
        engine.searchers.build()

    # -- reading and writing -----------------------------------------------------------------

    def transaction(
        self,
        *,
        sync: Sync | None = None,
        timeout_ms: int | None = None,
        isolation: Isolation | None = None,
    ) -> Transaction:
        """A transaction over all collections: one commit, or none.

            with db.transaction() as tx:
                tx["profile"].put({"id": "lin", "name": "Lin"})
                tx["log"].insert({"text": "profile saved"})
            tx.lsn                                   # the commit's place in the log

        sync        durability class of the commit: "always", "interval" or "os"; None: that of
                    the database
        timeout_ms  the longest wait for the writer lock, in milliseconds; None: `busy_timeout_ms`
        isolation   "serializable" makes a difference on a server alone: see run()

        One transaction runs at a time; it is serializable and reads its own writes. When the block
        raises, nothing is stored. A write through `db` inside the block raises TransactionError.

        Raises BusyError when the lock is not free in time, ReadOnlyError; at the end of the block
        DuplicateKeyError, TransactionTooLargeError, DiskFullError, PoisonedError (nothing is
        stored), and CommitUnknownError when the sync of the log failed.
        """
        if isolation is not None:
            check_isolation(isolation)  # every transaction of a directory is serializable
        return Transaction(self._handle, self._handle.writer("transaction"), sync, timeout_ms)

    def run(
        self,
        work: Callable[[Transaction], T],
        *,
        sync: Sync | None = None,
        isolation: Isolation | None = None,
        attempts: int = ATTEMPTS,
    ) -> T:
        """Calls `work` with a transaction, commits, and returns its result.

            def order(tx):
                left = tx["stock"]["umbrella"]["left"]
                tx["stock"].update("umbrella", {"left": left - 1})
                return left - 1

            left = db.run(order)

        sync       durability class of the commit, as for transaction()
        isolation  "serializable": on a server, as if all transactions that say so ran one after
                   another; None: as docs/remote.md says. In a directory each one is serializable
        attempts   the most calls of `work`

        On a server two transactions may be in each other's way. One of them then stores nothing,
        and `work` is called again after a pause, so it must leave nothing behind but what it writes
        with `tx`. The last attempt raises ConflictError. In a directory `work` is called once.
        Raises what `work` raises, then nothing is stored, and as transaction().
        """

        def once() -> T:
            with self.transaction(sync=sync, isolation=isolation) as tx:
                return work(tx)

        return repeated(once, attempts)

    def check_transaction(self, tx: Transaction) -> None:
        """Checks that `tx` is an open transaction of this database, for a function that writes
        within the transaction of its caller. Raises ClosedError, ReadOnlyError,
        TransactionError."""
        if self._handle.is_closed:
            self._handle.check_open()
        engine = self._handle.writer("check_transaction")
        if not isinstance(tx, Transaction):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TransactionError(f"tx={tx!r}: give what `with db.transaction() as tx` gives")
        tx.writer()
        if not tx.is_of(engine):
            raise TransactionError(
                f"the transaction is not one of {self.path!r}: begin it with the database of the "
                "system that writes in it"
            )

    def refresh(self) -> Lsn:
        """With `read_only`: makes all that the writing process has acknowledged visible to reads.

        Returns the newest visible Lsn. It is needed only when `refresh_interval_ms` was set: by
        default every read refreshes. In the writing process it changes nothing.

        Raises ReplacedError when another database is at this path by now, DatabaseMissingError
        when none is.
        """
        return self._handle.engine.refresh()

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        """A read-only view of all collections at one Lsn.

            with db.snapshot() as at:
                at["event"].find({"entity_id": "lin"})
                at["profile"].get("lin")             # as of the same commit
            at.lsn

        max_age_ms  the snapshot is closed after so many milliseconds, since it keeps old pages
                    from being reused; None: `snapshot_max_age_ms`

        A snapshot never waits for a writer and never makes a writer wait. Reads raise
        SnapshotExpiredError past the age limit and ClosedError after the block. Raises
        SnapshotLimitError when `snapshots_max` are open, and ReadersFullError.
        """
        limit_ms = self.options.snapshot_max_age_ms if max_age_ms is None else max_age_ms
        return Snapshot(self._handle, limit_ms)

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """The change feed: durable commits after `since`, in commit order.

            for change in db.changes(since=lsn):
                print(change.lsn, change.op, change.collection, change.id, change.document)

        since      an Lsn: changes after it; None: from the oldest commit in the log
        follow     wait for more commits instead of ending, until the database is closed
        timeout_s  with `follow`: end after so many seconds without a new commit; None: never

        Raises LogTruncatedError, with the Lsn to go on from in `resume`, when the log no longer
        reaches back to `since`; a subscriber() keeps the log for its position.
        """
        self._handle.check_open()
        engine = self._handle.engine
        engine.refresh()
        return changes(engine.readable, self._handle, since, follow, timeout_s)

    def subscriber(self, name: str, *, since: Lsn | None = None) -> Subscriber:
        """A durable subscriber: a reader of the change feed whose position the database stores.

            feed = db.subscriber("indexer")          # the position of an earlier run, or now
            for change in feed.changes():
                handle(change)
                feed.acknowledge(change.lsn)

        since  where a new subscriber begins; None: after the newest commit

        The log after the position is kept for it, up to `subscriber_log_bytes_max`. Raises
        QueryError for a name that is not a str of 1 to 200 bytes, ReadOnlyError.
        """
        return self._handle.writing("subscriber").feed.subscriber(name, self._handle, since)

    def expire(self) -> int:
        """Removes the documents that have expired by now; returns how many. While the clock is
        further behind the last commit than `clock_slack_ms`, none: see accept_clock()."""
        engine = self._handle.writing("expire")
        due_us = engine.committer.clock.due_us()
        return 0 if due_us is None else engine.expiry.expire(due_us)

    def accept_clock(self) -> None:
        """Takes the clock as right although the last commit was made at a later time.

        After a commit by a clock that was ahead, ClockWarning names both times, and nothing is
        removed because of its age (expire(), the removal in the background, old backups), since it
        may as well be this clock that is wrong. That ends when the clock is within
        `clock_slack_ms` of the last commit again, or, for good, with this call. Times of commits,
        as changes() and restore(until=) have them, stay at the later time until the clock reaches
        it. Raises ReadOnlyError.
        """
        self._handle.writing("accept_clock").committer.accept_clock()

    # -- care --------------------------------------------------------------------------------

    def sync(self) -> None:
        """Syncs the log: every commit so far survives power loss when this returns. Raises
        CommitUnknownError."""
        self._handle.writing("sync").committer.log.sync()

    def checkpoint(self) -> None:
        """Writes every commit so far into LMDB and recycles its log.

        Raises StorageError, and CommitUnknownError after a failed sync; no commit is lost then.
        """
        self._handle.writing("checkpoint").checkpointer.run()

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """Rewrites data.mdb without free pages and deleted rows, and the files in cache/, and
        rotates the log.

        Afterwards no file in the directory holds a document that was deleted before the call,
        except log that a subscriber has yet to read. Documents that have expired and are not
        removed yet (see expire()) are still stored. `.broken` files are deleted; the next backup
        is a full one. Readers and writers continue; a writer may have to wait for memory. The
        disk holds the old and the new file until it is done. `progress(pairs, of)` is called
        during the work.

        Raises StorageError, DiskFullError: then nothing has changed, or only old files are left.
        """
        return self._handle.writing("compact").maintenance.erasures.compact(progress)

    def upgrade(self, progress: CompactProgress | None = None) -> CompactReport | None:
        """Rewrites data.mdb in the newest format, vectors moved out of documents; returns None
        when it is in that already.

        A database of an older format is read and written as it is, and is rewritten in the
        background after its first checkpoint, unless it was opened with `compact="manual"`. This
        does it now. Readers and writers continue, and the disk holds the old and the new file until
        it is done. `progress(pairs, of)` is called during the work.

        Raises StorageError, DiskFullError: then nothing has changed.
        """
        return self._handle.writing("upgrade").maintenance.erasures.upgrade(progress)

    def erase(
        self,
        collection: str | Mapping[str, Where | Sequence[Where]],
        where: Where | None = None,
        *,
        reason: str,
        progress: CompactProgress | None = None,
    ) -> Erasure:
        """Deletes the documents that match, and removes them from every file.

            receipt = db.erase("event", {"entity_id": "lin"}, reason="request 17")
            receipt = db.erase({"event": {"who": "lin"}, "log": [where, other]}, reason="...")
            receipt.documents, receipt.completed, receipt.backups

        Of several filters for a collection each document is deleted that any of them matches.
        Expired documents are deleted too, and the log that subscribers have yet to read is
        removed (they get LogTruncatedError). Up to 10,000 documents are deleted in one commit, more
        in several. Returns the receipt, which the database keeps. It names the backups that may
        still hold the documents: those are out of reach.

        Raises QueryError, CollectionMissingError: nothing was done. StorageError, DiskFullError:
        documents are deleted, and the next open, compact() or erase() completes the erasure.
        """
        erasures = self._handle.writing("erase").maintenance.erasures
        if isinstance(collection, str):
            if where is None:
                raise QueryError("erase() needs a filter: {} matches all documents")
            collection = {collection: where}
        return erasures.run(collection, reason, progress)

    def erasures(self) -> list[Erasure]:
        """The receipts of erase(), the oldest first; the last 1,000 are kept. `completed` is None
        for an erasure that was interrupted and is not complete yet."""
        with self._handle.engine.readable.view() as view:
            return receipts_of(view)

    def backups(self) -> list[KnownBackup]:
        """The backups that the database knows of, the oldest first; the last 1,000 are kept. Each
        is described as it was taken: its file may have been moved or removed since."""
        with self._handle.engine.readable.view() as view:
            return known_backups(view)

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Compares every index, count and checksum with the documents, at the newest Lsn.

            report = db.check()
            report.ok, report.problems               # one line for each problem, with its place
            report.notes                             # background jobs that fail, no damage

        `progress(step, count)` is called during the work.
        """
        engine = self._handle.engine
        report = check(engine.readable, engine.searchers, progress)
        report.notes += map(str, engine.failures.listed())
        return report

    def backup(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        base: str | os.PathLike[str] | None = None,
        compress: Compress = None,
        rate_bytes_s: float | None = None,
        hold_log: bool = True,
        sent_to: str | None = None,
        progress: Progress | None = None,
    ) -> BackupReport:
        """Writes one verified archive of every commit before the call, or no file at all.

            db.backup("monday.amberbak")                            # full
            db.backup("tuesday.amberbak", base="monday.amberbak")   # the commits since

        path          the new file; None: the next of the rolling backups, in their folder
        base          the last backup: the archive is incremental, with the commits after it
        compress      "zstd" (extra `zstd`) or None
        rate_bytes_s  the most that is written, in bytes per second; None: no limit
        hold_log      keep the log from here on for the next incremental backup, up to
                      `subscriber_log_bytes_max`
        sent_to       the place that the archive is sent to from here: receipts of erase() name it
                      once for each chain, in place of `path`. `hold_log` has no effect then
        progress      called as `progress(path, bytes)` for each block

        Readers and writers continue. Raises BackupExistsError, BackupChainError when the archive
        cannot follow `base`, BackupError, DiskFullError, and CorruptionError when the database is
        damaged.
        """
        maintenance = self._handle.writing("backup").maintenance
        if path is None:
            return maintenance.backup(progress)
        return maintenance.backups.run(
            path, base, compress, rate_bytes_s, hold_log, progress, sent_to
        )

    def stats(self) -> Stats:
        """Measurements of the open database: Lsns, bytes by kind, latencies, collections, readers.

            db.stats().bytes.total, db.stats().sync.mean_ms, db.stats()["last_lsn"]

        It loads no search index. The documents that wait for a vector are counted one by one.
        """
        return self._handle.engine.stats()

    @property
    def archived_lsn(self) -> Lsn | None:
        """The last Lsn of the newest backup while an incremental one can follow it; else None."""
        self._handle.engine.check_open()
        return self._handle.engine.archived_lsn

    def close(self) -> None:
        """Ends this handle; a second call does nothing.

        The last handle of this process on the directory checkpoints, syncs the log and releases the
        directory. Open snapshots are closed. Raises BusyError while another thread has a
        transaction open, CommitUnknownError when the last sync failed.
        """
        self._handle.close()
