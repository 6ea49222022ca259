"""The directory of a database: its names, its lock, its creation and its generations.

    LOCK        locked by the one process that writes; it holds that process's pid, host and name,
                and "shared" if it takes the writes of others
    SOCKET      of a process that shares the database: bindings/remote/place.py
    MANIFEST    what the directory is, and which generation is in use: see manifest.py
    STATUS      what other processes may read: see status.py
    data-<n>/   the LMDB data of generation n
    wal/        the log
    cache/      derived files: see cache_file.py
    CREATING    while the database is made, or restored: magic 8 | random id 16 | crc u32

Invariants:
- A database is made where it will be, in a new directory or in an empty one of the user, which is
  never renamed or replaced: it keeps its permissions, owner, mount and links.
- CREATING is durable before anything else is made, and MANIFEST is written last. A directory with
  CREATING and without MANIFEST was left by a creation that did not end: it counts as empty, and the
  next creation removes what is in it. After a restore that did not end only another restore does.
- Only names that creation makes are ever removed.
- One generation is in use. A directory of another one was left by a compaction that did not end.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import ENOSPC
from typing import NamedTuple

from amberdb import _failpoints as failpoints
from amberdb._bytes import CRC_SIZE, append_crc, crc_matches
from amberdb._errors import (
    AmberError,
    CorruptionError,
    DatabaseMissingError,
    DiskFullError,
    LockedError,
    NotADatabaseError,
    OpenError,
)
from amberdb._fs import (
    DirLock,
    FileSystem,
    remove_directory,
    replace_file,
    staged_for,
    what_is_full,
)
from amberdb._plain import has_surrogate
from amberdb._types import Lsn
from amberdb.engine.options import Options
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.data_file import lmdb_version
from amberdb.engine.storage.manifest import Manifest
from amberdb.wal import Log, LogOptions

LOCK = "LOCK"
SOCKET = "SOCKET"
WAL = "wal"
CREATING = "CREATING"
_DATA = "data"
_process = 0, ""
_NEW = b"AMBERNEW"
_RESTORED = b"AMBERRST"
_MARK_SIZE = 24 + CRC_SIZE
_LOST_FOUND = "lost+found"
"""A directory that file systems have in their root."""


def database_exists(path: str, options: Options) -> bool:
    """Whether a database is at an absolute path; False when nothing is there, or an empty
    directory. Raises NotADatabaseError for anything else, CorruptionError for a database without
    its MANIFEST."""
    fs = options.fs
    names: set[str] | None = None
    while names != (names := _names(fs, path)):  # another process may complete or remove it
        if manifests.NAME in names:
            return True
        contents = _contents(fs, path)
        if all(staged_for(name) == CREATING for name in contents) or _is_unfinished(fs, path):
            return False
    if {LOCK, WAL} & names and any(generation_of(name) for name in names):
        where = os.path.join(path, manifests.NAME)
        raise CorruptionError(
            f"{where} is missing: run `amberdb repair`, or restore a backup", path=where, offset=0
        )
    raise NotADatabaseError(
        f"{path} holds other files and is not a database: choose another path", path=path
    )


def _names(fs: FileSystem, path: str) -> set[str]:
    """The names in a directory; none when nothing is there. Raises NotADatabaseError for a file."""
    try:
        return set(fs.listdir(path))
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        raise NotADatabaseError(
            f"{path} is a file, and a database is a directory: choose another path", path=path
        ) from None


def _contents(fs: FileSystem, path: str) -> list[str]:
    """The names in a directory but those of the lock file and of lost+found."""
    return [
        name
        for name in _names(fs, path)
        if name not in (LOCK, _LOST_FOUND)
        or fs.is_dir(os.path.join(path, name)) != (name == _LOST_FOUND)
    ]


def _is_unfinished(fs: FileSystem, path: str, kinds: tuple[bytes, ...] = (_NEW, _RESTORED)) -> bool:
    """Whether a directory has the mark of a creation. It is renamed to its name, so never torn."""
    try:
        data = fs.read(os.path.join(path, CREATING))
    except (FileNotFoundError, IsADirectoryError):
        return False
    return data.startswith(kinds) and len(data) == _MARK_SIZE and crc_matches(data)


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
            raise DiskFullError(f"{path}: {what_is_full(path)}", path=path) from error
        raise OpenError(
            f"{path} cannot be opened for writing: {error.strerror or error}", path=path
        ) from error


class LockOwner(NamedTuple):
    """The process that holds a lock, from the text of the LOCK file."""

    pid: int | None
    host: str
    process: str
    is_shared: bool
    """It takes the writes of other processes, or will once it has opened the database."""


def check_path(path: str) -> None:
    """Raises OpenError for a path that LMDB cannot take."""
    if has_surrogate(os.path.abspath(path)):
        raise OpenError(f"{path!r} is not UTF-8: choose another path", path=path)


def lock_directory(path: str, options: Options, *, shared: bool = False) -> DirLock:
    """Locks a directory for writing; `shared` by a process that takes the writes of others.
    Raises LockedError with the owner's pid and host."""
    owner = f"{os.getpid()} {os.uname().nodename} {_this_process()}{' shared' * shared}"
    try:
        return options.fs.lock(os.path.join(path, LOCK), owner)
    except FileNotFoundError:
        raise LockedError(
            f"{path} was removed by the process that began to create it: try again",
            path=path, pid=None, host="", is_shared=False,
        ) from None  # fmt: skip
    except BlockingIOError as error:
        pid, host, process, is_shared = lock_owner(error)
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
            if is_shared:
                what += ", or with amberdb.connect(), since that process shares it"
        raise LockedError(what, path=path, pid=pid, host=host, is_shared=is_shared) from None


def lock_owner(error: BlockingIOError) -> LockOwner:
    """The owner of a lock that could not be taken."""
    pid, host, process, shared, *_ = [*str(error.filename2 or "").split(" "), "", "", "", ""]
    return LockOwner(int(pid) if pid.isdecimal() else None, host, process, shared == "shared")


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


def make_directory(path: str, options: Options) -> bool:
    """Makes the directory of a new database unless it exists. Returns whether it was made. Raises
    DatabaseMissingError when the parent is missing."""
    fs = options.fs
    if fs.exists(path):
        return False
    real = os.path.realpath(path)  # of a link to a directory that is yet to be made
    parent = os.path.dirname(real)
    if not fs.is_dir(parent):
        raise DatabaseMissingError(
            f"the directory {parent} does not exist: create it first", path=path
        )
    try:
        fs.mkdir(real)
    except FileExistsError:  # another process made it just now: the lock decides
        return False
    return True


def sync_parent(path: str, fs: FileSystem) -> None:
    """Makes the name of a database's directory durable."""
    with suppress(PermissionError):  # the parent belongs to another user
        fs.sync_dir(os.path.dirname(os.path.realpath(path)))


@contextmanager
def creation(path: str, options: Options, *, made: bool, restores: bool = False) -> Generator[None]:
    """The block makes a database in a locked directory that is empty, or has what a creation left
    that did not end. After an error the directory is empty again, or gone if it was `made` for
    this. Raises NotADatabaseError for other names in it, OpenError when it would take the place of
    a restore that did not end."""
    fs = options.fs
    if failpoints.on:
        failpoints.reach("create.locked")
    kind = _RESTORED if restores else _NEW
    if not restores and _is_unfinished(fs, path, (_RESTORED,)):
        raise OpenError(
            f"a restore into {path} did not end: run it again, or remove the directory", path=path
        )
    try:
        if _is_unfinished(fs, path, (kind,)):
            fs.sync_dir(path)  # the mark may have been renamed just before the process died
        else:
            _mark_unfinished(path, fs, kind)
        _remove_unfinished(path, fs)
        if failpoints.on:
            failpoints.reach("create.marked")
        yield
    except BaseException:
        with suppress(OSError, AmberError):
            _discard(path, fs, kind, made=made)
        raise


def complete_creation(path: str, manifest: Manifest, last_lsn: Lsn, options: Options) -> None:
    """Completes the database in a marked directory, with a log that begins after `last_lsn`, its
    MANIFEST, and the mark removed."""
    fs = options.fs
    log_directory = os.path.join(path, WAL)
    fs.mkdir(log_directory, like=path)
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
    fs.sync_dir(path)
    replace(manifest, clean_lsn=last_lsn).write(fs, path)
    if failpoints.on:
        failpoints.reach("create.manifest-written")
    sync_parent(path, fs)
    fs.unlink(os.path.join(path, CREATING))
    fs.sync_dir(path)
    if failpoints.on:
        failpoints.reach("create.completed")


def staged_beside(path: str, fs: FileSystem) -> list[str]:
    """The staging directories that were made for a path."""
    parent, base = os.path.split(path)
    names = fs.listdir(parent) if fs.is_dir(parent) else []
    return [os.path.join(parent, name) for name in names if staged_for(name) == base]


def discard_restored(path: str, options: Options) -> None:
    """Removes a database that a restore has made under a staging name. Raises LockedError, and
    NotADatabaseError when there is anything else in the directory."""
    lock = lock_directory(path, options)
    try:
        _discard(path, options.fs, _RESTORED, made=True)
    finally:
        lock.close()


def _mark_unfinished(path: str, fs: FileSystem, kind: bytes) -> None:
    mark = kind + os.urandom(16)
    replace_file(fs, os.path.join(path, CREATING), mark + append_crc(mark))


def _discard(path: str, fs: FileSystem, kind: bytes, *, made: bool) -> None:
    """Removes what a creation has made, and the lock."""
    if _contents(fs, path) and not _is_unfinished(fs, path):  # the last step failed
        _mark_unfinished(path, fs, kind)
    _remove_unfinished(path, fs)
    fs.sync_dir(path)  # before the mark goes
    for name in (CREATING, LOCK):
        if fs.exists(os.path.join(path, name)):
            fs.unlink(os.path.join(path, name))
    if made:
        fs.rmdir(os.path.realpath(path))


def remove_leftovers(path: str, generation: int, fs: FileSystem) -> None:
    """Removes from a locked database, whose MANIFEST names `generation`, what a crash left: the
    mark of its creation, staging files, and generations that are not in use."""
    names = fs.listdir(path)
    if CREATING in names:  # the process that made it may have died before these two
        sync_parent(path, fs)
        fs.sync_dir(path)
    for name in names:
        where = os.path.join(path, name)
        other = generation_of(name)
        if other is not None and other != generation:  # of a compaction that was interrupted
            remove_generation(fs, path, other)
        elif name == CREATING or is_staged(name):
            _remove(where, fs)


def _remove_unfinished(path: str, fs: FileSystem) -> None:
    """Removes what creation has made but the mark and the lock; other names raise
    NotADatabaseError, before anything is removed."""
    names = [name for name in _contents(fs, path) if name != CREATING]
    for name in names:
        if name not in (WAL, manifests.NAME) and not generation_of(name) and not is_staged(name):
            raise NotADatabaseError(
                f"{os.path.join(path, name)} is in the way of creating a database: remove it",
                path=path,
            )
    if manifests.NAME in names:  # first, or what is left would be a damaged database
        fs.unlink(os.path.join(path, manifests.NAME))
        fs.sync_dir(path)
        names.remove(manifests.NAME)
    for name in names:
        _remove(os.path.join(path, name), fs)


def is_staged(name: str) -> bool:
    """Whether a name in a database's directory is that of a file or directory that was not
    completed."""
    base = staged_for(name) or name.removesuffix(".tmp")  # earlier versions made no mark
    return base != name and (
        base.startswith((CREATING, manifests.NAME)) or generation_of(base) is not None
    )


def _remove(path: str, fs: FileSystem) -> None:
    if fs.is_dir(path):
        remove_directory(fs, path)
    else:
        fs.unlink(path)


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
