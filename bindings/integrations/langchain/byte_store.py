"""LangChain's key-value store of bytes (ByteStore).

    {id: name_id(key), value: bytes, key}     key: only of those that are longer than an id

Invariants:
- A list of pairs is stored in one commit, and keys are deleted in one.
- Keys are in the order of their ids, so a prefix reads those keys alone, and not their values.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, final

from langchain_core.stores import ByteStore

from amberdb import InvalidDocumentError, Page
from amberdb._shared.checks import check_name
from amberdb.integrations.langchain.documents import OWNER
from amberdb.integrations.names import BYTES_MAX, begins_id, name_id
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread, twin

PAGE: Final = 500


@final
class AmberByteStore(ByteStore):
    """A ByteStore in a collection.

        store = AmberByteStore("memory.amber")
        store.mset([("a", b"1")])
        store.mget(["a", "b"])  # [b"1", None]

    Keys are str of any length that are not empty, values bytes of at most `document_bytes_max` (16
    MiB). Raises OpenError, and CollectionError for a collection that is another system's.
    """

    def __init__(self, db: DatabaseOrPath, *, name: str = "langchain_bytes") -> None:
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._collection = opened.collection(name, owner=OWNER)

    def close(self) -> None:
        """Closes the database if it was given as a path."""
        self._opened.close()

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key, None for one that is missing."""
        found = self._collection.get_many([_id(key) for key in keys])
        return [None if document is None else document["value"] for document in found]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Stores the pairs, all or none. Raises InvalidDocumentError, DocumentTooLargeError."""
        self._collection.put_many([_document(key, value) for key, value in key_value_pairs])

    def mdelete(self, keys: Sequence[str]) -> None:
        """Deletes the keys, all or none; those that are missing are passed over."""
        self._collection.delete_many(ids=[_id(key) for key in keys])

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with a prefix, ascending by id. Each 500 are read as of their own
        time, so the store may be changed meanwhile."""
        after: str | None = None
        while True:
            page = self._page(prefix, after)
            yield from self._keys(page, prefix or "")
            after = page.cursor
            if after is None:
                return

    amget = twin("read", mget)
    amset = twin("write", mset)
    amdelete = twin("write", mdelete)

    async def ayield_keys(  # pyright: ignore[reportIncompatibleMethodOverride]  # a coroutine there
        self, *, prefix: str | None = None
    ) -> AsyncIterator[str]:
        """As yield_keys()."""
        after: str | None = None
        while True:
            page = await in_thread("read", self._page, prefix, after)
            for key in await in_thread("read", self._keys, page, prefix or ""):
                yield key
            after = page.cursor
            if after is None:
                return

    def _page(self, prefix: str | None, after: str | None) -> Page:
        where = {"id": {"$prefix": begins_id(prefix)}} if prefix else None
        return self._collection.find(where, order_by="id", limit=PAGE, after=after, fields=["id"])

    def _keys(self, page: Page, prefix: str) -> list[str]:
        """The keys of a page: ids, but for those of long keys, whose documents have them."""
        ids: list[str] = [document["id"] for document in page]
        long = [id for id in ids if len(id.encode()) > BYTES_MAX]
        if long:
            stored = self._collection.get_many(long)
            whole = {document["id"]: document["key"] for document in stored if document is not None}
            ids = [whole.get(id, id) for id in ids if id in whole or len(id.encode()) <= BYTES_MAX]
        return [key for key in ids if key.startswith(prefix)]


def _id(key: str) -> str:
    check_name("a key", key)
    return name_id(key)


def _document(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidDocumentError(f"the value of {key!r} must be bytes, not {value!r}")
    id = _id(key)
    data = bytes(value)  # pyright: ignore[reportUnknownArgumentType]  # a memoryview of any kind
    return {"id": id, "value": data, **({} if id == key else {"key": key})}
