"""A LlamaIndex key-value store on a collection, for document stores and index stores.

    docstore = KVDocumentStore(AmberKVStore("memory.amber"))

A document has the id `amberdb.key(collection, key)`, `key` and `value`. The names of LlamaIndex's
collections are the first part of the id, so one collection of AmberDB has them all.

Invariants:
- A call that writes is one commit, all or nothing: put_all() too, whatever its `batch_size`.
"""

from typing import Any, Final

from llama_index.core.storage.kvstore.types import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_COLLECTION,
    BaseKVStore,
)

import amberdb
from amberdb import Database
from amberdb._shared.queries import all_pages
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import twin

OWNER: Final = "amberdb.integrations.llama_index"


class AmberKVStore(BaseKVStore):
    """Values in a collection of their own. Raises OpenError, CollectionError.

    database    an open Database, or the path of one
    collection  its name
    """

    def __init__(self, database: DatabaseOrPath, *, collection: str = "llama_index_kv") -> None:
        self._opened = Opened(database)
        with self._opened.closed_on_error() as db:
            self._values = db.collection(collection, indexes=[], owner=OWNER)

    @property
    def client(self) -> Database:
        """The database of the values."""
        return self._opened.db

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Stores a value. Raises InvalidDocumentError, DocumentTooLargeError."""
        self._values.put(_stored(collection, key, val))

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Stores values in one commit. Raises InvalidDocumentError, DocumentTooLargeError."""
        self._values.put_many(_stored(collection, key, value) for key, value in kv_pairs)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """A value, None when there is none."""
        found = self._values.get(amberdb.key(collection, key))
        return None if found is None else found["value"]

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """All values of a collection, by key, as of one time."""
        where = {"id": {"$prefix": amberdb.key(collection)}}
        with self.client.snapshot() as at:
            pages = all_pages(at[self._values.name].find, where, order_by="id")
            return {document["key"]: document["value"] for document in pages}

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Deletes a value; returns whether there was one."""
        return self._values.delete(amberdb.key(collection, key))

    aput = twin("write", put)
    aput_all = twin("write", put_all)
    aget = twin("read", get)
    aget_all = twin("read", get_all)
    adelete = twin("write", delete)


def _stored(collection: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": amberdb.key(collection, key), "key": key, "value": value}
