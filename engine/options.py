"""What can be set when a database is opened, with units in the names.

Invariants:
- Options change speed, limits and durability, never an answer, and are not stored.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

from amberdb._fs import FileSystem, OsFileSystem
from amberdb._types import Sync

MIB = 1 << 20
_SYNCS = get_args(Sync)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingBackups:
    """When backups are taken by themselves, where to, and how many are kept. Raises ValueError."""

    directory: str | os.PathLike[str] | None = None
    """A folder for the backups of one database; None: `<path>.backups`, next to the database."""
    every_minutes: float | None = 60
    """After so long, if something was committed since; None: by commits alone."""
    every_commits: int | None = None
    """After so many, looked at once in a checkpoint; None: by time alone."""
    keep_hourly: int = 24
    """The newest of each of so many hours is kept."""
    keep_daily: int = 7
    """The newest full one of each of so many days is kept."""
    compress: Literal["zstd"] | None = None
    rate_bytes_s: float | None = None
    """The most that a backup writes."""

    def __post_init__(self) -> None:
        if self.every_minutes is None and self.every_commits is None:
            raise ValueError("give every_minutes or every_commits")
        for name in ("every_minutes", "every_commits"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r}: give a number above 0, or None")
        for name in ("keep_hourly", "keep_daily"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name}={value!r}: give a number that is not negative")

    def directory_of(self, path: str) -> str:
        """Where the backups of the database at `path` are."""
        found = f"{path}.backups" if self.directory is None else os.fspath(self.directory)
        return os.path.abspath(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Keyword arguments of amberdb.open. Raises ValueError for values without a meaning."""

    sync: Sync = "always"
    """The durability class of commits that do not name their own."""
    sync_interval_ms: int = 100
    """The most that class `interval` may lose on power loss."""
    slow_sync_ms: int = 1000
    """A sync of the log that takes longer is logged, once in ten seconds at most."""
    busy_timeout_ms: int = 30_000
    """How long a writer waits for the writer lock, or for room in memory, before BusyError."""

    document_bytes_max: int = 16 * MIB
    transaction_bytes_max: int = 256 * MIB

    checkpoint_bytes: int = 32 * MIB
    """Estimated memory of the memtable at which a checkpoint starts."""
    checkpoint_interval_ms: int = 60_000
    """The age of the oldest commit in the memtable at which a checkpoint starts."""
    memtable_bytes_max: int = 128 * MIB
    """Estimated memory of all memtables at which writers wait for the checkpoint."""

    snapshot_max_age_ms: int = 600_000
    """A snapshot held longer is closed, since it keeps old pages from being reused."""
    refresh_interval_ms: int | None = 0
    """With read_only: how old what is read may be. 0 looks at each read and snapshot for what the
    writer has acknowledged; None only at refresh(), or when a checkpoint has gone further."""
    reap_interval_ms: int = 1_000
    """The least time between two background removals of expired documents."""
    reap_batch: int = 500
    """Documents removed in one commit by the reaper."""
    reap_grace_ms: int = 60_000
    """How long an expired document stays on disk, by a clock that cannot jump."""

    segment_bytes_min: int = 1 * MIB
    segment_bytes_max: int = 16 * MIB
    subscriber_log_bytes_max: int = 1024 * MIB
    """Log kept for lagging subscribers, who get LogTruncatedError past it, and for the next
    incremental backup, which has to be a full one then."""

    compact: Literal["auto", "manual"] = "auto"
    """"auto": data.mdb is written anew in the background when more than half of it is free."""
    backups: RollingBackups | None = None
    """Backups that are taken by themselves; None: none."""
    on_damage: Literal["raise", "restore"] = "raise"
    """"restore": a database that is damaged beyond recovery is set aside at open, and the newest of
    its rolling backups takes its place."""
    background: bool = True
    """False: no thread of the database's own; checkpoints and the reaper run when called."""
    map_bytes: int = 1 << 40
    """Address space (not disk) reserved for LMDB."""
    clock: Callable[[], float] = field(default=time.time)
    """Seconds since 1970, for times of commits and for expiry."""
    fs: FileSystem = field(default_factory=OsFileSystem)
    """The file seam; tests inject faults here."""

    def __post_init__(self) -> None:
        check_sync(self.sync)
        if self.compact not in ("auto", "manual"):
            raise ValueError(f"compact={self.compact!r}: use 'auto' or 'manual'")
        if self.on_damage not in ("raise", "restore"):
            raise ValueError(f"on_damage={self.on_damage!r}: use 'raise' or 'restore'")
        if self.backups is not None and type(self.backups) is not RollingBackups:
            raise ValueError(f"backups={self.backups!r}: give RollingBackups(...), or None")
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 0:
                raise ValueError(f"{name}={value}: give a number that is not negative")


class OpenOptions(TypedDict, total=False):
    """The fields of Options as keyword arguments, so that type checkers see a wrong name."""

    sync: Sync
    sync_interval_ms: int
    slow_sync_ms: int
    busy_timeout_ms: int
    document_bytes_max: int
    transaction_bytes_max: int
    checkpoint_bytes: int
    checkpoint_interval_ms: int
    memtable_bytes_max: int
    snapshot_max_age_ms: int
    refresh_interval_ms: int | None
    reap_interval_ms: int
    reap_batch: int
    reap_grace_ms: int
    segment_bytes_min: int
    segment_bytes_max: int
    subscriber_log_bytes_max: int
    compact: Literal["auto", "manual"]
    backups: RollingBackups | None
    on_damage: Literal["raise", "restore"]
    background: bool
    map_bytes: int
    clock: Callable[[], float]
    fs: FileSystem


def check_sync(sync: object) -> None:
    """Raises ValueError for what is no durability class: a slip would be the weakest of them."""
    if sync not in _SYNCS:
        raise ValueError(f"sync={sync!r}: use one of {', '.join(_SYNCS)}")
