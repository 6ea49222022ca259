"""The database of an adapter: one that the program has open, or one that the adapter opens.

Invariants:
- An adapter closes what it has opened, and nothing else, also when it cannot be made.
- Any number of adapters, of several processes too, can be given one path (docs/sharing.md); in one
  process they have one database.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeAlias, final

from amberdb import Database
from amberdb._connect import connect_or_open

DatabaseOrPath: TypeAlias = "Database | str | os.PathLike[str]"
"""An open Database, or the path of one."""


@final
class Opened:
    """A database, and whether it is the adapter's to close."""

    __slots__ = ("_is_own", "db")

    def __init__(self, db: DatabaseOrPath) -> None:
        """Raises OpenError for a path."""
        self._is_own = not isinstance(db, Database)
        self.db: Database = db if isinstance(db, Database) else _open(db)

    @contextmanager
    def closed_on_error(self) -> Generator[Database]:
        """For the rest of an adapter's constructor: when the block raises, the database is closed
        if it was given as a path."""
        try:
            yield self.db
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        if self._is_own:
            self.db.close()


def _open(path: "str | os.PathLike[str]") -> Database:
    """The database at a path, shared with other processes; one in memory is this process's."""
    return connect_or_open(path)
