"""The directory of a database: its names, its lock, its creation and its generations.

    LOCK        locked by the one process that writes; it holds that process's pid, host and name
    MANIFEST    what the directory is, and which generation is in use: see manifest.py
    STATUS      what other processes may read: see status.py
    data-<n>/   the LMDB data of generation n
    wal/        the log
    cache/      derived files: see cache_file.py

Invariants:
- A database is created as `<path>.tmp`, the staging directory, and renamed when it is complete: a
  crash in between leaves nothing under its name.
- Only names that creation makes are ever removed from a staging directory.
- One generation is in use. A directory of another one was left by a compaction that did not end.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from errno import ENOSPC

from amberdb import _failpoints as failpoints
from amberdb._errors import (
    AmberError,
    CorruptionError,
    DatabaseMissingError,
    DiskFullError,
    LockedError,
    NotADatabaseError,
    OpenError,
)
from amberdb._fs import STAGING_SUFFIX, DirLock, FileSystem, remove_directory
from amberdb._types import Lsn
from amberdb.engine.options import Options
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.data_file import lmdb_version
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.status import NAME as STATUS
from amberdb.wal import Log, LogOptions

LOCK = "LOCK"
WAL = "wal"
_DATA = "data"
_process = 0, ""


def database_exists(path: str, options: Options) -> bool:
    """Whether a database is at an absolute path; False when nothing is there. Raises
    NotADatabaseError for anything else, CorruptionError for a database without its MANIFEST."""
    fs = options.fs
    if fs.exists(path) and not fs.is_dir(path):
        raise NotADatabaseError(
            f"{path} is a file, and a database is a directory: choose another path", path=path
        )
    names = fs.listdir(path) if fs.exists(path) else []
    if not names:
        return False
    if manifests.NAME in names:
        return True
    own_names = {LOCK, WAL, manifests.NAME + STAGING_SUFFIX}
    if own_names & set(names) and any(name.startswith(f"{_DATA}-") for name in names):
        where = os.path.join(path, manifests.NAME)
        raise CorruptionError(
            f"{where} is missing: run `amberdb repair`, or restore a backup", path=where, offset=0
        )
    raise NotADatabaseError(
        f"{path} holds other files and is not a database: choose another path", path=path
    )


def missing_database(path: str) -> DatabaseMissingError:
    """The error of a path where no database is."""
    return DatabaseMissingError(f"there is no database at {path}", path=path)


@contextmanager
def open_errors(path: str) -> Generator[None]:
    """Turns an OSError of the block into OpenError, or DiskFullError."""
    try:
        yield
    except AmberError:
        raise
    except OSError as error:
        if error.errno == ENOSPC:
            raise DiskFullError(
                f"{path}: no space left to open it: free some", path=path
            ) from error
        raise OpenError(
            f"{path} cannot be opened for writing: {error.strerror or error}", path=path
        ) from error


def lock_directory(path: str, options: Options) -> DirLock:
    """Locks a database or a staging directory for writing. Raises LockedError with the owner's pid
    and host."""
    owner = f"{os.getpid()} {os.uname().nodename} {_this_process()}"
    try:
        return options.fs.lock(os.path.join(path, LOCK), owner)
    except BlockingIOError as error:
        pid, host, process = lock_owner(error)
        if process == _this_process():
            what = (
                f"{path} is in use by this process (an open database, a repair or a restore): "
                "close it, or wait for its end"
            )
        else:
            what = (
                f"{path} is open in process {pid or '?'} on host {host or '?'}: one process writes "
                "at a time; close it there, or open it with read_only=True"
            )
        raise LockedError(what, path=path, pid=pid, host=host) from None


def lock_owner(error: BlockingIOError) -> tuple[int | None, str, str]:
    """The pid, the host and the process of the owner of a lock that could not be taken, from the
    text of the LOCK file."""
    pid, host, process, *_ = [*str(error.filename2 or "").split(" "), "", "", ""]
    return int(pid) if pid.isdecimal() else None, host, process


def _this_process() -> str:
    """A name of this process that no other one has: a pid has a meaning only in its container."""
    global _process
    pid, name = _process
    if pid != os.getpid():  # after a fork
        pid, name = _process = os.getpid(), os.urandom(8).hex()
    return name


def lock_identity(path: str) -> tuple[int, int] | None:
    """Identifies the database at `path` by its LOCK file; None when there is none."""
    try:
        status = os.stat(os.path.join(path, LOCK))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def log_options(options: Options) -> LogOptions:
    """The options that concern the log."""
    return LogOptions(
        segment_bytes_min=options.segment_bytes_min,
        segment_bytes_max=options.segment_bytes_max,
        sync_interval_ms=options.sync_interval_ms,
        slow_sync_ms=options.slow_sync_ms,
    )


def data_directory(path: str, generation: int) -> str:
    """The directory of a generation in the database at `path`."""
    return os.path.join(path, f"{_DATA}-{generation}")


def generation_of(name: str) -> int | None:
    """The number of a generation from the name of its directory; None for another name."""
    word, _, number = name.partition("-")
    return int(number) if word == _DATA and number.isdecimal() else None


def remove_generation(fs: FileSystem, path: str, generation: int) -> None:
    """Removes the directory of a generation that is not in use, if it exists."""
    data = data_directory(path, generation)
    if fs.is_dir(data):
        remove_directory(fs, data)
        fs.sync_dir(path)


def acquire_staging(path: str, options: Options) -> tuple[str, DirLock]:
    """Makes the staging directory of `path`, empty. Returns it and its lock, which stays with the
    directory when that is renamed. Raises LockedError, DatabaseMissingError when the parent is
    missing, NotADatabaseError."""
    fs = options.fs
    staging = path + STAGING_SUFFIX
    if not fs.exists(staging):
        parent = os.path.dirname(path)
        if not fs.is_dir(parent):
            raise DatabaseMissingError(
                f"the directory {parent} does not exist: create it first", path=path
            )
        try:
            fs.mkdir(staging)
        except FileExistsError:  # another process made it just now: the lock decides
            pass
    try:
        lock = lock_directory(staging, options)
    except FileNotFoundError:
        raise _lost_creation_race(path) from None
    try:
        if fs.exists(path) and fs.listdir(path):
            if fs.exists(staging) and fs.listdir(staging) == [LOCK]:  # made above, and empty
                discard_staging(staging, options)
            raise _lost_creation_race(path)
        if failpoints.on:
            failpoints.reach("create.locked")
        _remove_unfinished(staging, options)
    except BaseException:
        lock.close()
        raise
    return staging, lock


def publish_staging(
    path: str, staging: str, manifest: Manifest, last_lsn: Lsn, options: Options
) -> None:
    """Completes the database in a staging directory, with a log that begins after `last_lsn` and
    its MANIFEST, and renames it to `path`."""
    fs = options.fs
    log_directory = os.path.join(staging, WAL)
    fs.mkdir(log_directory)
    Log.create(
        fs,
        log_directory,
        database_id=manifest.database_id,
        options=log_options(options),
        epoch=manifest.epoch,
        last_lsn=last_lsn,
    ).close()
    if failpoints.on:
        failpoints.reach("create.log-made")
    replace(manifest, clean_lsn=last_lsn).write(fs, staging)
    fs.sync_dir(staging)
    if failpoints.on:
        failpoints.reach("create.manifest-written")
    fs.rename(staging, path)
    if failpoints.on:
        failpoints.reach("create.renamed")
    fs.sync_dir(os.path.dirname(path))


def discard_staging(staging: str, options: Options) -> None:
    """Removes a staging directory, whose lock is held."""
    fs = options.fs
    _remove_unfinished(staging, options)
    fs.unlink(os.path.join(staging, LOCK))
    fs.rmdir(staging)


def _remove_unfinished(staging: str, options: Options) -> None:
    """Removes what a crash during an earlier creation left; other names raise NotADatabaseError."""
    fs = options.fs
    for name in fs.listdir(staging):
        path = os.path.join(staging, name)
        if name == LOCK:
            continue
        if name == WAL or name.startswith(f"{_DATA}-"):
            remove_directory(fs, path)
        elif name.startswith((manifests.NAME, STATUS)):
            # It was renamed and opened, and then a crash undid the rename.
            fs.unlink(path)
        else:
            raise NotADatabaseError(
                f"{path} is in the way of creating a database: remove it",
                path=path,
            )


def new_manifest(options: Options, epoch: int = 1) -> Manifest:
    """The MANIFEST of a new database."""
    return Manifest(
        database_id=os.urandom(16),
        generation=1,
        epoch=epoch,
        clean_lsn=None,
        created_us=int(options.clock() * 1_000_000),
        lmdb_version=lmdb_version(),
    )


def _lost_creation_race(path: str) -> LockedError:
    """The error of a path where another process has just created a database."""
    return LockedError(
        f"{path} is being created by another process: try again", path=path, pid=None, host=""
    )
