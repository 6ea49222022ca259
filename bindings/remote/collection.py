"""Collections of a shared database: reads are those of a collection, writes go to the leader.

Invariants:
- A value that cannot be sent is refused with the error of a local write, which names the field.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, cast, final

from amberdb._errors import InvalidDocumentError
from amberdb._types import Lsn, Patch, Sync, Where
from amberdb.engine.commit.write_batch import OnConflict
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.transaction import Transaction
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.maintenance.embedding_backfill import backfill
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.view import schema_of
from amberdb.remote.embedded import backfilled, patch_with_vectors
from amberdb.remote.messages import without_remove


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
class SharedCollection(Collection):
    """A collection of a SharedDatabase."""

    def __init__(self, name: str, db: Shared) -> None:
        WritableCollection.__init__(self, name)
        self._db = db

    def __repr__(self) -> str:
        return f"<amberdb.SharedCollection {self.name!r} of {self._db.path!r}>"

    @property
    def _handle(self) -> Handle:  # type: ignore[override]
        return self._db.handle()

    def put(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.put()."""
        (document,) = self._embedded([document])
        return cast(str, self._write_document("put", document, sync))

    def insert(self, document: Mapping[str, Any], *, sync: Sync | None = None) -> str:
        """As Collection.insert()."""
        (document,) = self._embedded([document])
        return cast(str, self._write_document("insert", document, sync))

    def put_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        on_conflict: OnConflict = "replace",
        sync: Sync | None = None,
    ) -> list[str]:
        """As Collection.put_many()."""
        listed: list[Mapping[str, Any]] = list(documents)
        known = self._unembedded(listed) if on_conflict == "keep" else frozenset[int]()
        new = iter(self._embedded([each for at, each in enumerate(listed) if at not in known]))
        listed = [each if at in known else next(new) for at, each in enumerate(listed)]
        ids = self._write_document("put_many", listed, sync, on_conflict=on_conflict)
        return cast(list[str], ids)

    def update(
        self,
        id: str,
        patch: Patch,
        *,
        if_version: int | None = None,
        sync: Sync | None = None,
    ) -> Lsn:
        """As Collection.update()."""
        if self._db.embedders.of(self.name):
            patch = patch_with_vectors(self._db.embedders, self.name, patch)
        sent = without_remove(patch)
        lsn = self._write_document("update", id, sync, patch=sent, if_version=if_version)
        return Lsn(lsn)

    def delete(self, id: str, *, sync: Sync | None = None) -> bool:
        """As Collection.delete()."""
        return bool(self._db.write(self.name, "delete", id, sync=sync))

    def delete_many(
        self,
        where: Where | None = None,
        *,
        ids: Iterable[str] | None = None,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.delete_many()."""
        listed = None if ids is None else list(ids)
        return cast(int, self._db.write(self.name, "delete_many", where, ids=listed, sync=sync))

    def touch(
        self,
        ids: Iterable[str],
        until: datetime | float | None,
        *,
        sync: Sync | None = None,
    ) -> int:
        """As Collection.touch()."""
        return cast(int, self._db.write(self.name, "touch", list(ids), until, sync=sync))

    def embed_missing(self, progress: Callable[[int], None] | None = None) -> int:
        """As Collection.embed_missing(), with the functions of this process."""
        source, embedders = self._handle.engine.readable, self._db.embedders
        return backfill(source, embedders, self.name, backfilled(self._db), progress)

    def expire(self) -> int:
        """As Collection.expire()."""
        return self._db.expire_collection(self.name)

    def _embedders(self) -> Embedders:
        return self._db.embedders

    def _write_document(self, method: str, first: Any, sync: Sync | None, **more: Any) -> Any:
        try:
            return self._db.write(self.name, method, first, sync=sync, **more)
        except TypeError as error:
            with self._handle.engine.readable.view() as view:
                for document in first if method == "put_many" else [first]:
                    schema_of(view, self.name).prepare(document)  # names the field
            raise InvalidDocumentError(str(error)) from None
