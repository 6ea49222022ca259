"""Transactions that another process holds: each call inside is a round trip.

Invariants:
- When the process that holds it ends before the commit, nothing was stored, and the transaction
  raises TransactionError; after the commit was sent, the next leader tells whether it was done.
"""

# What is sent has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Protocol, final

from amberdb._errors import ClosedError, InvalidDocumentError, TransactionError
from amberdb._types import NO_LSN, Document, Lsn, Sync
from amberdb.engine.database.transaction import (
    Transaction,
    TransactionCollection,
    check_names,
)
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.options import check_sync
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.remote.arguments import sendable
from amberdb.remote.calls import READS
from amberdb.remote.collection import SharedCollection
from amberdb.remote.lane import Lane
from amberdb.remote.membership import Membership
from amberdb.remote.writes import SentWrites

_BLOCK: Final = 256


class Shared(Protocol):
    """The part of a SharedDatabase that its transactions need."""

    embedders: Embedders

    def outside(self, name: str) -> SharedCollection:
        """The collection as it is read without a transaction. Raises CollectionMissingError."""
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
        return SharedTransactionCollection(self, self._db.outside(name), self._db.embedders)

    def lock(self, *names: str) -> None:
        """Nothing is left to do: the process that holds the transaction has no other one. Raises
        ValueError, ClosedError."""
        if self._lane is None and self._own is None:
            raise _not_open()
        check_names(names)

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


def _encodable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _inside(name: str) -> Any:
    """The method of this name, called in the process that holds the transaction."""

    def method(self: "SharedTransactionCollection", *args: Any, **kwargs: Any) -> Any:
        if name in ("search", "explain"):  # no text raises
            args = tuple(map(_encodable, args))
            kwargs = {option: _encodable(value) for option, value in kwargs.items()}
        if type(kwargs.get("limit")) is int:  # one of any size is taken, and a message has 64 bits
            kwargs = {**kwargs, "limit": min(kwargs["limit"], sys.maxsize)}
        try:
            sent = sendable(args), sendable(kwargs)
        except InvalidDocumentError:
            getattr(self.outside, name)(*args, **kwargs)  # raises the error of the call
            raise
        return self.tx.call(self.name, name, *sent[0], **sent[1])

    method.__name__ = name
    method.__doc__ = f"As Collection.{name}()."
    return method


class SharedTransactionCollection(SentWrites, TransactionCollection):
    """A collection inside a SharedTransaction."""

    def __init__(
        self, tx: SharedTransaction, outside: SharedCollection, embedders: Embedders
    ) -> None:
        WritableCollection.__init__(self, outside.name)
        self.tx = tx
        self.outside = outside
        """The collection as it is read without the transaction."""
        self._functions = embedders

    def get(self, id: str, default: Any = None) -> Any:
        """As Collection.get()."""
        found = self.tx.call(self.name, "get", sendable(id))
        return default if found is None else found

    def _sent(self, method: str, *args: Any, sync: Sync | None, **kwargs: Any) -> Any:
        return self.tx.call(self.name, method, *args, **kwargs)

    def _schema(self) -> Schema:
        return self.outside.schema()

    def _embedders(self) -> Embedders:
        return self._functions

    def __contains__(self, id: object) -> bool:
        try:
            return isinstance(id, str) and self.get(id) is not None
        except InvalidDocumentError:  # what cannot be an id is none
            return False

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


for _name in READS - {"get", "__contains__"}:
    setattr(SharedTransactionCollection, _name, _inside(_name))
