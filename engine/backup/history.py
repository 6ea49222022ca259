"""Backup history: the backups that were taken of a database, or that it was restored from.

    META k | created_us u64 | id, 16 bytes  ->  the map of StoredBackup, with a checksum

Invariants:
- Written by the commit that ends a backup; past KNOWN_MAX entries the oldest are removed.
- An entry describes the file as it was taken: it may have been moved, copied or removed since.
- Archives that are sent to a place have one entry for each chain there: the place, and the full
  archive that begins the chain.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, final

import msgspec

from amberdb._public import public
from amberdb._time import microseconds, time_of
from amberdb._types import Lsn
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.schema.catalog import entry_data, sealed_entry
from amberdb.engine.schema.codec import map_decoder
from amberdb.engine.schema.keyspace import (
    ARCHIVED,
    DATABASE_ID,
    KNOWN_BACKUPS,
    Effects,
    end_of,
)
from amberdb.engine.storage.view import View

KNOWN_MAX: Final = 1000


@public
@final
@dataclass(frozen=True, slots=True)
class KnownBackup:
    """A backup, described as it was when it was taken."""

    path: str
    """The file; of archives that are sent away, the place of a chain of them."""
    is_full: bool
    lsn: Lsn
    """The last commit in it; of a place, in the archive that begins the chain."""
    created: datetime


@final
class StoredBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A known backup as it is stored."""

    path: str
    is_full: bool
    lsn: int
    created_us: int

    @classmethod
    def of(cls, backup: KnownBackup | BackupReport) -> "StoredBackup":
        return cls(
            path=backup.path,
            is_full=backup.is_full,
            lsn=backup.lsn,
            created_us=microseconds(backup.created),
        )

    def known(self) -> KnownBackup:
        return KnownBackup(self.path, self.is_full, Lsn(self.lsn), time_of(self.created_us))


_decode = map_decoder(StoredBackup)


def known_backups(view: View) -> list[KnownBackup]:
    """The history, the oldest backup first. Raises CorruptionError."""
    entries = view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))
    return [_decode(entry_data(key, value)).known() for key, value in entries]


def to_entry(report: BackupReport) -> tuple[bytes, bytes]:
    """The catalog entry of a backup."""
    key = KNOWN_BACKUPS + microseconds(report.created).to_bytes(8) + bytes.fromhex(report.id)
    return key, sealed_entry(key, StoredBackup.of(report))


def record_backups(view: View, reports: Iterable[BackupReport]) -> Effects:
    """The effects that add these backups to the history and remove the oldest past the limit."""
    effects: Effects = dict(map(to_entry, reports))
    keys = [key for key, _ in view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))]
    effects.update(dict.fromkeys(keys[: max(0, len(keys) + len(effects) - KNOWN_MAX)]))
    return effects


def newest_backup(view: View, database_id: bytes) -> tuple[Lsn, bool] | None:
    """The Lsn at which the newest backup of this database ends, and whether the log is held for
    the next incremental one. None after a restore, whose backups are of another database id."""
    stored = view.get(ARCHIVED)
    if stored is None or not stored.startswith(database_id):
        return None
    return Lsn(int.from_bytes(stored[-9:-1])), stored[-1] == 1


_CHAIN: Final = "backup chain"
_RUNNING: Final = "running backup"


@final
class BackupHistory:
    """The end of the newest backup of an open database, and the log that is held after it."""

    def __init__(self, committer: Committer, retention: LogRetention) -> None:
        self._committer = committer
        self._retention = retention
        self.archived: Lsn | None = None
        """The last Lsn of the newest backup; None while no incremental one can continue it."""
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
        """Adds a backup to the history. With `hold_log` the log after it is kept for the next
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

    def record_sent(self, report: BackupReport, place: str) -> None:
        """Adds the place of a chain to the history, when the archive begins it. The log is not
        kept, and other chains go on: who sends archives holds the log as a subscriber."""
        if not report.is_full:
            return
        with OneCommit(self._committer) as batch:
            for key, value in record_backups(batch.view, [replace(report, path=place)]).items():
                batch.set(key, value)
            if self.archived is None:
                batch.set(ARCHIVED, self._database_id + report.lsn.to_bytes(8) + bytes([False]))
        if self.archived is None:
            self.archived = report.lsn

    def end_chain(self) -> None:
        """Releases the log after the newest backup: the next backup has to be full."""
        if self.archived is not None:
            with OneCommit(self._committer) as batch:
                batch.set(ARCHIVED, None)
            self.archived = None
            self._retention.release(_CHAIN)

    @property
    def _database_id(self) -> bytes:
        return self._committer.store.get(DATABASE_ID) or b""
