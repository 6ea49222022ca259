"""Opening: from a path to a store, a log and a memtable that agree.

    lock -> MANIFEST -> data file checked, LMDB opened -> log read from applied_lsn and replayed
    into a memtable -> MANIFEST says "in use" (with the next epoch after an unclean end)

Invariants:
- Nothing is mapped, cut or written before the lock is held and MANIFEST was read.
- A database is born under `<path>.tmp` and renamed when it is whole, so a crash in between leaves
  nothing under its name.
- Replay is blind: the pairs of each record go into the memtable as they are.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from errno import ENOSPC
from typing import NoReturn

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
from amberdb._types import NO_LSN, Lsn
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import APPLIED, DATABASE_ID, LAST_TIME
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.status import NAME as STATUS
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import DATA_FILE, Store, check_version, lmdb_version
from amberdb.wal import Log, LogOptions, Record, Recovery

LOCK = "LOCK"
WAL = "wal"


@dataclass
class Opened:
    """What a Database is made of."""

    directory: str
    lock: DirLock
    manifest: Manifest
    store: Store
    log: Log
    memtable: Memtable
    status: Status
    last_us: int
    """The latest commit time that was replayed: the clock of this database never goes back."""
    recovery: Recovery | None
    """None when the database was created, or closed cleanly."""

    def close(self) -> None:
        """Lets go of everything, after a failure to make a Database of it."""
        try:
            self.log.close()
        finally:
            self.store.close(_not_open)
            self.lock.close()


def open_parts(path: str, options: Options, *, create: bool, durable: bool = True) -> Opened:
    """Opens or creates. Raises OpenError and its kin, CorruptionError, DiskFullError."""
    with open_errors(path):
        return _open_parts(path, options, create, durable)


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


def _open_parts(path: str, options: Options, create: bool, durable: bool) -> Opened:
    path = os.path.abspath(path)
    if not is_there(path, options):
        if not create:
            raise missing_database(path)
        return _create(path, options, durable)
    lock = take_lock(path, options)
    try:
        # Whoever made or restored it may have died between its rename and this.
        with suppress(PermissionError):  # then it was made by somebody else, long ago
            options.fs.sync_dir(os.path.dirname(path))
        return _recover(path, lock, options)
    except BaseException:
        lock.close()
        raise


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


# -- creating ----------------------------------------------------------------------------------


def _create(path: str, options: Options, durable: bool) -> Opened:
    fs = options.fs
    aside, lock = acquire_staging(path, options)
    try:
        manifest = new_manifest(options)
        data = data_directory(aside, manifest.generation)
        fs.mkdir(data)
        store = _open_store(data, manifest, options, create=True, durable=durable)
        store.close(_not_open)
        if failpoints.on:
            failpoints.reach("create.data-made")
        publish_staging(path, aside, manifest, NO_LSN, options)
        return _recover(path, lock, options, durable=durable)
    except BaseException:
        lock.close()
        raise


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


def _not_open() -> NoReturn:
    raise AssertionError("this store is closed")


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


def _open_store(
    data: str, manifest: Manifest, options: Options, *, create: bool, durable: bool
) -> Store:
    store = Store(data, fs=options.fs, create=create, map_bytes=options.map_bytes, sync=durable)
    if create:
        with store.write() as writer:
            writer.put(DATABASE_ID, manifest.database_id)
            writer.put(APPLIED, NO_LSN.to_bytes(8))
    elif store.get(DATABASE_ID) != manifest.database_id:
        raise CorruptionError(
            f"{os.path.join(data, DATA_FILE)} belongs to another database than MANIFEST: "
            "restore a backup",
            path=os.path.join(data, DATA_FILE),
            offset=0,
        )
    return store


# -- recovering --------------------------------------------------------------------------------


def _recover(path: str, lock: DirLock, options: Options, *, durable: bool = True) -> Opened:
    fs = options.fs
    if failpoints.on:
        failpoints.reach("recovery.locked")
    manifest = manifests.read(fs, path)
    if failpoints.on:
        failpoints.reach("recovery.manifest-read")
    check_version(path, manifest.lmdb_version)
    data = data_directory(path, manifest.generation)
    store = _open_store(data, manifest, options, create=False, durable=durable)
    if failpoints.on:
        failpoints.reach("recovery.store-open")
    try:
        for generation in filter(None, map(generation_of, fs.listdir(path))):
            if generation != manifest.generation:  # a compaction was interrupted
                remove_generation(fs, path, generation)
        return _replayed(path, lock, options, manifest, store)
    except BaseException:
        store.close(_not_open)  # now: the exception's frames would keep it open
        raise


def _replayed(
    path: str, lock: DirLock, options: Options, manifest: Manifest, store: Store
) -> Opened:
    fs = options.fs
    memtable = Memtable()

    def replay(record: Record) -> None:
        effects = decode_effects(record.payload)
        memtable.publish(record.lsn, effects, len(record.payload), record.time_us)

    was_clean = manifest.clean_lsn is not None
    epoch = manifest.epoch if was_clean else manifest.epoch + 1
    log, recovery = Log.open(
        fs,
        os.path.join(path, WAL),
        database_id=manifest.database_id,
        options=_log_options(options),
        applied=store.applied_lsn,
        clean_last=manifest.clean_lsn,
        epoch=epoch,
        replay=replay,
    )
    if failpoints.on:
        failpoints.reach("recovery.replayed")
    try:
        status = Status.begin(fs, path, manifest.database_id, log.last_lsn)
        if failpoints.on:
            failpoints.reach("recovery.status-written")
        manifest = replace(manifest, epoch=epoch, clean_lsn=None)
        manifest.write(fs, path)
    except BaseException:
        log.close()
        raise
    if failpoints.on:
        failpoints.reach("recovery.manifest-written")
    last_us = memtable.last_us or int.from_bytes(store.get(LAST_TIME) or b"")
    return Opened(
        path, lock, manifest, store, log, memtable, status, last_us, None if was_clean else recovery
    )


def mark_clean(opened: Opened, options: Options, last_lsn: Lsn) -> None:
    """The last thing a clean close does."""
    replace(opened.manifest, clean_lsn=last_lsn).write(options.fs, opened.directory)
