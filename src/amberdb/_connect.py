"""amberdb.connect(), which loads the package amberdb.remote when it is called.

Invariants:
- A program that does not share its database loads nothing of it.
"""

import os
import sys
from typing import TYPE_CHECKING, Unpack

from amberdb._errors import OpenError
from amberdb.engine.database.open import MEMORY, open_database
from amberdb.engine.options import OpenOptions

if TYPE_CHECKING:
    from amberdb.engine.database.database import Database
    from amberdb.remote import SharedDatabase


def connect(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "SharedDatabase":
    """Opens a database that several processes of this machine read and write.

        db = amberdb.connect("memory.amber")

    The first process leads: it has the database open, with these options. Every other one reads for
    itself and sends its writes to it; when the leader ends, also by SIGKILL, one of them takes its
    place, and a call that was under way is done once. See docs/sharing.md.

    Raises what open() raises; LockedError when a process has the database open that does not share
    it, OptionsDifferError when another process was given another value of an option, OpenError on a
    network mount and between containers.
    """
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


def connect_or_open(
    path: str | os.PathLike[str], *, create: bool = True, **settings: Unpack[OpenOptions]
) -> "Database":
    """connect() where a database can be shared, else open(): for programs of amberdb's own, which
    may be started beside others. Raises as they do."""
    from amberdb.remote.place import network_of

    if sys.platform == "linux" and os.fspath(path) != MEMORY and network_of(path) is None:
        return _shared(path, create, settings)
    return open_database(path, create=create, **settings)


def _shared(path: str | os.PathLike[str], create: bool, settings: OpenOptions) -> "SharedDatabase":
    from amberdb.remote.shared import SharedDatabase

    return SharedDatabase(os.path.realpath(path), create=create, settings=settings)
