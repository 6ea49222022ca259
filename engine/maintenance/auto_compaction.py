"""Automatic compaction: rewrites data.mdb in the background when more than half of it is free, or
when it is of an older format.

Invariants:
- It is due when the file has more than twice the bytes in use, and more than BYTES_MIN: each byte
  written is paid for by a byte that was freed since the last compaction. It is due once for a file
  of an older format.
- It starts only with free disk space for twice the bytes it writes. It is abandoned at close, and
  when commits fill the memory that a checkpoint would free; the next attempt waits, longer each
  time.
- The log, chains of backups and `.broken` files are left alone: compact() handles those.
"""

import logging
import time
from typing import Any, Final, final

from amberdb._errors import AmberError
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.jobs import Jobs, Stop, Stopped
from amberdb.engine.maintenance.compaction import Compactor
from amberdb.engine.options import Options

logger = logging.getLogger("amberdb.engine")

BYTES_MIN: Final = 16 << 20
"""Smaller files are not compacted."""
PAUSE_S: Final = 60.0
"""After an attempt that was given up; doubled each time, up to PAUSE_MAX_S."""
PAUSE_MAX_S: Final = 3600.0


@final
class AutoCompaction:
    """Queues a compaction after a checkpoint when one is due."""

    def __init__(
        self,
        directory: str,
        committer: Committer,
        checkpointer: Checkpointer,
        compactor: Compactor,
        jobs: Jobs,
        options: Options,
    ) -> None:
        self._directory = directory
        self._committer = committer
        self._compactor = compactor
        self._jobs = jobs
        self._memtable_bytes_max = options.memtable_bytes_max // 2
        self._is_on = options.compact == "auto" and options.background
        self._runs = 0
        self._given_up = 0
        self._last_ms = 0.0
        self._last_error: str | None = None
        self._pause_s = PAUSE_S
        self._not_before = 0.0
        if self._is_on:
            checkpointer.on_done = self._note_checkpoint

    def is_due(self) -> bool:
        """Whether more than half of data.mdb is free, or it is of an older format."""
        store = self._committer.store
        if store.is_older:
            return True
        stats = store.stats()
        return stats["file_bytes"] > max(BYTES_MIN, 2 * stats["used_bytes"])

    def stats(self) -> dict[str, Any]:
        return {
            "is_automatic": self._is_on,
            "is_due": self.is_due(),
            "runs": self._runs,
            "given_up": self._given_up,
            "last_ms": self._last_ms,
            "last_error": self._last_error,
        }

    def _note_checkpoint(self) -> None:
        if time.monotonic() >= self._not_before and self.is_due():
            self._jobs.want(self._run, "automatic compaction")

    def _run(self, stop: Stop) -> None:
        if time.monotonic() < self._not_before or not self.is_due():
            return  # compact() ran meanwhile, for example
        wanted = 2 * self._committer.store.stats()["used_bytes"]
        import shutil  # imported on demand: few programs need it

        free = shutil.disk_usage(self._directory).free
        if free < wanted:
            self._give_up(f"{free} bytes of disk are free, and {wanted} are needed")
            return
        start = time.perf_counter()

        def watch(done: int, of: int) -> None:
            if stop() or self._committer.memtable_bytes > self._memtable_bytes_max:
                raise Stopped("closing, or commits are filling the memtable")

        try:
            report = self._compactor.rewrite(watch)
        except (AmberError, Stopped) as error:
            self._give_up(str(error))
            return
        self._runs += 1
        self._last_ms = (time.perf_counter() - start) * 1000
        self._last_error = None
        self._pause_s = PAUSE_S
        logger.info(
            "%s was compacted from %d to %d bytes",
            self._committer.store.path, report.bytes_before, report.bytes_after,
        )  # fmt: skip

    def _give_up(self, why: str) -> None:
        self._given_up += 1
        self._last_error = why
        self._not_before = time.monotonic() + self._pause_s
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        logger.warning("compaction is postponed for at least %.0f s: %s", pause_s, why)
