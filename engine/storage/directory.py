"""The directory of a database: names, lock, staging, generations."""

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


@contextmanager
def open_errors(path: str) -> Generator[None]:
    """What a file system refuses is an OpenError, or a DiskFullError."""
    try:
        yield
    except AmberError:
        raise
    except OSError as error:
        if error.errno == ENOSPC:
            raise DiskFullError(f"{path}: no space to open it: free some", path=path) from error
        raise OpenError(
            f"{path} cannot be opened for writing: {error.strerror or error}", path=path
        ) from error


def take_lock(path: str, options: Options) -> DirLock:
    """Raises LockedError with the owner's pid and host."""
    owner = f"{os.getpid()} {os.uname().nodename if hasattr(os, 'uname') else 'localhost'}"
    try:
        return options.fs.lock(os.path.join(path, LOCK), owner)
    except BlockingIOError as error:
        pid, _, host = str(error.filename2 or "").partition(" ")
        raise LockedError(
            f"{path} is open in process {pid or '?'} on {host or '?'}: one process writes at a "
            "time; close it there, or use it through that process",
            path=path,
            pid=int(pid) if pid.isdigit() else None,
            host=host,
        ) from None


def missing_database(path: str) -> DatabaseMissingError:
    return DatabaseMissingError(f"there is no database at {path}", path=path)


def is_there(path: str, options: Options) -> bool:
    """Whether a database is at an absolute path, or nothing. Raises NotADatabaseError for
    something else, CorruptionError for one without its MANIFEST."""
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
    ours = {LOCK, WAL, manifests.NAME + ".tmp"}
    if ours & set(names) and any(name.startswith("data-") for name in names):
        where = os.path.join(path, manifests.NAME)
        raise CorruptionError(
            f"{where} is missing: run `amberdb repair`, or restore a backup", path=where, offset=0
        )
    raise NotADatabaseError(
        f"{path} holds other files and is not a database: choose another path", path=path
    )


def data_directory(path: str, generation: int) -> str:
    return os.path.join(path, f"data-{generation}")


def generation_of(name: str) -> int | None:
    """The number of a generation from the name of its directory."""
    word, _, number = name.partition("-")
    return int(number) if word == "data" and number.isdecimal() else None


def remove_generation(fs: FileSystem, path: str, generation: int) -> None:
    """The directory of a generation that is not in use, if it is there."""
    data = data_directory(path, generation)
    if fs.is_dir(data):
        remove_directory(fs, data)
        fs.sync_dir(path)


def _log_options(options: Options) -> LogOptions:
    return LogOptions(
        segment_bytes_min=options.segment_bytes_min,
        segment_bytes_max=options.segment_bytes_max,
        sync_interval_ms=options.sync_interval_ms,
        slow_sync_ms=options.slow_sync_ms,
    )


def acquire_staging(path: str, options: Options) -> tuple[str, DirLock]:
    """The directory beside `path` where a database is made, empty, and its lock, which moves
    along with the rename. Raises LockedError, DatabaseMissingError, NotADatabaseError."""
    fs = options.fs
    aside = path + STAGING_SUFFIX
    if not fs.exists(aside):
        parent = os.path.dirname(path)
        if not fs.is_dir(parent):
            raise DatabaseMissingError(
                f"the directory {parent} does not exist: create it first", path=path
            )
        try:
            fs.mkdir(aside)
        except FileExistsError:  # by another process, this moment; the lock decides
            pass
    try:
        lock = take_lock(aside, options)
    except FileNotFoundError:
        raise _lost_creation_race(path) from None
    try:
        if fs.exists(path) and fs.listdir(path):
            if fs.exists(aside) and fs.listdir(aside) == [LOCK]:  # nothing that a crash left
                discard_staging(aside, options)
            raise _lost_creation_race(path)
        if failpoints.on:
            failpoints.reach("create.locked")
        remove_unfinished(aside, options)
    except BaseException:
        lock.close()
        raise
    return aside, lock


def new_manifest(options: Options, epoch: int = 1) -> Manifest:
    """Of a database that begins now."""
    return Manifest(
        database_id=os.urandom(16),
        generation=1,
        epoch=epoch,
        clean_lsn=None,
        created_us=int(options.clock() * 1_000_000),
        lmdb_version=lmdb_version(),
    )


def publish_staging(
    path: str, aside: str, manifest: Manifest, last_lsn: Lsn, options: Options
) -> None:
    """Gives the database its log, which begins behind `last_lsn`, its MANIFEST, and its name."""
    fs = options.fs
    log_directory = os.path.join(aside, WAL)
    fs.mkdir(log_directory)
    Log.create(
        fs,
        log_directory,
        database_id=manifest.database_id,
        options=_log_options(options),
        epoch=manifest.epoch,
        last_lsn=last_lsn,
    ).close()
    if failpoints.on:
        failpoints.reach("create.log-made")
    replace(manifest, clean_lsn=last_lsn).write(fs, aside)
    fs.sync_dir(aside)
    if failpoints.on:
        failpoints.reach("create.manifest-written")
    fs.rename(aside, path)
    if failpoints.on:
        failpoints.reach("create.renamed")
    fs.sync_dir(os.path.dirname(path))


def discard_staging(aside: str, options: Options) -> None:
    """Removes what take_aside() gave."""
    fs = options.fs
    remove_unfinished(aside, options)
    fs.unlink(os.path.join(aside, LOCK))
    fs.rmdir(aside)


def _lost_creation_race(path: str) -> LockedError:
    return LockedError(
        f"{path} is being created by another process: try again", path=path, pid=None, host=""
    )


def remove_unfinished(aside: str, options: Options) -> None:
    """What a crash during an earlier creation left. Only names that creation makes."""
    fs = options.fs
    for name in fs.listdir(aside):
        path = os.path.join(aside, name)
        if name == LOCK:
            continue
        if name == WAL or name.startswith("data-"):
            remove_directory(fs, path)
        elif name.startswith((manifests.NAME, STATUS)):  # opened, and then its rename was lost
            fs.unlink(path)
        else:
            raise NotADatabaseError(
                f"{path} is in the way of creating a database: remove it", path=path
            )
