"""amberdb.connect(), which loads the package amberdb.remote or amberdb.postgres when it is called.

Invariants:
- A program that does not share its database loads nothing of them, nor a driver of a server.
"""

import os
import re
import sys
from typing import TYPE_CHECKING, Final, TypeGuard, Unpack, overload

from amberdb._errors import OpenError
from amberdb._public import public
from amberdb.engine.database.open import MEMORY
from amberdb.engine.database.open import open as open_database
from amberdb.engine.options import OpenOptions

if TYPE_CHECKING:
    from amberdb.engine.database.database import Database
    from amberdb.remote import SharedDatabase


_URL: Final = re.compile(r"postgres\w*(\+\w+)?://")


@overload
def connect(
    path: os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "SharedDatabase": ...


@overload
def connect(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "Database": ...


@public
def connect(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "Database":
    """Opens a database that several processes of this machine read and write, or one on a
    PostgreSQL server, whose URL it is.

        db = amberdb.connect("memory.amber")
        db = amberdb.connect("postgresql://user:password@host/database")

    The first process leads: it has the database open, with these options. Every other one reads for
    itself and sends its writes to it; when the leader ends, also by SIGKILL, one of them takes its
    place, and a call that was under way is done once. See docs/sharing.md.

    Raises what open() raises; LockedError when a process has the database open that does not share
    it, OptionsDifferError when another process was given another value of an option, OpenError on a
    network mount and between containers. Of a server (docs/remote.md): OpenError for a wrong URL,
    ServerUnreachableError, ServerAccessError, FormatError.
    """
    if is_url(path):
        return _on_server(path, create=create, settings=settings)
    from amberdb.remote.place import network_of

    if os.fspath(path) == MEMORY:
        raise OpenError(f"{MEMORY} is of one process: open() it", path=MEMORY)
    network = network_of(path)
    if network is not None:
        raise OpenError(
            f"{os.fspath(path)} is on a network mount ({network}): share a database on a local "
            "disk",
            path=os.fspath(path),
        )
    return _shared(path, create, settings)


def is_url(path: object) -> TypeGuard[str]:
    """Whether this names a database on a server, not a path."""
    return isinstance(path, str) and _URL.match(path) is not None


def _on_server(url: str, *, create: bool, settings: OpenOptions) -> "Database":
    try:
        from amberdb.postgres.database import PostgresDatabase
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        raise OpenError('PostgreSQL needs a driver: pip install "amberdb[postgres]"') from error
    return PostgresDatabase(url, create=create, settings=settings)


def connect_or_open(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "Database":
    """connect() where a database can be shared or is on a server, else open(): for programs of
    amberdb's own, which may be started beside others. Raises as they do."""
    if is_url(path):
        return _on_server(path, create=create, settings=settings)
    from amberdb.remote.place import network_of

    if sys.platform == "linux" and os.fspath(path) != MEMORY and network_of(path) is None:
        return _shared(path, create, settings)
    return open_database(path, create=create, **settings)


def _shared(path: str | os.PathLike[str], create: bool, settings: OpenOptions) -> "SharedDatabase":
    from amberdb.remote.shared import SharedDatabase

    return SharedDatabase(os.path.realpath(path), create=create, settings=settings)
