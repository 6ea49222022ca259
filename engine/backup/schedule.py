"""Rolling backups: taken automatically at an interval into their own folder, and pruned.

    due -> incremental on the newest chain, or full -> pruned

Invariants:
- A backup is due when a commit was made after the last one, and the interval or the number of
  commits is reached; a database without writes is not backed up again.
- The commit that reaches the number is the one that makes it due: no later event is needed.
- A failure is logged, reported by stats() and tried again; no read or write fails because of it.
- A full backup begins a new chain after a day (or when the chain began a day after the clock's
  time), when the increments are larger than their base, and when the log no longer reaches back to
  the end of the chain.
- While the clock is in doubt nothing is pruned.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, final

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import BackupChainError
from amberdb._fs import first_free_name, staged_for
from amberdb._types import Lsn, Progress, lsn_epoch
from amberdb.engine.backup.archive import file_errors
from amberdb.engine.backup.backup import Backups
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.folder import SUFFIX, Chain, archives_in, chains_of, to_prune
from amberdb.engine.backup.history import known_backups
from amberdb.engine.commit.committer import Committer
from amberdb.engine.failures import Failures
from amberdb.engine.jobs import Jobs, Stop, Stopped, check_stop
from amberdb.engine.options import Options
from amberdb.engine.schema.keyspace import DATABASE_ID

logger = logging.getLogger("amberdb.engine")

CHAIN_S: Final = 86_400
CHAIN_MAX: Final = 100
"""The most archives in a chain: a restore reads all of them."""
RETRY_S: Final = 60.0
"""After a backup that failed; doubled after each, within limits."""
NEVER_LSN: Final = 1 << 64
_JOB: Final = "a rolling backup"


@final
class BackupSchedule:
    """Takes the rolling backups of a database that was opened with `backups=`."""

    def __init__(
        self,
        path: str,
        committer: Committer,
        backups: Backups,
        jobs: Jobs,
        failures: Failures,
        options: Options,
    ) -> None:
        assert options.backups is not None
        self._wanted = options.backups
        self._committer = committer
        self._backups = backups
        self._jobs = jobs
        self._failures = failures
        self._options = options
        self._fs = options.fs
        self._own = committer.store.get(DATABASE_ID) or b""
        self._mark = self._own.hex()[:8]
        """Part of every file name: databases that share a folder leave each other's staging files
        alone."""
        self.directory = self._wanted.directory_of(path)
        self.on_done: Callable[[], None] = lambda: None
        """Called after each backup in the background, taken or failed."""
        self._mutex = CallLock()
        self._is_wanted = False
        self._taken = 0
        self._failed = 0
        self._last_error: str | None = None
        self._last: tuple[int, float] | None = None
        """(last Lsn, epoch seconds when it was taken) of the newest backup of this database."""
        newest = self._newest_chain()
        if newest:
            header = newest[-1].header
            self._last = (header.last_lsn, min(header.created_us / 1e6, options.clock()))
        self.due_lsn = self._next_due_lsn()
        """The commit that makes a backup due by the number of commits."""

    @property
    def counts_commits(self) -> bool:
        """Whether a backup can become due by the number of commits."""
        return self._wanted.every_commits is not None and self._options.background

    def due_s(self) -> float | None:
        """Seconds until the next backup; None while there is nothing to back up, and while one is
        queued or running."""
        return None if self._is_wanted else self._due_s()

    def step(self) -> None:
        """Queues a backup if one is due. Called when one may be, and after each checkpoint."""
        due = None if self._mutex.is_held else self._due_s()  # else it is being taken
        if due is not None and due <= 0 and self._options.background:
            self._is_wanted = True
            self.due_lsn = NEVER_LSN
            self._jobs.want(self._run, _JOB)

    def take(self, progress: Progress | None = None) -> BackupReport:
        """Takes a backup now, and prunes. Raises the errors of Database.backup()."""
        with self._mutex, file_errors(self.directory):
            report = self._take(progress)
            self._last_error = None  # only now: while it is tried again, the reason is told
            self._taken += 1
            self._last = (report.lsn, self._options.clock())
            self._failures.clear(_JOB)
            self.due_lsn = self._next_due_lsn()
            if failpoints.on:
                failpoints.reach("rolling.taken")
            try:
                self._prune(report.path)
            except OSError as error:  # tried again after the next backup
                self._last_error = f"{error.filename} could not be removed: {error.strerror}"
                logger.warning("%s", self._last_error)
        return report

    def is_pruned(self, path: str) -> bool:
        """Whether the path is in the folder and no longer exists."""
        return os.path.dirname(path) == self.directory and not self._fs.exists(path)

    def stats(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "taken": self._taken,
            "failed": self._failed,
            "last_error": self._last_error,
            "last_lsn": None if self._last is None else self._last[0],
            "due_in_s": self.due_s(),
        }

    # -- one backup --------------------------------------------------------------------------

    def _take(self, progress: Progress | None) -> BackupReport:
        if not self._fs.is_dir(self.directory):
            self._fs.mkdir(self.directory)
            self._fs.sync_dir(os.path.dirname(self.directory))
        for name in self._fs.listdir(self.directory):  # left by a crash
            target = staged_for(name) or ""
            if target.endswith(SUFFIX) and f"-{self._mark}-" in target:
                self._fs.unlink(os.path.join(self.directory, name))
        chain = self._newest_chain()
        if chain and not self._is_long(chain):
            with suppress(BackupChainError):
                return self._write(chain[-1].path, progress)
        return self._write(None, progress)

    def _due_s(self) -> float | None:
        last = self._committer.log.last_lsn
        if self._is_many(last) or (self._last is None and last):
            due = 0.0
        elif self._last is None or last <= self._last[0] + 1 or self._wanted.every_minutes is None:
            return None  # a backup commits once itself
        else:
            every_s = self._wanted.every_minutes * 60
            due = min(max(0.0, self._last[1] + every_s - self._options.clock()), every_s)
        return max(due, self._failures.left_s(_JOB))

    def _next_due_lsn(self) -> int:
        """The first Lsn for which _is_many() is true, if it is of the epoch of the last backup."""
        every = self._wanted.every_commits
        if every is None or self._last is None:
            return NEVER_LSN
        return self._last[0] + int(every) + 1

    def _is_many(self, last: Lsn) -> bool:
        """Whether the number of commits after the last backup makes the next one due."""
        every = self._wanted.every_commits
        if every is None or self._last is None:
            return False
        before = Lsn(self._last[0])
        return lsn_epoch(last) != lsn_epoch(before) or last - before > every

    def _run(self, stop: Stop) -> None:
        try:
            due = self._due_s()
            if due is not None and due <= 0:  # unless take() was first
                self.take(lambda path, size: check_stop(stop))
        except Stopped:
            pass
        except Exception as error:
            self._failed += 1
            self._last_error = str(error)
            self._failures.note(_JOB, f"{_JOB} into {self.directory}", error, first_s=RETRY_S)
        finally:
            self._is_wanted = False
        if failpoints.on:
            failpoints.reach("rolling.done")
        self.on_done()

    def _newest_chain(self) -> Chain:
        archives = archives_in(self._fs, self.directory)
        chains = chains_of(own for own in archives if own.header.database_id == self._own)
        return chains[-1] if chains else []

    def _is_long(self, chain: Chain) -> bool:
        age_s = self._options.clock() - chain[0].header.created_us / 1e6
        sizes = [os.path.getsize(archive.path) for archive in chain]
        return abs(age_s) >= CHAIN_S or len(chain) >= CHAIN_MAX or sum(sizes[1:]) > sizes[0]

    def _write(self, base: str | None, progress: Progress | None) -> BackupReport:
        wanted = self._wanted
        return self._backups.run(
            self._free_path("full" if base is None else "more"),
            base,
            wanted.compress,
            wanted.rate_bytes_s,
            True,
            progress,
        )

    def _free_path(self, kind: str) -> str:
        """Numbered when a backup of this second and Lsn exists: its process died before it was
        recorded."""
        now = datetime.fromtimestamp(self._options.clock(), UTC)
        last = self._committer.log.last_lsn
        stem = f"{now:%Y%m%dT%H%M%SZ}-{self._mark}-{last:016x}-{kind}"
        return first_free_name(self._fs, os.path.join(self.directory, stem), SUFFIX)

    def _prune(self, newest: str) -> None:
        if self._committer.clock.due_us() is None:
            return
        with self._committer.view() as view:
            known = {backup.path for backup in known_backups(view)}
        chains = chains_of(
            archive
            for archive in archives_in(self._fs, self.directory)
            if archive.header.database_id == self._own or archive.path in known
        )
        wanted = self._wanted
        for path in to_prune(chains, newest, wanted.keep_hourly, wanted.keep_daily):
            self._fs.unlink(path)
            self._fs.sync_dir(self.directory)  # before its base is removed
            if failpoints.on:
                failpoints.reach("rolling.pruned")
