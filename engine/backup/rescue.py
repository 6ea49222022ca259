"""Rescue: the newest backup in place of a database that is damaged beyond recovery.

    damage -> locked -> newest chain, verified and restored as <path>.restored
           -> <path> renamed to <path>.damaged-<time> -> <path>.restored renamed to <path>

Invariants:
- Nothing is moved before what takes its place is whole, checked, synced and has its name; no file
  of the damaged directory is changed or removed.
- A crash between the two renames leaves nothing under the path: the next open does the second one,
  and creates nothing.
- Only archives of this very database take its place.
"""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn, final

from amberdb._errors import AmberError, BackupError, CorruptionError, LockedError
from amberdb._fs import FileSystem, first_free_name
from amberdb._time import time_of
from amberdb._types import NO_LSN, Lsn, lsn_number
from amberdb.engine.backup.folder import Chain, archives_in, chains_of
from amberdb.engine.backup.restore import RestoreReport, restore_chain
from amberdb.engine.options import Options, RollingBackups
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.directory import WAL, discard_staging, open_errors, take_lock
from amberdb.wal import Record, check_log, segment_ids

logger = logging.getLogger("amberdb.engine")

STAGED: Final = ".restored"
DAMAGED: Final = ".damaged-"


@final
@dataclass(frozen=True, slots=True)
class Rescue:
    """What open() has done with a damaged database: `db.rescue`."""

    problem: str
    """Why it could not be opened."""
    damaged: str
    """Where it is kept, as it was."""
    chain: tuple[str, ...]
    """The backups that it was restored from."""
    lsn: Lsn
    """The last commit that came back."""
    time: datetime
    """Of that commit."""
    last_lsn: Lsn | None
    """The last commit that the damaged database speaks of; None when nothing can be read of it."""

    @property
    def lost(self) -> int | None:
        """How many commits did not come back, at most: those of the database itself are counted
        too. None when nobody knows."""
        return _lost(self.lsn, self.last_lsn)


def finish_rescue(path: str, options: Options) -> None:
    """Gives what was restored its name, where a crash came before that. Raises LockedError."""
    fs = options.fs
    path = os.path.abspath(path)
    staged = path + STAGED
    if fs.exists(path) or not fs.is_dir(staged) or not _damaged(path, fs):
        return
    with open_errors(path):
        lock = take_lock(staged, options)
        try:
            fs.rename(staged, path)
            fs.sync_dir(os.path.dirname(path))
        finally:
            lock.close()
    logger.warning(
        "%s: a restore that was interrupted is finished; what was damaged is kept as %s",
        path, ", ".join(_damaged(path, fs)),
    )  # fmt: skip


def explain(path: str, options: Options, error: CorruptionError) -> NoReturn:
    """Raises the error, with the newest backup, what would be lost, and the command to run."""
    path = os.path.abspath(path)
    chain = next(iter(_candidates(path, options)), None)
    if chain is None:
        raise error
    newest = chain[-1].header
    lost = _lost(Lsn(newest.last_lsn), _last_known(path, options.fs))
    folder = _folder(path, options)
    command = ["amberdb", "rescue", path]
    if folder != RollingBackups().directory_of(path):
        command += ["--backups", folder]
    raise CorruptionError(
        f"{error.message}. The newest backup is {chain[-1].path}, up to Lsn {newest.last_lsn} of "
        f"{time_of(newest.time_us).isoformat()}; {_told(lost)} would be lost. To put it in place, "
        f"and what is damaged aside: `{shlex.join(command)}`, or open with on_damage='restore'",
        **{
            **error.facts,
            "backup": chain[-1].path,
            "backup_lsn": Lsn(newest.last_lsn),
            "lost": lost,
        },
    ) from error


def rescue(path: str, options: Options, error: CorruptionError) -> Rescue:
    """Puts the newest backup that is sound in place. Raises the error when there is none; whatever
    it raises, the damaged database is where it was, or the next open finishes it."""
    fs = options.fs
    path = os.path.abspath(path)
    seen = _manifest_bytes(path, fs)
    with open_errors(path):
        lock = take_lock(path, options)
        try:
            if _manifest_bytes(path, fs) != seen:
                raise LockedError(
                    f"{path} was restored by another process: open it again",
                    path=path, pid=None, host="",
                )  # fmt: skip
            last = _last_known(path, fs)
            chain, report = _restored(path, options, error)
            aside = _free_aside(path, options)
            _swap(path, aside, options)
        finally:
            lock.close()
    found = Rescue(error.message, aside, tuple(chain), report.lsn, report.time, last)
    logger.warning("%s is restored from %s up to Lsn %d of %s; %s are lost. It was damaged (%s), "
        "and is kept as %s", path, chain[-1], found.lsn, found.time.isoformat(),
        _told(found.lost), found.problem, aside)  # fmt: skip
    return found


def _restored(
    path: str, options: Options, error: CorruptionError
) -> tuple[Sequence[str], RestoreReport]:
    """Of the newest chain, as far as it is sound, else of the one before."""
    staged = path + STAGED
    if options.fs.exists(staged):  # of a try that a crash ended; the backups have it all
        lock = take_lock(staged, options)
        try:
            discard_staging(staged, options)
        finally:
            lock.close()
    why = f"there is none in {_folder(path, options)}"
    for chain in _candidates(path, options):
        paths = [each.path for each in chain]
        while paths:
            try:
                return paths, restore_chain(paths, staged, options)
            except BackupError as refused:
                why = refused.message
                logger.warning("%s cannot be restored: %s", paths[-1], why)
                paths.pop()
    raise CorruptionError(
        f"{error.message}. No backup can be restored: {why}", **error.facts
    ) from error


def _swap(path: str, aside: str, options: Options) -> None:
    """Both are locked, so nobody opens or finishes either in between."""
    fs = options.fs
    staged, parent = path + STAGED, os.path.dirname(path)
    lock = take_lock(staged, options)
    try:
        fs.rename(path, aside)
        fs.sync_dir(parent)  # so that never both have lost their names
        fs.rename(staged, path)
        fs.sync_dir(parent)
    finally:
        lock.close()


def _candidates(path: str, options: Options) -> list[Chain]:
    """The chains of backups of this database, the newest first. None where nobody can tell whose
    they are."""
    archives = archives_in(options.fs, _folder(path, options))
    own = _database_id(path, options.fs)
    if own is None:
        owners = {each.header.database_id for each in archives}
        own = owners.pop() if len(owners) == 1 else None
    return chains_of(each for each in archives if each.header.database_id == own)[::-1]


def _folder(path: str, options: Options) -> str:
    return (options.backups or RollingBackups()).directory_of(path)


def _database_id(path: str, fs: FileSystem) -> bytes | None:
    try:
        return manifests.read(fs, path).database_id
    except (AmberError, OSError):
        found = Counter(segment_ids(fs, os.path.join(path, WAL))).most_common(1)
        return found[0][0] if found else None


def _last_known(path: str, fs: FileSystem) -> Lsn | None:
    """The highest Lsn that MANIFEST or log speak of."""
    known: list[Lsn] = []
    try:
        known.append(manifests.read(fs, path).clean_lsn or NO_LSN)
    except (AmberError, OSError):
        pass
    try:
        log = os.path.join(path, WAL)
        known.append(
            check_log(fs, log, None, applied=None, clean_last=None, replay=_unread).last_lsn
        )
    except (AmberError, OSError):
        pass
    return max(known, default=NO_LSN) or None


def _unread(record: Record) -> None:
    """Only how far they go is asked."""


def _manifest_bytes(path: str, fs: FileSystem) -> bytes | None:
    try:
        return fs.read(os.path.join(path, manifests.NAME))
    except OSError:
        return None


def _damaged(path: str, fs: FileSystem) -> list[str]:
    parent, name = os.path.split(path)
    return [
        os.path.join(parent, each) for each in fs.listdir(parent) if each.startswith(name + DAMAGED)
    ]


def _free_aside(path: str, options: Options) -> str:
    now = datetime.fromtimestamp(options.clock(), UTC)
    return first_free_name(options.fs, f"{path}{DAMAGED}{now:%Y%m%dT%H%M%SZ}")


def _lost(lsn: Lsn, last: Lsn | None) -> int | None:
    """Commits between the two; an epoch more counts none by itself."""
    return None if last is None else max(0, lsn_number(last) - lsn_number(lsn))


def _told(lost: int | None) -> str:
    return "an unknown number of commits" if lost is None else f"at most {lost} commits"
