"""The database of an adapter: one that the program has open, or one that the adapter opens.

Invariants:
- An adapter closes what it has opened, and nothing else, also when it cannot be made.
- Any number of adapters, of several processes too, can be given one path (docs/sharing.md); in one
  process they have one database.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self, TypeAlias, final

from amberdb import Database
from amberdb._connect import connect_or_open
from amberdb.integrations.threads import in_thread

DatabaseOrPath: TypeAlias = "Database | str | os.PathLike[str]"
"""An open Database, or the path of one."""


@final
class Opened:
    """A database, and whether it is the adapter's to close."""

    __slots__ = ("_is_own", "db")

    def __init__(self, db: DatabaseOrPath) -> None:
        """Raises OpenError for a path."""
        self._is_own = not isinstance(db, Database)
        self.db: Database = db if isinstance(db, Database) else connect_or_open(db)

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


class Closing:
    """The base of adapters that are closed by themselves, or by `with` and `async with`."""

    _opened: Opened

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await in_thread("write", self.close)
