"""Opening: from a path to a Database over the engine that fits.

Invariants:
- An open that fails leaves nothing open: neither the lock, nor the log, nor LMDB.
"""

import os
from dataclasses import replace
from typing import Final, Unpack

from amberdb._errors import CorruptionError
from amberdb._public import public
from amberdb.engine.backup.rescue import Rescue, explain, finish_rescue, rescue
from amberdb.engine.commit.recovery import Opened, open_parts
from amberdb.engine.database.database import Database
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine
from amberdb.engine.database.open_engines import open_engines
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.storage.directory import check_path

MEMORY: Final = ":memory:"


@public
def open(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    **settings: Unpack[OpenOptions],
) -> Database:
    """Opens the database in the directory `path`, and creates it when it is missing.

        db = amberdb.open("memory.amber", sync="interval", checkpoint_bytes=64 << 20)

    path       a directory; ":memory:" is a database that is deleted when it is closed
    create     False: a missing database is a DatabaseMissingError
    read_only  reads beside the process that writes, or without one; creates and changes nothing
    settings   options; the unit is in the name (`_ms`, `_bytes`). The list is in docs/api.md

    Returns an open Database: use it with `with`, or call close(). One process writes a database
    at a time, any number of others open it with read_only=True. In one process every open() of a
    directory gives a handle on the same open database, which is closed with the last of them.

    Raises LockedError (another process writes it: its pid), OptionsDifferError (it is open in this
    process with another value of an option that is given here), NotADatabaseError,
    DatabaseMissingError, FormatError (a newer version wrote it), and other OpenErrors;
    CorruptionError, DiskFullError; TypeError for an unknown option, ValueError for one that is
    out of range.
    """
    options = Options(**settings)
    name = os.fspath(path)
    if read_only:
        return Database(open_engines.add(FollowingEngine(os.path.abspath(name), options)))
    if name == MEMORY:
        return Database(open_engines.add(_open_in_memory(options)))

    def make() -> Engine:
        return open_to_write(name, options, create=create)

    return Database(open_engines.open(name, settings, make))


def open_to_share(path: str, *, create: bool, settings: OpenOptions) -> Database:
    """Opens a database for a process that takes the writes of others, which its LOCK says. Raises
    what open() raises."""
    options = Options(**settings)

    def make() -> Engine:
        return open_to_write(path, options, create=create, shared=True)

    return Database(open_engines.open(path, settings, make))


def open_to_follow(path: str, options: Options) -> Database:
    """Opens a database to read while another process writes it; this one may open it to write
    later, while it reads. Raises what open() raises with `read_only`."""
    engine = FollowingEngine(os.path.abspath(path), options, may_write=True)
    return Database(open_engines.add(engine))


def open_to_write(path: str, options: Options, *, create: bool, shared: bool = False) -> Engine:
    """Opens the engine of a directory, with the options as one value."""
    check_path(path)
    finish_rescue(path, options)
    try:
        return _engine_of(open_parts(path, options, create=create, shared=shared), options)
    except CorruptionError as error:
        if options.on_damage == "raise":
            explain(path, options, error)
        done = rescue(path, options, error)
    opened = open_parts(path, options, create=False, shared=shared)
    return _engine_of(opened, options, rescue=done)


def _open_in_memory(options: Options) -> Engine:
    # Imported on demand: most programs never need it, and all would pay.
    from amberdb.engine.database.in_memory import inner_path, new_directory, remove, sweep

    options = replace(options, compact="manual", backups=None)
    sweep()
    temporary = new_directory()
    try:
        opened = open_parts(inner_path(temporary), options, create=True, durable=False)
        return _engine_of(opened, options, temporary=temporary)
    except BaseException:
        remove(temporary)
        raise


def _engine_of(
    opened: Opened,
    options: Options,
    *,
    rescue: Rescue | None = None,
    temporary: str | None = None,
) -> Engine:
    try:
        return Engine(opened, options, rescue=rescue, temporary=temporary)
    except BaseException:  # a damaged catalog, say
        opened.close()
        raise
