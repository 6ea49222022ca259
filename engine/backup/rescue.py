"""Automatic restore: replaces a database that is damaged beyond recovery by its newest backup. It
runs at open with on_damage="restore", and as the command `amberdb rescue`.

    damage -> locked -> newest chain, verified and restored under a staging name, with the commits
              after it that the damaged database's log has, up to the first damage
           -> <path> renamed to <path>.damaged-<time> -> the restored directory renamed to <path>

Invariants:
- The damaged directory is renamed only after the restored one is complete, checked and synced; no
  file of the damaged directory is changed or removed.
- A crash between the two renames leaves nothing under the path: the next open completes the second
  rename instead of creating a database.
- Only backups of the same database are used.
- The restored directory has the permissions and the owner of the damaged one. Of a link the
  directory behind it is replaced, and a mount point, which cannot be renamed, is not touched.
"""

import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, NoReturn, final

from amberdb._errors import AmberError, BackupError, CorruptionError, LockedError
from amberdb._fs import FileSystem, first_free_name, staging_name
from amberdb._public import public
from amberdb._time import time_of
from amberdb._types import NO_LSN, Lsn, lsn_number
from amberdb.engine.backup.folder import Chain, archives_in, chains_of
from amberdb.engine.backup.restore import RestoreReport, restore_chain
from amberdb.engine.options import Options, RollingBackups
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.directory import (
    WAL,
    database_exists,
    discard_restored,
    lock_directory,
    open_errors,
    staged_beside,
)
from amberdb.wal import Record, check_log, segment_ids, sound_records

logger = logging.getLogger("amberdb.engine")

DAMAGED: Final = ".damaged-"


@public
@final
@dataclass(frozen=True, slots=True)
class Rescue:
    """The report of an automatic restore at open: `db.rescue`."""

    problem: str
    """Why the database could not be opened."""
    damaged: str
    """The directory that keeps the damaged database unchanged."""
    chain: tuple[str, ...]
    """The backups that were restored."""
    lsn: Lsn
    """The last commit that was restored, from a backup or from the log of the damaged database."""
    time: datetime
    """The time of that commit."""
    last_lsn: Lsn | None
    """The last commit that the damaged database mentions; None when it cannot be read."""

    @property
    def lost(self) -> int | None:
        """The most commits that can be lost: those that the database makes for itself are counted
        too. None: unknown."""
        return _lost(self.lsn, self.last_lsn)


def finish_rescue(path: str, options: Options) -> None:
    """Completes an automatic restore that a crash interrupted between its two renames. Raises
    LockedError."""
    fs = options.fs
    path = os.path.realpath(path)
    if fs.exists(path) or not fs.is_dir(os.path.dirname(path)) or not _damaged(path, fs):
        return
    complete = [name for name in staged_beside(path, fs) if database_exists(name, options)]
    if not complete:
        return
    staged = complete[-1]
    with open_errors(path):
        lock = lock_directory(staged, options)
        try:
            fs.rename(staged, path)
            fs.sync_dir(os.path.dirname(path))
        finally:
            lock.close()
    logger.warning(
        "%s: an interrupted automatic restore is completed; the damaged database is kept as %s",
        path, ", ".join(_damaged(path, fs)),
    )  # fmt: skip


def explain(path: str, options: Options, error: CorruptionError) -> NoReturn:
    """Raises the error with the newest backup, the number of commits that a restore would lose, and
    the command for it added."""
    path = os.path.abspath(path)
    chain = next(iter(_candidates(path, options)), None)
    if chain is None:
        raise error
    newest = chain[-1].header
    reaches = Lsn(newest.last_lsn)
    for record in _log_after(path, options.fs, reaches):
        reaches = record.lsn
    lost = _lost(reaches, _last_known(path, options.fs))
    with_log = f", and the log has sound commits up to Lsn {reaches}" * (reaches > newest.last_lsn)
    folder = _folder(path, options)
    command = ["amberdb", "rescue", path]
    if folder != RollingBackups().directory_of(path):
        command += ["--backups", folder]
    raise CorruptionError(
        f"{error.message}. The newest backup is {chain[-1].path}, up to Lsn {newest.last_lsn} of "
        f"{time_of(newest.time_us).isoformat()}{with_log}; {_count_of(lost)} would be lost. To "
        f"restore it, and keep the damaged database beside it: `{shlex.join(command)}`, or open "
        "with on_damage='restore'",
        **{
            **error.facts,
            "backup": chain[-1].path,
            "backup_lsn": Lsn(newest.last_lsn),
            "lost": lost,
        },
    ) from error


def rescue(path: str, options: Options, error: CorruptionError) -> Rescue:
    """Replaces the damaged database by its newest sound backup. Raises `error` when there is none.
    After any failure the damaged database is still in its place, or the next open completes the
    restore."""
    fs = options.fs
    path, real = os.path.abspath(path), os.path.realpath(path)
    if os.path.ismount(real):
        raise CorruptionError(
            f"{error.message}. {path} is a mount point, which cannot be replaced: restore a backup "
            "into another directory",
            **error.facts,
        ) from error
    manifest_before = _manifest_bytes(path, fs)
    with open_errors(path):
        lock = lock_directory(path, options)
        try:
            if _manifest_bytes(path, fs) != manifest_before:
                raise LockedError(
                    f"{path} was restored by another process: open it again",
                    path=path, pid=None, host="", is_shared=False,
                )  # fmt: skip
            last = _last_known(path, fs)
            staged = staging_name(real)
            chain, report = _restored(path, staged, options, error)
            damaged = _damaged_name(real, options)
            _swap(real, staged, damaged, options)
        finally:
            lock.close()
    done = Rescue(error.message, damaged, tuple(chain), report.lsn, report.time, last)
    logger.warning("%s is restored from %s up to Lsn %d of %s; %s are lost. It was damaged (%s), "
        "and is kept as %s", path, chain[-1], done.lsn, done.time.isoformat(),
        _count_of(done.lost), done.problem, damaged)  # fmt: skip
    return done


def _restored(
    path: str, staged: str, options: Options, error: CorruptionError
) -> tuple[Sequence[str], RestoreReport]:
    """Restores the newest chain, without its last archives where these are damaged; if none of it
    can be restored, the chain before. Returns the archives used."""
    for left in staged_beside(
        os.path.realpath(path), options.fs
    ):  # by a restore that a crash ended
        discard_restored(left, options)
    options.fs.mkdir(staged)
    try:
        options.fs.copy_access(path, staged)
        return _filled(path, staged, options, error)
    except BaseException:
        with suppress(OSError):
            options.fs.rmdir(staged)
        raise


def _filled(
    path: str, staged: str, options: Options, error: CorruptionError
) -> tuple[Sequence[str], RestoreReport]:
    why = f"there is none in {_folder(path, options)}"
    for chain in _candidates(path, options):
        paths = [archive.path for archive in chain]
        while paths:
            try:
                return paths, _restored_chain(paths, path, staged, options)
            except BackupError as refused:
                why = refused.message
                logger.warning("%s cannot be restored: %s", paths[-1], why)
                paths.pop()
    raise CorruptionError(
        f"{error.message}. No backup can be restored: {why}", **error.facts
    ) from error


def _restored_chain(
    paths: Sequence[str], path: str, staged: str, options: Options
) -> RestoreReport:
    """Restores a chain and the commits after it from the log of the damaged database; without these
    when they make no sound database."""
    try:
        later = partial(_log_after, path, options.fs)
        return restore_chain(paths, staged, options, later=later)
    except BackupError as refused:
        logger.warning("the log of %s is left out: %s", path, refused.message)
        return restore_chain(paths, staged, options)


def _log_after(path: str, fs: FileSystem, after: Lsn) -> Iterator[Record]:
    """The commits after `after` in the log of a damaged database, up to the first damage."""
    own = _database_id(path, fs)
    if own is not None:
        try:
            yield from sound_records(fs, os.path.join(path, WAL), own, after)
        except (AmberError, OSError) as error:
            logger.warning("%s: the log cannot be read further: %s", path, error)


def _swap(path: str, staged: str, damaged: str, options: Options) -> None:
    """The two renames. Both directories are locked, so no process opens either in between."""
    fs = options.fs
    parent = os.path.dirname(path)
    lock = lock_directory(staged, options)
    try:
        fs.rename(path, damaged)
        fs.sync_dir(parent)  # before the second rename, so that no crash keeps only that one
        fs.rename(staged, path)
        fs.sync_dir(parent)
    finally:
        lock.close()


def _candidates(path: str, options: Options) -> list[Chain]:
    """The chains of backups of this database, the newest first. None when its id cannot be read
    and the folder has backups of several databases."""
    archives = archives_in(options.fs, _folder(path, options))
    own = _database_id(path, options.fs)
    if own is None:
        owners = {archive.header.database_id for archive in archives}
        own = owners.pop() if len(owners) == 1 else None
    return chains_of(archive for archive in archives if archive.header.database_id == own)[::-1]


def _folder(path: str, options: Options) -> str:
    return (options.backups or RollingBackups()).directory_of(path)


def _database_id(path: str, fs: FileSystem) -> bytes | None:
    try:
        return manifests.read(fs, path).database_id
    except (AmberError, OSError):
        by_count = Counter(segment_ids(fs, os.path.join(path, WAL))).most_common(1)
        return by_count[0][0] if by_count else None


def _last_known(path: str, fs: FileSystem) -> Lsn | None:
    """The highest Lsn that MANIFEST or log mention."""
    known: list[Lsn] = []
    try:
        known.append(manifests.read(fs, path).clean_lsn or NO_LSN)
    except (AmberError, OSError):
        pass
    try:
        log = os.path.join(path, WAL)
        known.append(
            check_log(fs, log, None, applied=None, clean_last=None, replay=_ignore).last_lsn
        )
    except (AmberError, OSError):
        pass
    return max(known, default=NO_LSN) or None


def _ignore(record: Record) -> None:
    """Records need no replay here: only the last Lsn counts."""


def _manifest_bytes(path: str, fs: FileSystem) -> bytes | None:
    try:
        return fs.read(os.path.join(path, manifests.NAME))
    except OSError:
        return None


def _damaged(path: str, fs: FileSystem) -> list[str]:
    parent, name = os.path.split(path)
    return [
        os.path.join(parent, other)
        for other in fs.listdir(parent)
        if other.startswith(name + DAMAGED)
    ]


def _damaged_name(path: str, options: Options) -> str:
    now = datetime.fromtimestamp(options.clock(), UTC)
    return first_free_name(options.fs, f"{path}{DAMAGED}{now:%Y%m%dT%H%M%SZ}")


def _lost(lsn: Lsn, last: Lsn | None) -> int | None:
    """The number of commits between the two; a new epoch alone counts none."""
    return None if last is None else max(0, lsn_number(last) - lsn_number(lsn))


def _count_of(lost: int | None) -> str:
    return "an unknown number of commits" if lost is None else f"at most {lost} commits"
