"""Maintenance: long work on the files of a database, and the job queue that runs it.

Invariants:
- One job runs at a time, and each checks often whether it is to stop: close() does not wait long.
- A job that fails is logged and reported by stats(); no read or write fails because of it.
"""

from collections.abc import Callable
from typing import Any, final

from amberdb._errors import BackupError
from amberdb._types import Progress
from amberdb.engine.backup.backup import Backups
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.history import BackupHistory
from amberdb.engine.backup.schedule import NEVER_LSN, BackupSchedule
from amberdb.engine.commit.change_feed import Feed
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.recovery import Opened
from amberdb.engine.failures import Failures
from amberdb.engine.jobs import Jobs
from amberdb.engine.maintenance.auto_compaction import AutoCompaction
from amberdb.engine.maintenance.compaction import Compactor
from amberdb.engine.maintenance.erasure import Erasures
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.options import Options
from amberdb.engine.search.searchers import Searchers


@final
class Maintenance:
    """Backups, compaction and erasure of an open database."""

    def __init__(
        self,
        opened: Opened,
        committer: Committer,
        checkpointer: Checkpointer,
        indexer: Indexer,
        searchers: Searchers,
        feed: Feed,
        history: BackupHistory,
        failures: Failures,
        options: Options,
    ) -> None:
        self.backups = Backups(opened.directory, committer, checkpointer, history, options)
        compactor = Compactor(opened, committer, checkpointer, indexer, searchers, history, options)
        self.erasures = Erasures(committer, compactor, self.backups, feed, self._is_pruned)
        self._jobs = Jobs(
            "maintenance",
            failures,
            is_outside=committer.is_outside,
            background=options.background,
        )
        self._compaction = AutoCompaction(
            opened.directory, committer, checkpointer, compactor, self._jobs, options
        )
        self._schedule: BackupSchedule | None = None
        if options.backups is not None:
            self._schedule = BackupSchedule(
                opened.directory, committer, self.backups, self._jobs, failures, options
            )

    def begin(self, on_backup: Callable[[], None]) -> None:
        """After an open: continues interrupted work, and begins work that is due. `on_backup` is
        called after each rolling backup, taken or failed."""
        if self._schedule is not None:
            self._schedule.on_done = on_backup
        if self.erasures.pending():
            self._jobs.want(self.erasures.resume, "an interrupted erasure")
        self.step()

    def step(self) -> None:
        """Begins the work that is due."""
        if self._schedule is not None:
            self._schedule.step()

    def due_s(self) -> float | None:
        """Seconds until step() has work; None: not before the next commit."""
        return None if self._schedule is None else self._schedule.due_s()

    @property
    def due_lsn(self) -> int:
        """The commit that makes a rolling backup due by the number of commits."""
        return NEVER_LSN if self._schedule is None else self._schedule.due_lsn

    @property
    def counts_commits(self) -> bool:
        return self._schedule is not None and self._schedule.counts_commits

    def backup(self, progress: Progress | None) -> BackupReport:
        """Takes the next rolling backup now. Raises BackupError without `backups=`."""
        if self._schedule is None:
            raise BackupError("name the file, or open the database with backups=RollingBackups()")
        return self._schedule.take(progress)

    def stop(self) -> None:
        """Returns when no job runs; none will start again."""
        self._jobs.close()

    def stats(self) -> dict[str, Any]:
        return {
            "backups": None if self._schedule is None else self._schedule.stats(),
            "compaction": self._compaction.stats(),
            "erasures_waiting": [erasure.id for erasure in self.erasures.pending()],
        }

    def _is_pruned(self, path: str) -> bool:
        return self._schedule is not None and self._schedule.is_pruned(path)
