"""Lists of items in one collection: the messages of a conversation, the items of a session.

    {id: key(list, number), list, number, item | json}

Invariants:
- The numbers of a list ascend in the order of the calls of append(), from several threads and
  handles of the database too; the id has the order, so no index is needed.
- An append is one commit: all of its items, or none.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, final

from amberdb import Database, Document, Transaction, key
from amberdb.integrations.json_items import item_of, stored_item
from amberdb.integrations.names import name_id

NAME_BYTES_MAX: Final = 160
"""Of the name of a list as it is in an id, where some characters become two."""


@final
class ItemLists:
    """The lists of one collection."""

    def __init__(self, db: Database, collection: str, *, owner: str) -> None:
        """Raises CollectionError for a collection of another owner."""
        self._db = db
        self._collection = db.collection(collection, owner=owner)

    def append(self, name: str, items: Iterable[Any]) -> None:
        """Adds items at the end of a list. Raises TypeError and ValueError for what is no JSON, and
        TransactionError inside a transaction of the same thread."""
        stored = [stored_item(item) for item in items]
        if not stored:
            self._db.collections()  # raises ClosedError, as with items
            return
        with self._db.transaction() as tx:
            self._lock(tx, name)
            collection = tx[self._collection.name]
            last = _newest(collection, name, 1)
            first = last[0]["number"] + 1 if last else 0
            collection.put_many(
                {"id": key(_part(name), number), "list": name, "number": number, **item}
                for number, item in enumerate(stored, first)
            )

    def items(self, name: str, limit: int | None = None) -> list[Any]:
        """The items of a list, oldest first; with `limit` the newest ones."""
        if limit is not None and limit < 1:
            return []
        if limit is None:
            found: Sequence[Document] = self._collection.find(_whole(name), order_by="id")
        else:
            found = _newest(self._collection, name, limit)[::-1]
        return [item_of(document) for document in found]

    def pop(self, name: str) -> Any | None:
        """Removes the newest item and returns it; None when the list is empty."""
        with self._db.transaction() as tx:
            self._lock(tx, name)
            collection = tx[self._collection.name]
            for last in _newest(collection, name, 1):
                collection.delete(last["id"])
                return item_of(last)
        return None

    def clear(self, name: str) -> int:
        """Removes all items of a list; how many."""
        return self._collection.delete_many(_whole(name))

    def _lock(self, tx: Transaction, name: str) -> None:
        """Holds the numbers of a list."""
        tx.lock(f"{self._collection.name}/{name}")


def _part(name: str) -> str:
    return name_id(name, NAME_BYTES_MAX)


def _whole(name: str) -> dict[str, Any]:
    return {"id": {"$prefix": key(_part(name))}}


def _newest(collection: Any, name: str, limit: int) -> list[Document]:
    return list(collection.find(_whole(name), order_by="-id", limit=limit))
