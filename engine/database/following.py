"""The following engine: all parts of a database that is only read, beside the process that writes
it or without one.

Invariants:
- No file of the database is made or changed, but LMDB's own table of readers.
- LMDB keeps pages for calls that are running, and for snapshots up to their age limit; nothing else
  of this process delays the writer.
"""

from typing import final

from amberdb._errors import AmberError, ClosedError, CorruptionError, ReadOnlyError
from amberdb._types import Lsn
from amberdb.engine.backup.history import newest_backup
from amberdb.engine.backup.rescue import explain
from amberdb.engine.commit.follower import Follower
from amberdb.engine.database.stats import Stats, following_stats
from amberdb.engine.failures import Failures
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Declaration
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.directory import database_exists, missing_database
from amberdb.engine.storage.held_view import HeldViews
from amberdb.engine.storage.view import schema_of


@final
class FollowingEngine:
    """All parts of a database that another process may be writing."""

    recovery = None
    rescue = None

    def __init__(self, path: str, options: Options, *, may_write: bool = False) -> None:
        """`path` is absolute; `may_write` as for Follower. Raises DatabaseMissingError,
        NotADatabaseError, FormatError, OpenError, and CorruptionError, which names the newest
        backup if there is one."""
        self.path = path
        self.options = options
        self.is_closed = False
        try:
            if not database_exists(path, options):
                raise missing_database(path)
            self.follower = Follower(path, options, may_write=may_write)
        except CorruptionError as error:
            explain(path, options, error)
        self.held_views = HeldViews(options)

    # -- the same in a writing engine --------------------------------------------------------

    @property
    def readable(self) -> Follower:
        return self.follower

    @property
    def searchers(self) -> Searchers:
        return self.follower.searchers

    @property
    def failures(self) -> Failures:
        return self.follower.failures

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        self.follower.check_open()

    def declare(self, name: str, declaration: Declaration) -> None:
        """Compares the declaration with the catalog, so that programs can share it; its functions
        upgrade the documents that are read. Raises CollectionMissingError,
        CollectionVersionError; ReadOnlyError when the declaration differs."""
        with self.follower.view() as view:
            catalog, known = view.catalog, schema_of(view, name).definition
        wanted = catalog.wanted(name, declaration, 1, is_empty=True)
        if wanted is not None and _declaration(wanted[0]) != _declaration(known):
            raise ReadOnlyError(
                f"collection {name!r} is declared differently in the catalog: declare it in the "
                "process that writes, or leave the declaration out",
                collection=name,
            )
        self.follower.register_upgrades(name, declaration.upgrades)

    def refresh(self) -> Lsn:
        return self.follower.refresh()

    @property
    def archived_lsn(self) -> Lsn | None:
        with self.follower.view() as view:
            newest = newest_backup(view, self.follower.manifest.database_id)
        return None if newest is None else newest[0]

    def stats(self) -> Stats:
        return following_stats(self.path, self.follower, self.held_views, self.options.fs)

    def close(self) -> None:
        """A second call does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.held_views.close()
            self.follower.close(ClosedError("the database is closed: open it again"))

    def abandon(self, error: AmberError) -> None:
        """In a forked child: makes every call raise."""
        self.is_closed = True
        self.follower.close(error, forked=True)


def _declaration(definition: CollectionDef) -> tuple[object, ...]:
    """The part of a definition that a program declares: no numbers, no versions of analyzers."""
    specs = definition.specs
    return specs, definition.version, definition.expires_at, definition.required, definition.vectors
