"""Collections of a shared database: reads are those of a collection, writes go to the leader."""

from collections.abc import Callable
from typing import Any, Protocol, final

from amberdb._types import Sync
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.transaction import Transaction
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.maintenance.embedding_backfill import backfill
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.view import schema_of
from amberdb.remote.backfill import backfilled
from amberdb.remote.writes import SentWrites


class Shared(Protocol):
    """The part of a SharedDatabase that its collections need."""

    path: str
    embedders: Embedders
    """The functions that this process was given."""

    def handle(self) -> Handle:
        """The handle of the database that this process reads."""
        ...

    def write(self, collection: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Does a write of a collection."""
        ...

    def transaction(self) -> Transaction:
        """As Database.transaction()."""
        ...

    def expire_collection(self, name: str) -> int:
        """Removes the documents of a collection that have expired by now."""
        ...


@final
class SharedCollection(SentWrites, Collection):
    """A collection of a SharedDatabase."""

    def __init__(self, name: str, db: Shared) -> None:
        WritableCollection.__init__(self, name)
        self._db = db

    def __repr__(self) -> str:
        return f"<amberdb.SharedCollection {self.name!r} of {self._db.path!r}>"

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        return self._db.handle()

    def embed_missing(self, progress: Callable[[int], None] | None = None) -> int:
        """As Collection.embed_missing(), with the functions of this process."""
        view, embedders = self._handle.engine.readable.view, self._db.embedders
        return backfill(view, embedders, self.name, backfilled(self._db), progress)

    def expire(self) -> int:
        """As Collection.expire()."""
        return self._db.expire_collection(self.name)

    def _embedders(self) -> Embedders:
        return self._db.embedders

    def _sent(self, method: str, *args: Any, sync: Sync | None, **kwargs: Any) -> Any:
        return self._db.write(self.name, method, *args, sync=sync, **kwargs)

    def _schema(self) -> Schema:
        return self.schema()

    def schema(self) -> Schema:
        """The newest one that this process knows. Raises CollectionMissingError."""
        known = self._handle.engine.readable.state.catalog.schemas.get(self.name)
        if known is not None:
            return known
        with self._handle.engine.readable.view() as view:
            return schema_of(view, self.name)
