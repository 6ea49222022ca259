"""Backup history: the backups that were taken of a database, or that it was restored from.

    META k | created_us u64 | id, 16 bytes  ->  a map of the fields below, with a checksum

Invariants:
- Written by the commit that ends a backup; past KNOWN_MAX the oldest are forgotten.
- An entry describes the file as it was taken: it may have been moved, copied or removed since.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from amberdb._time import microseconds, time_of
from amberdb._types import Lsn
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.schema.catalog import open_entry, sealed_entry
from amberdb.engine.schema.keyspace import (
    ARCHIVED,
    DATABASE_ID,
    KNOWN_BACKUPS,
    Effects,
    end_of,
)
from amberdb.engine.storage.view import View

KNOWN_MAX: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class KnownBackup:
    """A backup, described as it was when it was taken."""

    path: str
    is_full: bool
    lsn: Lsn
    """The last commit in it."""
    created: datetime


def from_map(stored: dict[str, Any]) -> KnownBackup:
    """The inverse of to_map()."""
    return KnownBackup(
        stored["path"], stored["is_full"], Lsn(stored["lsn"]), time_of(stored["created_us"])
    )


def to_map(backup: KnownBackup | BackupReport) -> dict[str, Any]:
    """The map that is stored."""
    return {
        "path": backup.path,
        "is_full": backup.is_full,
        "lsn": backup.lsn,
        "created_us": microseconds(backup.created),
    }


def known_backups(view: View) -> list[KnownBackup]:
    """Those that the view has, the oldest first. Raises CorruptionError."""
    found = view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))
    return [from_map(open_entry(key, value)) for key, value in found]


def to_entry(report: BackupReport) -> tuple[bytes, bytes]:
    """The catalog entry of a backup."""
    key = KNOWN_BACKUPS + microseconds(report.created).to_bytes(8) + bytes.fromhex(report.id)
    return key, sealed_entry(key, to_map(report))


def record_backups(view: View, reports: Iterable[BackupReport]) -> Effects:
    """The effects that add these backups to the history and remove the oldest past the limit."""
    effects: Effects = dict(map(to_entry, reports))
    keys = [key for key, _ in view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))]
    effects.update(dict.fromkeys(keys[: max(0, len(keys) + len(effects) - KNOWN_MAX)]))
    return effects


def newest_backup(view: View, database_id: bytes) -> tuple[Lsn, bool] | None:
    """The Lsn at which the newest backup of this very database ends, and whether the log is held
    for the next incremental one."""
    stored = view.get(ARCHIVED)
    if stored is None or not stored.startswith(database_id):
        return None
    return Lsn(int.from_bytes(stored[-9:-1])), stored[-1] == 1


_CHAIN: Final = "backup chain"
_RUNNING: Final = "running backup"


@final
class BackupHistory:
    """Where the newest backup of an open database ends, and the log that is held from there."""

    def __init__(self, committer: Committer, retention: LogRetention) -> None:
        self._committer = committer
        self._retention = retention
        self.archived: Lsn | None = None
        """Where the newest backup ends, while an incremental one can continue from there."""
        with committer.view() as view:
            newest = newest_backup(view, self._database_id)
        if newest is not None:
            self.archived, is_held = newest
            if is_held:
                retention.hold(_CHAIN, self.archived)

    @contextmanager
    def hold_log(self, after: Lsn) -> Generator[None]:
        """Keeps the log after `after` while a backup reads it."""
        self._retention.hold(_RUNNING, after)
        try:
            yield
        finally:
            self._retention.release(_RUNNING)

    def record(self, report: BackupReport, *, hold_log: bool) -> None:
        """Stores that a backup was taken; with `hold_log` the log after it is kept for the next
        incremental one."""
        end = self._database_id + report.lsn.to_bytes(8) + bytes([hold_log])
        with OneCommit(self._committer) as batch:
            batch.set(ARCHIVED, end)
            for key, value in record_backups(batch.view, [report]).items():
                batch.set(key, value)
        self.archived = report.lsn
        if hold_log:
            self._retention.hold(_CHAIN, report.lsn)
        else:
            self._retention.release(_CHAIN)

    def end_chain(self) -> None:
        """Releases the log that the next incremental backup would need: it has to be full."""
        if self.archived is not None:
            with OneCommit(self._committer) as batch:
                batch.set(ARCHIVED, None)
            self.archived = None
            self._retention.release(_CHAIN)

    @property
    def _database_id(self) -> bytes:
        return self._committer.store.get(DATABASE_ID) or b""
