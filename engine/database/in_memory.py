"""Directories of databases in memory: made in a file system in memory where there is one, removed
at close, and swept at the next open in memory when their process died before.

    amberdb-<random>/IN-MEMORY       a mark
                     memory.amber/   the database

Invariants:
- A directory is removed only by its own process, or when it belongs to this user, has the mark, and
  nobody holds the lock of its database.
- The lock is taken before anything else is in the directory of the database. So one that has more
  in it than the lock, which is free, was left by a dead process.
"""

import os
import shutil
import tempfile
from typing import Final

from amberdb._fs import OsFileSystem
from amberdb.engine.storage.directory import LOCK

_SHARED_MEMORY: Final = "/dev/shm"
_PREFIX: Final = "amberdb-"
_MARK: Final = "IN-MEMORY"
_MARK_CONTENT: Final = b"AMBERMEM"


def new_directory() -> str:
    """Makes the directory of a new database, for its user alone."""
    directory = tempfile.mkdtemp(prefix=_PREFIX, dir=_parent())
    with open(os.path.join(directory, _MARK), "xb") as file:
        file.write(_MARK_CONTENT)
    return directory


def inner_path(directory: str) -> str:
    """The path of the database inside."""
    return os.path.join(directory, "memory.amber")


def remove(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def sweep() -> None:
    """Removes the directories that dead processes of this user left."""
    parent = _parent()
    for name in os.listdir(parent):
        if name.startswith(_PREFIX):
            directory = os.path.join(parent, name)
            try:
                _remove_if_left(directory)
            except OSError:  # of another user, or being removed, or in use
                continue


def _remove_if_left(directory: str) -> None:
    fs, database = OsFileSystem(), inner_path(directory)
    if os.lstat(directory).st_uid != os.geteuid():
        return
    if fs.read(os.path.join(directory, _MARK)) != _MARK_CONTENT:
        return
    if set(fs.listdir(database)) <= {LOCK}:  # one that begins must not meet our lock
        return
    lock = fs.lock(os.path.join(database, LOCK), f"{os.getpid()}")
    try:
        remove(directory)
    finally:
        lock.close()


def _parent() -> str:
    if os.path.isdir(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK):
        return _SHARED_MEMORY
    return tempfile.gettempdir()
