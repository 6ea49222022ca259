"""Upkeep: the long work that looks after the files of a database, and the thread that does it.

Invariants:
- One job at a time, and none that a close() has to wait for long: each asks whether it is to stop.
- What fails is logged and told by stats(), and no read or write fails for it.
"""

from typing import Any, final

from amberdb.engine.auto_compaction import AutoCompaction
from amberdb.engine.backup import Backups
from amberdb.engine.checkpoint import Checkpointer
from amberdb.engine.commit import Committer
from amberdb.engine.compaction import Compactor
from amberdb.engine.erasure import Erasures
from amberdb.engine.feed import Feed
from amberdb.engine.indexing import Indexer
from amberdb.engine.jobs import Jobs
from amberdb.engine.options import Options
from amberdb.engine.recovery import Opened


@final
class Upkeep:
    """Owned by the Database."""

    def __init__(
        self,
        opened: Opened,
        committer: Committer,
        checkpointer: Checkpointer,
        indexer: Indexer,
        feed: Feed,
        options: Options,
    ) -> None:
        self.backups = Backups(opened.directory, committer, checkpointer, feed, options)
        compactor = Compactor(opened, committer, checkpointer, indexer, feed, options)
        self.erasures = Erasures(committer, compactor, indexer, self.backups, feed)
        self._jobs = Jobs("upkeep", background=options.background)
        self._compaction = AutoCompaction(
            opened.directory, committer, checkpointer, compactor, self._jobs, options
        )

    def begin(self) -> None:
        """After an open: goes on with what was interrupted."""
        if self.erasures.waiting():
            self._jobs.want(self.erasures.resume)

    def stop(self) -> None:
        """Returns when no job runs; none will any more."""
        self._jobs.close()

    def stats(self) -> dict[str, Any]:
        return {
            "compaction": self._compaction.stats(),
            "erasures_waiting": [erasure.id for erasure in self.erasures.waiting()],
        }
