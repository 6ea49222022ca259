"""Transactions that another process holds: each call inside is a round trip.

Invariants:
- When the process that holds it ends before the commit, nothing was stored, and the transaction
  raises TransactionError; after the commit was sent, the next leader tells whether it was done.
"""

# What is sent has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, cast, final

from amberdb._errors import ClosedError, TransactionError
from amberdb._types import NO_LSN, Document, Lsn, Patch, Sync
from amberdb.engine.commit.write_batch import OnConflict
from amberdb.engine.database.transaction import Transaction, TransactionCollection
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.options import check_sync
from amberdb.engine.schema.patch import Changes
from amberdb.engine.search.embedding import Embedders
from amberdb.remote.calls import READS, WRITES
from amberdb.remote.lane import Lane
from amberdb.remote.membership import Membership
from amberdb.remote.messages import without_remove

_BLOCK: Final = 256


class Shared(Protocol):
    """The part of a SharedDatabase that its transactions need."""

    embedders: Embedders

    def definition(self, name: str) -> object:
        """Raises CollectionMissingError."""
        ...


@final
class SharedTransaction(Transaction):
    """A transaction that another process holds."""

    def __init__(
        self, db: Shared, membership: Membership, sync: Sync, timeout_ms: int | None
    ) -> None:
        check_sync(sync)
        self._db = db
        self._membership = membership
        self._sync = sync
        self._timeout_ms = timeout_ms
        self._lane: Lane | None = None
        self._own: Transaction | None = None
        """In place of the lane, once this process leads."""
        self.lsn = NO_LSN

    def __enter__(self) -> "SharedTransaction":
        """Raises BusyError, TransactionError."""
        if self._lane is not None or self._own is not None or self.lsn:
            raise TransactionError("a transaction is entered once: make another one")
        begun = self._membership.begun(self._sync, self._timeout_ms)
        if isinstance(begun, Lane):
            self._lane = begun
        else:
            self._own = begun.db.transaction(sync=self._sync, timeout_ms=self._timeout_ms)
            self._own.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lane, own = self._lane, self._own
        self._lane = self._own = None
        if own is not None:
            own.__exit__(kind, error, trace)
            self.lsn = own.lsn
        elif lane is None:
            raise _not_open()
        elif kind is None:
            self.lsn = Lsn(self._membership.committed(lane))
        else:
            self._membership.rolled_back(lane)

    def __repr__(self) -> str:
        is_open = self._lane is not None or self._own is not None
        return f"<amberdb.SharedTransaction {'open' if is_open else 'not open'}>"

    def __getitem__(self, name: str) -> TransactionCollection:
        """The collection inside the transaction. Raises CollectionMissingError."""
        if self._own is not None:
            return self._own[name]
        self._db.definition(name)
        return SharedTransactionCollection(name, self, self._db.embedders)

    def is_of(self, engine: Any) -> bool:
        """Whether it is an open transaction of this database."""
        return engine is self._db and (self._lane is not None or self._own is not None)

    def call(self, collection: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a call inside. Raises ClosedError after the end."""
        if self._lane is None:
            raise _not_open()
        request = {"collection": collection, "method": method, "args": args, "kwargs": kwargs}
        return self._lane.inside(request)


def _not_open() -> ClosedError:
    return ClosedError("the transaction is not open: use it inside its `with` block")


def _listed(value: Any) -> Any:
    """An iterator as a list, which can be sent."""
    return list(value) if isinstance(value, Iterator) else value


def _inside(name: str) -> Any:
    """The method of this name, called in the process that holds the transaction."""

    def method(self: "SharedTransactionCollection", *args: Any, **kwargs: Any) -> Any:
        return self.tx.call(self.name, name, *map(_listed, args), **kwargs)

    method.__name__ = name
    method.__doc__ = f"As Collection.{name}()."
    return method


class SharedTransactionCollection(TransactionCollection):
    """A collection inside a SharedTransaction."""

    def __init__(self, name: str, tx: SharedTransaction, embedders: Embedders) -> None:
        WritableCollection.__init__(self, name)
        self.tx = tx
        self._functions = embedders

    def update(
        self,
        id: str,
        patch: Patch,
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> Lsn:
        """As Collection.update()."""
        if self._functions.of(self.name):
            patch = {**patch, **self._functions.vectors_of(self.name, Changes(patch), {})}
        sent = without_remove(patch)
        return Lsn(self.tx.call(self.name, "update", id, sent, if_version=if_version))

    def put_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        on_conflict: OnConflict = "replace",
        sync: Sync | None = None,
    ) -> list[str]:
        """As Collection.put_many()."""
        listed = list(documents)
        ids = self.tx.call(self.name, "put_many", listed, on_conflict=on_conflict)
        return cast(list[str], ids)

    def __getitem__(self, id: str) -> Document:
        return self.record(id).document

    def __iter__(self) -> Iterator[str]:
        return (document["id"] for document in self.documents())

    def documents(self) -> Iterator[Document]:
        """As Collection.documents(), in blocks."""
        after: str | None = None
        while True:
            page = self.find({}, limit=_BLOCK, after=after)
            yield from page
            after = page.cursor
            if after is None:
                return


for _name in (READS | WRITES) - {"update", "put_many"}:
    setattr(SharedTransactionCollection, _name, _inside(_name))
