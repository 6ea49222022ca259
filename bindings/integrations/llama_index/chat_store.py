"""A LlamaIndex chat store on a collection, a document for each message.

    memory = ChatMemoryBuffer.from_defaults(chat_store=AmberChatStore("memory.amber"))

A document has `key`, `position` and `message`.

Invariants:
- A call that writes is one commit, all or nothing; messages of one key that are added at the same
  time are all kept, in the order of their commits.
- Adding a message does not read the others.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore

from amberdb import Collection, Database, Document, Ordered, WritableCollection
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import twin

OWNER: Final = "amberdb.integrations.llama_index"


class AmberChatStore(BaseChatStore):
    """Messages in a collection of their own. Raises OpenError, CollectionError.

    database    an open Database, or the path of one
    collection  its name
    """

    database: str
    collection: str

    _opened: Opened = PrivateAttr()
    _messages: Collection = PrivateAttr()

    def __init__(
        self, database: DatabaseOrPath, *, collection: str = "llama_index_chat", **given: Any
    ) -> None:
        opened = Opened(database)
        with opened.closed_on_error() as db:
            messages = db.collection(collection, indexes=[Ordered("key", "position")], owner=OWNER)
            given |= {"database": os.fspath(db.path), "collection": collection}
            super().__init__(**given)
        self._opened, self._messages = opened, messages

    @classmethod
    def class_name(cls) -> str:
        return "AmberChatStore"

    @property
    def client(self) -> Database:
        """The database of the messages."""
        return self._opened.db

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replaces the messages of a key."""
        with self._alone(key) as into:
            into.delete_many(_of(key))
            into.put_many(_stored(key, 0, messages))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """The messages of a key, the oldest first."""
        return list(map(_loaded, self._messages.find(_of(key), order_by="position")))

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Adds a message behind the last one of a key."""
        with self._alone(key) as into:
            last = into.max("position", _of(key))
            into.put_many(_stored(key, 0 if last is None else last + 1, [message]))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Deletes the messages of a key; returns them, None when there are none."""
        with self._alone(key) as stored:
            found = stored.find(_of(key), order_by="position")
            stored.delete_many(_of(key))
        return list(map(_loaded, found)) or None

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Deletes the message at a position of the list, from its end for a negative one; returns
        it, None when there is none."""
        with self._alone(key) as stored:
            found = _at(stored, key, idx)
            if found is not None:
                stored.delete(found["id"])
        return None if found is None else _loaded(found)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Deletes the last message of a key; returns it, None when there is none."""
        return self.delete_message(key, -1)

    def get_keys(self) -> list[str]:
        """The keys that have messages."""
        return self._messages.distinct("key")

    @contextmanager
    def _alone(self, key: str) -> Generator[WritableCollection]:
        """The messages, in a transaction that nobody else has for this key."""
        with self.client.transaction() as tx:
            tx.lock(f"{self.collection}/{key}")
            yield tx[self.collection]

    aset_messages = twin("write", set_messages)
    aget_messages = twin("read", get_messages)
    async_add_message = twin("write", add_message)
    adelete_messages = twin("write", delete_messages)
    adelete_message = twin("write", delete_message)
    adelete_last_message = twin("write", delete_last_message)
    aget_keys = twin("read", get_keys)


def _of(key: str) -> dict[str, Any]:
    return {"key": {"$eq": key}}


def _stored(key: str, first: int, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    return [
        {"key": key, "position": position, "message": message.model_dump(mode="json")}
        for position, message in enumerate(messages, first)
    ]


def _loaded(document: Document) -> ChatMessage:
    return ChatMessage.model_validate(document["message"])


def _at(messages: WritableCollection, key: str, index: int) -> Document | None:
    """The document of a message; of those before it only the ids are read."""
    order, count = ("position", index + 1) if index >= 0 else ("-position", -index)
    ids = messages.find(_of(key), order_by=order, limit=count, fields=["id"])
    return messages.get(ids[-1]["id"]) if len(ids) == count else None
