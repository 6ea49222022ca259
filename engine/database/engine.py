"""The engine: the one place where all parts of a database that is open to write are made, wired
and closed.

    recovery -> committer -> retention, feed, backup history -> checkpointer
    searchers, embedders -> migrator, indexer, declarations -> maintenance, background

Invariants:
- Every part is handed what it needs when it is made; no part looks another one up.
- Parts are closed in the reverse order of their dependencies: workers first, then the committer,
  then the log, MANIFEST and the lock.
"""

import logging
from typing import final

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import AmberError, ClosedError, CommitUnknownError, ReplacedError
from amberdb._types import Lsn
from amberdb.engine.backup.history import BackupHistory
from amberdb.engine.backup.rescue import Rescue
from amberdb.engine.commit.change_feed import Feed
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.clock import Clock
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.recovery import Opened
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.database.declarations import Declarations
from amberdb.engine.database.stats import Stats, stats_of
from amberdb.engine.failures import Failures
from amberdb.engine.jobs import Jobs
from amberdb.engine.maintenance.background import Background
from amberdb.engine.maintenance.embedding_backfill import EmbeddingWorker
from amberdb.engine.maintenance.expiry import ExpiryWorker
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.maintenance.maintenance import Maintenance
from amberdb.engine.maintenance.migrator import Migrator
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog, Declaration
from amberdb.engine.schema.keyspace import CLOCK
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searcher import VectorParts
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.held_view import HeldViews
from amberdb.engine.storage.view import NEWEST, stored_view
from amberdb.wal import Recovery

logger = logging.getLogger("amberdb.engine")


@final
class Engine:
    """All parts of a database that is open to write."""

    def __init__(
        self,
        opened: Opened,
        options: Options,
        *,
        rescue: Rescue | None = None,
        temporary: str | None = None,
    ) -> None:
        """`temporary` is a directory to remove at close. Raises CorruptionError, FormatError for a
        damaged catalog."""
        self.path = opened.directory
        self.options = options
        options = opened.options
        self.recovery: Recovery | None = opened.recovery
        self.rescue = rescue
        self._opened = opened
        self._temporary = temporary
        self._closing = CallLock()
        self.is_closed = False
        with stored_view(opened.store, opened.memtable, NEWEST, options) as view:
            catalog, built = view.catalog, view.built
            clock = Clock(options, opened.last_us, view.get(CLOCK))
        opened.memtable.find_unique(catalog.unique_prefixes)
        self.committer = committer = Committer(
            opened.store,
            opened.log,
            opened.memtable,
            built,
            catalog,
            clock,
            opened.status,
            options,
        )
        self.failures = failures = Failures()
        retention = LogRetention(opened.log, options.subscriber_log_bytes_max)
        self.feed = Feed(committer, retention)
        self.history = BackupHistory(committer, retention)
        self.checkpointer = Checkpointer(committer, retention, options)
        self.searchers = Searchers(self._vector_parts(catalog))
        self.embedders = Embedders()
        self.held_views = HeldViews(options)
        self.migrator = Migrator(committer, self.checkpointer, options)
        self.indexer = Indexer(
            committer, self.checkpointer, self.migrator, self.embedders, self.searchers, failures
        )
        self.declarations = Declarations(
            committer, self.indexer, self.searchers, self.embedders, options
        )
        self.expiry = ExpiryWorker(committer, self.checkpointer, failures, options)
        self.maintenance = Maintenance(
            opened,
            committer,
            self.checkpointer,
            self.indexer,
            self.searchers,
            self.feed,
            self.history,
            failures,
            options,
        )
        self.background = Background(
            committer, self.checkpointer, self.indexer, self.expiry, self.maintenance, failures,
            options,
        )  # fmt: skip
        self._embedding = EmbeddingWorker(
            committer, self.embedders, failures, background=options.background
        )
        self._begin()

    def _vector_parts(self, catalog: Catalog) -> VectorParts:
        opened, options = self._opened, self.options
        folder = CacheFolder(
            options.fs,
            opened.directory,
            opened.manifest.database_id,
            opened.log.last_lsn,
            [index.number for index in catalog.row_indexes.values()],
        )
        builder = Jobs(
            "vectors",
            self.failures,
            is_outside=self.committer.is_outside,
            background=options.background,
        )
        return VectorParts(folder, builder, self.committer)

    def _begin(self) -> None:
        """Commits reach the workers from here on, and work that an earlier process left begins."""
        background = self.background
        counts = self.maintenance.counts_commits
        self.committer.on_commit = background.count_commit if counts else background.note_commit
        self.committer.on_effects = self.embedders.note
        self.committer.on_rows = self.searchers.note_rows
        memtable = self._opened.memtable
        if memtable.entries:
            self.background.note_replayed(memtable)
        self.declarations.renew()
        self.background.note_indexes()
        self.background.note_expiry()
        self.maintenance.begin(self.background.note_maintenance)

    # -- the same in a following engine ------------------------------------------------------

    @property
    def readable(self) -> Committer:
        return self.committer

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError, or TransactionError inside one's own transaction."""
        self.committer.check_open()

    def declare(self, name: str, declaration: Declaration) -> None:
        """Raises as Database.collection() does."""
        self.declarations.declare(name, declaration)
        if self.declarations.leaves_work(name):
            self.background.note_declared()

    def adopt(self, name: str, declaration: Declaration) -> None:
        """Takes the functions of a declaration that another engine was given."""
        self.declarations.adopt(name, declaration)
        if self.declarations.leaves_work(name):
            self.background.note_declared()

    def refresh(self) -> Lsn:
        with self.committer.view() as view:
            return Lsn(view.lsn)

    @property
    def archived_lsn(self) -> Lsn | None:
        return self.history.archived

    def stats(self) -> Stats:
        return stats_of(
            self.path,
            self.committer,
            self.checkpointer,
            self.migrator,
            self.feed,
            self.history,
            self.searchers,
            self.embedders,
            self.held_views,
            self.failures,
            self.options.fs,
            self.maintenance.stats(),
        )

    def close(self) -> None:
        """Checkpoints, syncs and releases the directory; a second call does nothing, and completes
        one that was interrupted. Raises BusyError while another thread is inside a transaction;
        CommitUnknownError, and ReplacedError when commits were not durable yet in a directory that
        has gone."""
        self.committer.check_outside()
        with self._closing:
            if self.is_closed:
                return
            self._embedding.close()
            self.background.stop()
            self.maintenance.stop()
            self.searchers.stop()
            self.held_views.close()
            self._close_files()

    def abandon(self, error: AmberError) -> None:
        """In a forked child: releases the lock's descriptor, and makes every call raise."""
        self.is_closed = True
        self.committer.abandon_after_fork(error)
        self._opened.lock.close()

    # -- inside ------------------------------------------------------------------------------

    def _close_files(self) -> None:
        committer = self.committer
        log = committer.log
        try:
            if log.failed is None:
                self.checkpointer.run()
        except AmberError:
            pass  # the log has it all; the next open replays it
        if failpoints.on:
            failpoints.reach("close.checkpointed")
        self.searchers.save()
        with self.checkpointer.mutex:
            committer.close_to(ClosedError("the database is closed: open it again"))
        self.searchers.clear()
        try:
            log.close()
            if log.failed is None:
                if failpoints.on:
                    failpoints.reach("close.synced")
                try:
                    self._opened.mark_clean(log.last_lsn)
                except ReplacedError as error:  # nothing is lost that it had
                    logger.warning("%s", error)
                if failpoints.on:
                    failpoints.reach("close.marked-clean")
        except CommitUnknownError:
            raise
        except OSError:
            pass  # without the mark the next open recovers, which is slower and as safe
        finally:
            self._release()

    def _release(self) -> None:
        self._opened.status.close()
        self._opened.lock.close()
        if self._temporary is not None:
            from amberdb.engine.database.in_memory import remove  # few databases are in memory

            remove(self._temporary)
        self.is_closed = True
