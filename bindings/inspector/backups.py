"""The backups that a database knows of, the chains that they form, and the points in time to which
a chain can be restored.

Invariants:
- A backup is described as it was taken; of its file only the size is read here. The points of a
  chain are read from its files, at most for a while.
"""

import os
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

import amberdb
from amberdb import BackupError, Database, KnownBackup, Lsn, NotSupportedHereError

POINTS_SHOWN: Final = 200
BUDGET_S: Final = 3.0
_CHECKED_EVERY: Final = 1024


@final
@dataclass(frozen=True, slots=True)
class BackupFile:
    """A backup, and what is at its path now."""

    backup: KnownBackup
    size_bytes: int | None
    """None: there is no such file any more, or it is at a place that is no path."""


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """A full backup and the incremental ones after it."""

    files: tuple[BackupFile, ...]

    @property
    def is_whole(self) -> bool:
        """Every file is there."""
        return all(each.size_bytes is not None for each in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes or 0 for each in self.files)


@final
@dataclass(frozen=True, slots=True)
class Backups:
    """All that is known about the backups of a database."""

    chains: tuple[Chain, ...]
    """The newest first."""
    archived_lsn: Lsn | None
    """The last commit in the newest backup, while an incremental one can follow it."""
    schedule: dict[str, Any] | None
    """Of rolling backups, when this process takes them."""
    are_known: bool
    """False on a server, whose backups are its own."""


@final
@dataclass(frozen=True, slots=True)
class Points:
    """The commits at which a restore of a chain can end."""

    count: int
    newest: tuple[tuple[Lsn, datetime], ...]
    """The last ones that were read, the newest first."""
    is_complete: bool
    """All files were read in the time that there was."""
    problem: str | None
    """Why no more could be read."""


def read_backups(db: Database) -> Backups:
    """The backups and their chains."""
    try:
        known = db.backups()
    except NotSupportedHereError:
        return Backups((), None, None, are_known=False)
    chains: list[list[BackupFile]] = []
    for backup in known:
        file = BackupFile(backup, _size(backup.path))
        if backup.is_full or not chains:
            chains.append([file])
        else:
            chains[-1].append(file)
    return Backups(
        chains=tuple(Chain(tuple(files)) for files in reversed(chains)),
        archived_lsn=db.archived_lsn,
        schedule=db.stats().backups,
        are_known=True,
    )


def read_points(chain: Chain, budget_s: float = BUDGET_S) -> Points:
    """The points of a chain, as far as its files can be read."""
    until = time.monotonic() + budget_s
    newest: deque[tuple[Lsn, datetime]] = deque(maxlen=POINTS_SHOWN)
    count, is_complete, problem = 0, True, None
    try:
        for point in amberdb.restore_points([each.backup.path for each in chain.files]):
            newest.append(point)
            count += 1
            if count % _CHECKED_EVERY == 0 and time.monotonic() > until:
                is_complete = False
                break
    except (BackupError, OSError) as error:
        is_complete, problem = False, str(error)
    return Points(count, tuple(reversed(newest)), is_complete, problem)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return None
