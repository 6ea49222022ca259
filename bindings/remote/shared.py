"""A database that several processes write.

Invariants:
- A process reads for itself: its reads see every commit that was acknowledged, its own first.
- The place of the leader is taken by the first that gets the lock; every other one finds it then.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

from amberdb._errors import (
    CollectionMissingError,
    ReadOnlyError,
    TransactionError,
)
from amberdb._types import Isolation, Lsn, Progress, Sync, Where
from amberdb.engine.backup.backup import Compress
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.commit.change_feed import Subscriber
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.engine.database.declarations import declaration_of
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.transaction import Transaction
from amberdb.engine.maintenance.compaction import CompactProgress, CompactReport
from amberdb.engine.maintenance.erasure import Erasure
from amberdb.engine.options import OpenOptions, Options, check_isolation
from amberdb.engine.schema.catalog import Declaration
from amberdb.engine.schema.migration import Upgrade
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.view import schema_of
from amberdb.index.registry import IndexSpec
from amberdb.remote.arguments import sendable, sendable_filter, sendable_filters
from amberdb.remote.collection import SharedCollection
from amberdb.remote.declaration import sent_declaration
from amberdb.remote.feed import SharedFeed
from amberdb.remote.membership import Membership
from amberdb.remote.messages import Progressed
from amberdb.remote.transaction import SharedTransaction


@final
class SharedDatabase(Database):
    """A database that connect() has opened. Threads may share it.

    It has the methods of a Database. Those that look after files (compact, backup, erase, ...) run
    in the process that leads, whichever calls them.
    """

    def __init__(self, path: str, *, create: bool, settings: OpenOptions) -> None:
        # Not that of Database: its handle changes with the leader.
        self.path = path
        self.options = Options(**settings)
        self.recovery = None
        self.rescue = None
        self.embedders = Embedders()
        """The functions that this process was given."""
        self._declared: dict[str, Declaration] = {}
        self._membership = Membership(path, settings, self._adopted, create=create)

    def __enter__(self) -> "SharedDatabase":
        return self

    def __repr__(self) -> str:
        is_closed = self._membership.is_closed
        role = "closed" if is_closed else "leads" if self.leads else "follows"
        return f"<amberdb.SharedDatabase {self.path!r} {role}>"

    @property
    def leads(self) -> bool:
        """Whether this process has the database open."""
        return self._membership.leader is not None

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        return self.handle()

    def handle(self) -> Handle:
        """The handle of the database that this process reads. Raises ClosedError."""
        return self._membership.reading._handle

    # -- collections -------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Collection:
        """The existing collection of this name. Raises CollectionMissingError."""
        self.definition(name)
        return self._collection(name)

    def outside(self, name: str) -> SharedCollection:
        """The collection as it is read without a transaction. Raises CollectionMissingError."""
        self.definition(name)
        return SharedCollection(name, self)

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
        """Creates or declares a collection, as Database.collection() does. Functions stay in this
        process: embed= is called for what it writes, migrate= for what it reads, and both for the
        rest while it leads.

        Raises CollectionError also where another process leads, and stored documents have to be
        upgraded."""
        declaration = declaration_of(indexes, expires_at, required, version, migrate, owner)
        while True:
            try:
                self.handle().engine.declare(name, declaration)
                break
            except (ReadOnlyError, CollectionMissingError):
                sent = sent_declaration(declaration)
                self._membership.ask({"call": "declare", "name": name, "declaration": sent})
        self._declared[name] = declaration
        if declaration.indexes is not None:
            self._attach(name, declaration)
        return self._collection(name)

    def drop_collection(self, name: str) -> None:
        """As Database.drop_collection()."""
        self._call("drop_collection", name)
        self._declared.pop(name, None)
        self.embedders.forget(name)

    def rename_collection(self, old: str, new: str) -> None:
        """As Database.rename_collection()."""
        self._call("rename_collection", old, new)
        if (declaration := self._declared.pop(old, None)) is not None:
            self._declared[new] = declaration
            self.embedders.forget(old)
            self._attach(new, declaration)

    def migrate(self, progress: Progress | None = None) -> None:
        """As Database.migrate()."""
        self._care("migrate", progress)

    def build_indexes(self, progress: Progress | None = None) -> None:
        """As Database.build_indexes()."""
        self._care("build_indexes", progress)

    # -- transactions and snapshots ------------------------------------------------------------

    def transaction(
        self,
        *,
        sync: Sync | None = None,
        timeout_ms: int | None = None,
        isolation: Isolation | None = None,
    ) -> Transaction:
        """A transaction, as Database.transaction(). Where another process leads, each call inside
        is a round trip, and it raises TransactionError when that process ends before the commit:
        nothing was stored, run it again."""
        check_isolation(isolation)
        sync = sync or self.options.sync
        own = self._membership.own
        if own is not None:
            return own.transaction(sync=sync, timeout_ms=timeout_ms)
        return SharedTransaction(self, self._membership, sync, timeout_ms)

    def check_transaction(self, tx: Transaction) -> None:
        """Raises TransactionError unless `tx` is an open transaction of this database."""
        if self.leads and not isinstance(tx, SharedTransaction):
            super().check_transaction(tx)
        elif not isinstance(tx, SharedTransaction) or not tx.is_of(self):
            raise TransactionError("the transaction is of another database, or has ended")

    def subscriber(self, name: str, *, since: Lsn | None = None) -> Subscriber:
        """As Database.subscriber()."""
        feed = SharedFeed(self.handle, self._membership.ask)
        return Subscriber(feed, feed.create(name, since), self.handle())

    # -- care --------------------------------------------------------------------------------

    def expire(self) -> int:
        """As Database.expire()."""
        return cast(int, self._call("expire"))

    def accept_clock(self) -> None:
        """As Database.accept_clock()."""
        self._call("accept_clock")

    def sync(self) -> None:
        """As Database.sync()."""
        self._call("sync")

    def checkpoint(self) -> None:
        """As Database.checkpoint()."""
        self._call("checkpoint")

    def compact(self, progress: CompactProgress | None = None) -> CompactReport:
        """As Database.compact()."""
        return cast(CompactReport, self._care("compact", progress))

    def upgrade(self, progress: CompactProgress | None = None) -> CompactReport | None:
        """As Database.upgrade()."""
        return cast(CompactReport | None, self._care("upgrade", progress))

    def erase(
        self,
        collection: str | Mapping[str, Where | Sequence[Where]],
        where: Where | None = None,
        *,
        reason: str,
        progress: CompactProgress | None = None,
    ) -> Erasure:
        """As Database.erase(). When the process that leads ends meanwhile, the next one completes
        the erasure, and the receipt that is returned has the documents that it found."""
        sent = sendable_filters(collection), sendable_filter(where)
        return cast(Erasure, self._care("erase", progress, *sent, reason=sendable(reason)))

    def backup(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        base: str | os.PathLike[str] | None = None,
        compress: Compress = None,
        rate_bytes_s: float | None = None,
        hold_log: bool = True,
        sent_to: str | None = None,
        progress: Progress | None = None,
    ) -> BackupReport:
        """As Database.backup()."""
        report = self._care(
            "backup",
            progress,
            None if path is None else os.path.abspath(os.fspath(path)),
            base=None if base is None else os.path.abspath(os.fspath(base)),
            compress=sendable(compress),
            rate_bytes_s=sendable(rate_bytes_s),
            hold_log=sendable(hold_log),
            sent_to=sent_to,
        )
        return cast(BackupReport, report)

    def close(self) -> None:
        """Closes it; the last of a process that leads lets another process lead. A second call does
        nothing."""
        self._membership.close()

    # -- inside ------------------------------------------------------------------------------

    def write(self, collection: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Does a write of a collection."""
        sync = kwargs.pop("sync", None) or self.options.sync
        own = self._membership.own
        if own is not None:
            return getattr(Collection(collection, own._handle), method)(*args, sync=sync, **kwargs)
        return self._membership.write(
            {
                "call": "write",
                "collection": collection,
                "method": method,
                "args": args,
                "kwargs": kwargs,
                "sync": sync,
            }
        )

    def expire_collection(self, name: str) -> int:
        """Removes the documents of a collection that have expired by now."""
        return cast(int, self._membership.ask({"call": "expire_collection", "name": name}))

    def _call(self, method: str, *args: Any) -> Any:
        """Calls a method of the Database where it is open."""
        return self._membership.ask({"call": method, "args": sendable(args), "kwargs": {}})

    def _care(self, method: str, progress: Progressed | None, *args: Any, **kwargs: Any) -> Any:
        """Calls a method that takes `progress`, where the database is open. Its arguments are made
        sendable by the caller."""
        return self._membership.ask({"call": method, "args": args, "kwargs": kwargs}, progress)

    def _attach(self, name: str, declaration: Declaration) -> None:
        """Takes the embedding functions of a declaration."""
        with self.handle().engine.readable.view() as view:
            self.embedders.attach(schema_of(view, name), declaration.indexes or ())

    def _adopted(self, own: Database) -> None:
        """Gives the functions of this process to the database that it leads now."""
        for name, declaration in self._declared.items():
            own._handle.writer("connect").adopt(name, declaration)

    def _collection(self, name: str) -> Collection:
        own = self._membership.own
        if own is not None and own.options.sync == self.options.sync:
            return Collection(name, own._handle)  # it leads until it is closed
        return SharedCollection(name, self)
