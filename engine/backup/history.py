"""The backups that a database knows of: those that were taken of it, and that it was restored from.

    META k | when it was taken, u64 us | its id, 16 bytes -> a sealed map of the fields below

Invariants:
- Written by the commit that ends a backup; past KNOWN_MAX the oldest are forgotten.
- It says what was true then: since that time a file may have been moved, copied, or removed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from amberdb._time import microseconds, time_of
from amberdb._types import Lsn
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.schema.catalog import open_entry, sealed_entry
from amberdb.engine.schema.keyspace import KNOWN_BACKUPS, end_of
from amberdb.engine.storage.memtable import Effects
from amberdb.engine.storage.view import View

KNOWN_MAX: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class KnownBackup:
    """A backup, as it was when it was taken."""

    path: str
    is_full: bool
    lsn: Lsn
    """The last commit in it."""
    created: datetime


def known_backup(found: dict[str, Any]) -> KnownBackup:
    """What `map_of` was given."""
    return KnownBackup(
        found["path"], found["is_full"], Lsn(found["lsn"]), time_of(found["created_us"])
    )


def map_of(backup: KnownBackup | BackupReport) -> dict[str, Any]:
    """As it is stored."""
    return {
        "path": backup.path,
        "is_full": backup.is_full,
        "lsn": backup.lsn,
        "created_us": microseconds(backup.created),
    }


def known_backups(view: View) -> list[KnownBackup]:
    """Those that the view has, the oldest first. Raises CorruptionError."""
    found = view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))
    return [known_backup(open_entry(key, value)) for key, value in found]


def entry_of(report: BackupReport) -> tuple[bytes, bytes]:
    """What makes a database know of this backup."""
    key = KNOWN_BACKUPS + microseconds(report.created).to_bytes(8) + bytes.fromhex(report.id)
    return key, sealed_entry(key, map_of(report))


def noted(view: View, reports: Iterable[BackupReport]) -> Effects:
    """The effects that note these backups, and forget the oldest past the limit."""
    effects: Effects = dict(map(entry_of, reports))
    keys = [key for key, _ in view.scan(KNOWN_BACKUPS, end_of(KNOWN_BACKUPS))]
    effects.update(dict.fromkeys(keys[: max(0, len(keys) + len(effects) - KNOWN_MAX)]))
    return effects
