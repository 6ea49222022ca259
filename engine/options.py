"""The options of an open database, with units in their names.

Invariants:
- Options change speed, limits and durability, never an answer. They are not stored.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, get_args

from amberdb._fs import FileSystem, OsFileSystem
from amberdb._public import public
from amberdb._types import Isolation, Sync

KIB = 1 << 10
MIB = 1 << 20
SIZE_BYTES_MIN = MIB
"""The least size_bytes_max."""
_SYNCS = get_args(Sync)


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class RollingBackups:
    """Automatic backups: when they are taken, where, and how many are kept. Raises ValueError."""

    directory: str | os.PathLike[str] | None = None
    """A directory for the backups of one database; None: `<path>.backups`, next to it."""
    every_minutes: float | None = 60
    """Minutes between backups, as long as something was committed; None: by commits alone."""
    every_commits: int | None = None
    """Commits between backups, counted at each checkpoint; None: by time alone."""
    keep_hourly: int = 24
    """Hours of which the newest backup is kept."""
    keep_daily: int = 7
    """Days of which the newest full backup is kept."""
    compress: Literal["zstd"] | None = None
    rate_bytes_s: float | None = None
    """The largest write rate of a backup; None: no limit."""

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
                raise ValueError(f"{name}={value!r}: give 0 or a positive whole number")

    def directory_of(self, path: str) -> str:
        """The directory with the backups of the database at `path`."""
        directory = f"{path}.backups" if self.directory is None else os.fspath(self.directory)
        return os.path.abspath(directory)


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The keyword arguments of amberdb.open(). Raises ValueError for an invalid value."""

    sync: Sync = "always"
    """The durability class of commits that give none."""
    sync_interval_ms: int = 100
    """The time of commits that class "interval" can lose on power loss."""
    slow_sync_ms: int = 1000
    """A sync of the log that takes longer is logged, at most once in ten seconds."""
    busy_timeout_ms: int = 30_000
    """How long a writer waits for the writer lock, or for free memory, before BusyError."""

    document_bytes_max: int = 16 * MIB
    transaction_bytes_max: int = 256 * MIB

    query_depth_max: int = 32
    """Levels of a filter, and of the values in it; at most 100, since each level is a call."""
    query_operators_max: int = 1_000
    """Operators of a filter, and those of a text query."""
    query_bytes_max: int = 64 * KIB
    """Bytes of a filter's names and values, without the values of $in and $nin; bytes of a text
    query. A text without operators is cut there, and `hits.how` says so."""
    query_terms_max: int = 1_000
    """Distinct terms of a text query. A text without operators is cut there, as above."""
    diversity_rows_max: int = 1_000
    """Hits that `diversity` chooses among, the best ones: its cost grows with their square. The
    hits after them follow by score."""
    snippet_characters_max: int = 1 << 20
    """Characters of a search's documents that its snippets are chosen from. The hits share them."""

    checkpoint_bytes: int = 16 * MIB
    """Estimated memory of the memtable at which a checkpoint starts. Twice as much is no faster and
    doubles what an open after a kill replays; half as much writes 1.6 times the bytes."""
    checkpoint_interval_ms: int = 60_000
    """The age of the oldest commit in the memtable at which a checkpoint starts."""
    memtable_bytes_max: int = 128 * MIB
    """Estimated memory of all memtables at which writers wait for the checkpoint."""

    snapshot_max_age_ms: int = 600_000
    """The age at which a snapshot is closed: an open one keeps LMDB from reusing old pages."""
    snapshots_max: int = 256
    """Open snapshots. Each holds a slot of LMDB's reader table, which all processes share."""
    refresh_interval_ms: int | None = 0
    """With read_only: the age that data may have when it is read. With 0 every read and snapshot
    fetches the commits that the writer has acknowledged. With None only refresh() does, and a read
    after a checkpoint of the writer."""
    reap_interval_ms: int = 1_000
    """The shortest time between two background removals of expired documents."""
    reap_batch: int = 500
    """Documents that the reaper removes in one commit."""
    reap_grace_ms: int = 60_000
    """How long an expired document stays on disk at least, by the monotonic clock."""

    segment_bytes_min: int = 1 * MIB
    segment_bytes_max: int = 16 * MIB
    subscriber_log_bytes_max: int = 1024 * MIB
    """The size up to which log is held for lagging subscribers and for the next incremental backup.
    Past it the subscribers get LogTruncatedError, and the next backup has to be a full one."""

    compact: Literal["auto", "manual"] = "auto"
    """"auto": data.mdb is rewritten in the background when more than half of it is free."""
    backups: RollingBackups | None = None
    """Automatic backups; None: no automatic backups."""
    on_damage: Literal["raise", "restore"] = "raise"
    """"restore": at open, a database that cannot be recovered is renamed, and the newest of its
    automatic backups is restored in its place."""
    background: bool = True
    """False: the database starts no thread; checkpoints and the reaper run when they are called."""
    map_bytes: int = 64 << 30
    """The address space (not disk space) reserved for LMDB at first: the map grows with the data,
    and is smaller where the process has less."""
    size_bytes_max: int | None = None
    """The size of data.mdb and the log at which writes raise StorageFullError, and deletes, erase()
    and compact() still work; measured at each checkpoint. Smaller buffers and log segments keep the
    directory near it. None: no limit."""
    clock_slack_ms: int = 3_600_000
    """How far the clock may be behind the last commit. Within it reads use the time of that commit;
    beyond it the clock, and nothing is removed because of its age: see db.accept_clock()."""
    clock: Callable[[], float] = field(default=time.time)
    """Returns the seconds since 1970, for times of commits and for expiry."""
    fs: FileSystem = field(default_factory=OsFileSystem)
    """The file system; tests inject faults here."""

    def __post_init__(self) -> None:
        check_sync(self.sync)
        if self.compact not in ("auto", "manual"):
            raise ValueError(f"compact={self.compact!r}: use 'auto' or 'manual'")
        if self.on_damage not in ("raise", "restore"):
            raise ValueError(f"on_damage={self.on_damage!r}: use 'raise' or 'restore'")
        if self.backups is not None and type(self.backups) is not RollingBackups:
            raise ValueError(f"backups={self.backups!r}: give RollingBackups(...), or None")
        if self.size_bytes_max is not None and self.size_bytes_max < SIZE_BYTES_MIN:
            raise ValueError(
                f"size_bytes_max={self.size_bytes_max}: give at least {SIZE_BYTES_MIN}, or None"
            )
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 0:
                raise ValueError(f"{name}={value}: give 0 or a positive number")
        if self.query_depth_max > 100:
            raise ValueError(f"query_depth_max={self.query_depth_max}: give at most 100")

    def within_size(self) -> "Options":
        """The options with buffers and log segments that are small beside `size_bytes_max`."""
        size = self.size_bytes_max
        if size is None:
            return self
        return replace(
            self,
            checkpoint_bytes=min(self.checkpoint_bytes, size // 8),
            memtable_bytes_max=min(self.memtable_bytes_max, size // 4),
            transaction_bytes_max=min(self.transaction_bytes_max, size // 4),
            segment_bytes_min=min(self.segment_bytes_min, size // 16),
            segment_bytes_max=min(self.segment_bytes_max, size // 16),
            subscriber_log_bytes_max=min(self.subscriber_log_bytes_max, size // 4),
        )


@public
class OpenOptions(TypedDict, total=False):
    """The fields of Options as keyword arguments: type checkers report a wrong name."""

    sync: Sync
    sync_interval_ms: int
    slow_sync_ms: int
    busy_timeout_ms: int
    document_bytes_max: int
    transaction_bytes_max: int
    query_depth_max: int
    query_operators_max: int
    query_bytes_max: int
    query_terms_max: int
    diversity_rows_max: int
    snippet_characters_max: int
    checkpoint_bytes: int
    checkpoint_interval_ms: int
    memtable_bytes_max: int
    snapshot_max_age_ms: int
    snapshots_max: int
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
    size_bytes_max: int | None
    clock_slack_ms: int
    clock: Callable[[], float]
    fs: FileSystem


def check_isolation(isolation: object) -> None:
    """Raises ValueError unless `isolation` is one, or None."""
    if isolation is not None and isolation not in get_args(Isolation):
        raise ValueError(f"isolation={isolation!r}: use 'serializable', or None")


def check_sync(sync: object) -> None:
    """Raises ValueError unless `sync` is a durability class: a misspelled name would be the
    weakest one."""
    if sync not in _SYNCS:
        raise ValueError(f"sync={sync!r}: use one of {', '.join(_SYNCS)}")
