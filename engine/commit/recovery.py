"""Recovery: opens the store, the log and the memtable of a path, after a crash too.

    lock -> MANIFEST -> data file checked, LMDB opened -> log read from applied_lsn and replayed
    into a memtable -> MANIFEST marked as in use, with the next epoch, after an unclean end

After a clean close MANIFEST is marked before the first record: a process that only reads syncs
nothing, and leaves the database closed cleanly however it ends.

A path without a database is created first: see storage/directory.py.

Invariants:
- Nothing is mapped, truncated or written before the lock is held and MANIFEST was read.
- Replay needs no schema: the keys and values of each record go into the memtable as they are.
"""

import os
from dataclasses import dataclass, field, replace
from typing import NoReturn

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import CorruptionError
from amberdb._fs import DirLock
from amberdb._types import NO_LSN, Lsn
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import APPLIED, DATABASE_ID, LAST_TIME, LOG_OFFSET
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.data_file import DATA_FILE, check_version
from amberdb.engine.storage.directory import (
    WAL,
    complete_creation,
    creation,
    data_directory,
    database_exists,
    lock_directory,
    log_options,
    make_directory,
    missing_database,
    new_manifest,
    open_errors,
    remove_leftovers,
)
from amberdb.engine.storage.held_directory import HeldDirectory
from amberdb.engine.storage.manifest import FORMAT_VERSION, Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import Store
from amberdb.wal import Log, Record, Recovery


@dataclass
class Opened:
    """The open parts of a database, and how they were recovered."""

    directory: str
    lock: DirLock
    options: Options
    """With a file system that writes to this directory only, as long as it is where it was."""
    manifest: Manifest
    store: Store
    log: Log
    memtable: Memtable
    status: Status
    last_us: int
    """The time of the last commit."""
    recovery: Recovery | None
    """What was replayed; None when the database was created now, or closed cleanly before."""
    marking: CallLock = field(default_factory=CallLock)
    """Guards the mark in MANIFEST."""

    def mark_in_use(self) -> None:
        """Marks the database in MANIFEST as not closed cleanly, unless it is: the log is about to
        get a record. Raises ReplacedError, OSError."""
        with self.marking:
            if self.manifest.clean_lsn is not None:
                manifest = replace(self.manifest, clean_lsn=None)
                manifest.write(self.options.fs, self.directory)
                self.manifest = manifest
        if failpoints.on:
            failpoints.reach("open.marked-in-use")

    def mark_clean(self, last_lsn: Lsn) -> None:
        """Records a clean close in MANIFEST, its last step. Raises ReplacedError, OSError."""
        if self.manifest.clean_lsn != last_lsn:
            replace(self.manifest, clean_lsn=last_lsn).write(self.options.fs, self.directory)

    def close(self) -> None:
        """Releases the files and the lock, when no database comes of it."""
        try:
            self.log.close()
        finally:
            self.store.release(_not_open)
            self.status.close()
            self.lock.close()


def open_parts(
    path: str, options: Options, *, create: bool, durable: bool = True, shared: bool = False
) -> Opened:
    """Opens a database, or creates it with `create`. Without `durable` LMDB does not sync; `shared`
    as for lock_directory(). Raises OpenError and its subclasses, CorruptionError,
    DiskFullError."""
    with open_errors(path):
        return _open_parts(path, options, create, durable, shared)


def _open_parts(path: str, options: Options, create: bool, durable: bool, shared: bool) -> Opened:
    path = os.path.abspath(path)
    made = False
    if not database_exists(path, options):
        if not create:
            raise missing_database(path)
        made = make_directory(path, options)
    lock = lock_directory(path, options, shared=shared)
    try:
        if not database_exists(path, options):  # unless another process has just created it
            if not create:
                raise missing_database(path)
            _create(path, options, durable, made=made)
        return _recover(path, lock, options, durable=durable)
    except BaseException:
        lock.close()
        raise


# -- creating ----------------------------------------------------------------------------------


def _create(path: str, options: Options, durable: bool, *, made: bool) -> None:
    with creation(path, options, made=made):
        manifest = new_manifest(options)
        data = data_directory(path, manifest.generation)
        options.fs.mkdir(data, like=path)
        store = _open_store(data, manifest, options, create=True, durable=durable)
        store.release(_not_open)
        if failpoints.on:
            failpoints.reach("create.data-made")
        complete_creation(path, manifest, NO_LSN, options)


def _not_open() -> NoReturn:
    """Called by reads of a store that was released before any database had it."""
    raise AssertionError("this store is closed")


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
    if failpoints.on:
        failpoints.reach("recovery.locked")
    manifest = manifests.read(options.fs, path)
    fs = HeldDirectory(options.fs, path, lock)
    options = replace(options.within_size(), fs=fs)
    if failpoints.on:
        failpoints.reach("recovery.manifest-read")
    check_version(path, manifest.lmdb_version)
    data = data_directory(path, manifest.generation)
    store = _open_store(data, manifest, options, create=False, durable=durable)
    if failpoints.on:
        failpoints.reach("recovery.store-open")
    try:
        remove_leftovers(path, manifest.generation, fs)
        return _replayed(path, lock, options, manifest, store)
    except BaseException:
        store.release(_not_open)  # explicitly: the traceback's frames would keep it open
        raise


def _replayed(
    path: str, lock: DirLock, options: Options, manifest: Manifest, store: Store
) -> Opened:
    fs = options.fs
    memtable = Memtable()

    def replay(record: Record) -> None:
        effects = decode_effects(record.payload)
        memtable.publish(record.lsn, effects, len(record.payload), record.time_us)
        memtable.keys.group()  # now, while they are in the processor's caches

    was_clean = manifest.clean_lsn is not None
    epoch = manifest.epoch if was_clean else manifest.epoch + 1
    log, recovery = Log.open(
        fs,
        os.path.join(path, WAL),
        database_id=manifest.database_id,
        options=log_options(options),
        applied=store.applied_lsn,
        clean_last=manifest.clean_lsn,
        epoch=epoch,
        replay=replay,
        applied_offset=int.from_bytes(store.get(LOG_OFFSET) or b""),
    )
    if failpoints.on:
        failpoints.reach("recovery.replayed")
    try:
        status = Status.begin(fs, path, manifest.database_id, log.last_lsn)
        if failpoints.on:
            failpoints.reach("recovery.status-written")
        if not was_clean or manifest.format < FORMAT_VERSION:
            manifest = replace(manifest, epoch=epoch, format=FORMAT_VERSION)
            manifest.write(fs, path)
    except BaseException:
        log.close()
        raise
    if failpoints.on:
        failpoints.reach("recovery.manifest-written")
    last_us = memtable.last_us or int.from_bytes(store.get(LAST_TIME) or b"")
    opened = Opened(
        path,
        lock,
        options,
        manifest,
        store,
        log,
        memtable,
        status,
        last_us,
        None if was_clean else recovery,
    )
    if was_clean:
        log.before_first(opened.mark_in_use)
    return opened
