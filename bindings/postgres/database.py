"""A database on a PostgreSQL server: docs/remote.md.

Invariants:
- A method of Database that is not here raises NotSupportedHereError: each of them reaches for the
  handle of a directory.
- No document is kept in this process: what one process has written is read by every other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from amberdb._errors import TransactionError
from amberdb._types import Isolation, Lsn, Progress, Sync
from amberdb.engine.commit.change_feed import Change, Subscriber
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.engine.database.declarations import declaration_of
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.stats import FileBytes, Stats, embedding_facts
from amberdb.engine.database.transaction import Snapshot, Transaction
from amberdb.engine.integrity.check import CheckReport
from amberdb.engine.options import OpenOptions, Options, check_isolation, check_sync
from amberdb.engine.schema.catalog import Declaration
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.storage.held_view import HeldViews
from amberdb.engine.storage.view import schema_of
from amberdb.index.registry import IndexSpec
from amberdb.index.vector.vector import Vector
from amberdb.postgres.address import Address, address_of
from amberdb.postgres.care.background import Background
from amberdb.postgres.care.check import check
from amberdb.postgres.care.expiry import expire
from amberdb.postgres.catalogue import Catalogues
from amberdb.postgres.collection import PostgresCollection
from amberdb.postgres.connections import Connections
from amberdb.postgres.declarations import Declarations
from amberdb.postgres.errors import refuse
from amberdb.postgres.feed.feed import Feed
from amberdb.postgres.replica import position, wait_for
from amberdb.postgres.session import Sessions
from amberdb.postgres.transaction import PostgresSnapshot, PostgresTransaction
from amberdb.postgres.view import of_server


@final
class PostgresDatabase(Database):
    """A database that connect() has opened on a server. Threads may share it."""

    def __init__(self, url: str, *, create: bool, settings: OpenOptions) -> None:
        # Not that of Database: there is no directory, and no engine.
        address = address_of(url)
        self.path = address.where
        self.options = Options(**settings)
        self.recovery = None
        self.rescue = None
        self._open(address, create=create)

    def _open(self, address: Address, *, create: bool) -> None:
        connections = Connections(address, self.options.busy_timeout_ms / 1000)
        try:
            catalogues = Catalogues(address.schema, self.options)
            catalogues.open(connections, create=create)
        except BaseException:
            connections.close()
            raise
        self._connections = connections
        self._sessions = Sessions(self.path, connections, catalogues, self.options)
        self._declarations = Declarations(connections, catalogues, self.options.busy_timeout_ms)
        self._held_views = HeldViews(self.options)
        self._feed = Feed(self._sessions, self._declarations)
        self._background = Background(self._sessions, self._feed, self.options)
        self._sessions.on_commit = self._background.note_expiry
        self._feed.on_acknowledged = self._background.wake
        self._background.wake()

    def __enter__(self) -> "PostgresDatabase":
        return self

    def __repr__(self) -> str:
        mark = " closed" if self._connections.is_closed else ""
        return f"<amberdb.PostgresDatabase {self.path!r}{mark}>"

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        self._connections.check_open()
        refuse("this call")

    def __getitem__(self, name: str) -> Collection:
        """The existing collection of this name. Raises CollectionMissingError."""
        with self._sessions.reading() as view:
            schema_of(view, name)
        return PostgresCollection(name, self._sessions)

    # -- collections -------------------------------------------------------------------------

    def collection(
        self,
        name: str,
        *,
        indexes: Sequence[IndexSpec] | None = None,
        expires_at: str | None = None,
        required: Mapping[str, type | None] | Sequence[str] | None = None,
        version: int | None = None,
        migrate: Mapping[int, Upgrade] | None = None,
        owner: str | None = None,
    ) -> Collection:
        """Creates or declares a collection, as Database.collection() does. An index is built before
        it returns, and documents of an older version are upgraded; other processes wait with their
        writes meanwhile, and with reads of this collection. Raises MigrationError for a document
        that cannot be upgraded: then nothing is changed."""
        declaration = declaration_of(indexes, expires_at, required, version, migrate, owner)
        if not self._is_declared(name, declaration):
            self._sessions.check_outside()
            self._declarations.declare(name, declaration)
        self._attach(name, declaration.indexes)
        if version is not None:
            with self._sessions.reading() as view:
                number = schema_of(view, name).definition.number
            self._sessions.catalogues.declared[number] = version
        return PostgresCollection(name, self._sessions)

    def rename_collection(self, old: str, new: str) -> None:
        """As Database.rename_collection()."""
        self._sessions.check_outside()
        self._declarations.rename(old, new)
        with self._sessions.reading() as view:
            self._sessions.embedders.rename(old, schema_of(view, new))

    def drop_collection(self, name: str) -> None:
        """Deletes a collection: documents, indexes and name."""
        self._sessions.check_outside()
        self._declarations.drop(name)
        self._sessions.embedders.forget(name)

    def collections(self) -> list[str]:
        """As Database.collections()."""
        with self._sessions.reading() as view:
            return sorted(view.catalog.schemas)

    def definition(self, name: str) -> CollectionDef:
        """As Database.definition()."""
        with self._sessions.reading() as view:
            return schema_of(view, name).definition

    def build_indexes(self, progress: Progress | None = None) -> None:
        """Does nothing: every index is built by its declaration."""
        self._check_outside()

    def migrate(self, progress: Progress | None = None) -> None:
        """Does nothing: documents are upgraded by the declaration."""
        self._check_outside()

    # -- transactions and snapshots ------------------------------------------------------------

    def transaction(
        self,
        *,
        sync: Sync | None = None,
        timeout_ms: int | None = None,
        isolation: Isolation | None = None,
    ) -> Transaction:
        """A transaction over all collections: one commit, or none.

        Several run at a time. What it reads by id is locked until it ends, also an id that has no
        document, so that no other transaction writes it; `timeout_ms` is the longest wait for such
        a lock. find() locks the documents that it returns, and no others: docs/remote.md. With
        isolation="serializable" it is as if all transactions that say so ran one after another.
        Raises BusyError, and at the end DuplicateKeyError, ConflictError (another transaction was
        in the way: run it again, as run() does), CommitUnknownError.
        """
        self._connections.check_open()
        if sync is not None:
            check_sync(sync)
        check_isolation(isolation)
        return PostgresTransaction(self._sessions, sync, timeout_ms, isolation)

    def check_transaction(self, tx: Transaction) -> None:
        """Raises TransactionError unless `tx` is an open transaction of this database."""
        self._connections.check_open()
        if not isinstance(tx, PostgresTransaction):
            raise TransactionError(f"tx={tx!r}: give what `with db.transaction() as tx` gives")
        tx.writer()
        if not tx.is_of(self._sessions):
            raise TransactionError("the transaction is of another database")

    def refresh(self) -> Lsn:
        """The newest Lsn: every read sees what was committed before it, and changes(since=) tells
        what is committed after it."""
        self._feed.settle()
        with self._sessions.reading() as view:
            return Lsn(view.lsn)

    def snapshot(self, *, max_age_ms: int | None = None) -> Snapshot:
        """A read-only view of all collections in one state of the server, as Database.snapshot().
        It takes one of the connections."""
        limit_ms = self.options.snapshot_max_age_ms if max_age_ms is None else max_age_ms
        return PostgresSnapshot(self._sessions, self._held_views, self, limit_ms)

    # -- the change feed ------------------------------------------------------------------------

    def changes(
        self, since: Lsn | None = None, *, follow: bool = False, timeout_s: float | None = None
    ) -> Iterator[Change]:
        """The change feed, as Database.changes(), from the first call of changes() or subscriber()
        on any process on: writers then leave each change in an outbox. The Lsns of changes are
        positions in the feed, and no versions of documents. Raises TransactionError inside a
        transaction when it is the first such call."""
        self._connections.check_open()
        self._feed.start()
        return self._feed.changes(self._connections, since, follow, timeout_s)

    def subscriber(self, name: str, *, since: Lsn | None = None) -> Subscriber:
        """A durable subscriber, as Database.subscriber(); with the last one that is removed the
        outbox goes too."""
        self._check_outside()
        return self._feed.subscriber(name, self._connections, since)

    # -- care --------------------------------------------------------------------------------

    def expire(self) -> int:
        """As Database.expire()."""
        return sum(expire(self._sessions, name) for name in self.collections())

    def position(self) -> str:
        """The position in the server's log after all that this process was acknowledged: for
        wait_for() on a replica."""
        return position(self._connections)

    def wait_for(self, position: str, *, timeout_ms: int | None = None) -> None:
        """Waits until this server, a replica, has what was committed before a position(), so that
        reads see it. Raises BusyError after `timeout_ms` (None: busy_timeout_ms), QueryError."""
        limit_ms = self.options.busy_timeout_ms if timeout_ms is None else timeout_ms
        wait_for(self._connections, position, limit_ms)

    def accept_clock(self) -> None:
        """Does nothing: the clock is the server's."""
        self._check_outside()

    def sync(self) -> None:
        """Makes what was committed with sync="interval" or "os" durable: by one commit that waits
        for the server's log."""
        with self._sessions.writing("always"):
            pass

    def checkpoint(self) -> None:
        """Removes from the outbox what no subscriber waits for; checkpoints are the server's."""
        self._check_outside()
        self._feed.prune()

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Compares the columns, entries and unique values of every document with those that it
        makes, in one state of the server, as Database.check(). Its disks are the server's."""
        with self._sessions.reading() as view:
            report = check(of_server(view), progress)
        report.notes += map(str, self._background.failures.listed())
        return report

    def stats(self) -> Stats:
        """Measurements: Lsns, the bytes of the tables as `bytes.data_used`, documents by
        collection, and those that wait for a vector. What is of a directory is 0 or empty."""
        self._feed.settle()
        with self._sessions.reading() as view:
            bytes_used, counts = of_server(view).sizes()
            lsn, embedders = Lsn(view.lsn), self._sessions.embedders
            collections = {
                name: {
                    "documents": counts[name],
                    "version": schema.definition.version,
                    "expires_at": schema.expires_at,
                    "indexes": {index.spec.name: "ready" for index in schema.all_indexes},
                    "embedding": embedding_facts(view, schema, embedders),
                }
                for name, schema in view.catalog.schemas.items()
            }
        ages_ms = self._held_views.ages_ms()
        positions = self._feed.positions()
        return Stats(
            path=self.path,
            last_lsn=lsn,
            visible_lsn=lsn,
            durable_lsn=lsn,
            applied_lsn=lsn,
            archived_lsn=None,
            memtable_bytes=0,
            bytes=FileBytes(data_used=bytes_used),
            live_share=1.0,
            log={},
            store={},
            collections=collections,
            snapshots=len(ages_ms),
            oldest_snapshot_ms=max(ages_ms, default=0.0),
            subscribers=positions,
            subscriber_lag={name: max(0, lsn - at) for name, at in positions.items()},
            clock_behind_ms=0.0,
            failures=self._background.failures.listed(),
        )

    @property
    def archived_lsn(self) -> Lsn | None:
        """None: backups are the server's."""
        return None

    def close(self) -> None:
        """Closes snapshots and connections. A second call does nothing. Raises TransactionError
        inside a transaction of this thread."""
        if not self._connections.is_closed:
            self._sessions.check_outside()
            self._feed.close()
            self._held_views.close()
            self._connections.close()
            self._background.close()

    # -- inside ------------------------------------------------------------------------------

    def _check_outside(self) -> None:
        """Raises ClosedError, TransactionError: a call that a directory refuses inside a
        transaction is refused here too."""
        self._connections.check_open()
        self._sessions.check_outside()

    def _is_declared(self, name: str, declaration: Declaration) -> bool:
        """Whether nothing would change; without the fence, which writers hold."""
        with self._sessions.reading() as view:
            catalog = view.catalog
            return catalog.wanted(name, declaration, 1, is_empty=True) is None

    def _attach(self, name: str, indexes: Sequence[IndexSpec] | None) -> None:
        """Takes the embedding functions of a declaration."""
        embedders = self._sessions.embedders
        has_one = any(isinstance(spec, Vector) and spec.embed for spec in indexes or ())
        if indexes is not None and (has_one or embedders.of(name)):
            with self._sessions.reading() as view:
                embedders.attach(schema_of(view, name), indexes)
