"""A memory service of ADK: events that can be found by their words, and by their meaning.

    memory = AmberMemoryService("memory.amber", embed=model.encode, dim=384)

A document has the id `key(app, user, memory id)` and app, user, session, memory, text, content,
author, timestamp, metadata; a memory that was deleted has `deleted` in place of a text.

Invariants:
- A session that is added again replaces what was there of it.
- A memory that was deleted is not added again with its session.
- Without `embed` a search is by words; with it by both, and vectors are made in the background.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.platform.uuid import new_uuid
from google.adk.sessions.session import Session
from google.genai import types

import amberdb
from amberdb import Database, IndexSpec, Ordered, Text, Vector, WritableCollection
from amberdb.integrations.google_adk.texts import state_of, to_text
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread

OWNER: Final = "amberdb.integrations.google_adk"
MEMORIES_MAX: Final = 10
_FIELDS: Final = ["memory", "content", "author", "timestamp", "metadata"]


class AmberMemoryService(BaseMemoryService):
    """Memories in a collection of their own. Raises OpenError, CollectionError, ValueError.

    database    an open Database, or the path of one
    collection  its name
    embed       makes vectors of texts, an array of shape (n, dim)
    dim         the numbers of a vector
    limit       how many memories a search returns
    """

    def __init__(
        self,
        database: DatabaseOrPath,
        *,
        collection: str = "adk_memory",
        embed: Callable[[list[str]], Any] | None = None,
        dim: int | None = None,
        limit: int = MEMORIES_MAX,
    ) -> None:
        indexes: list[IndexSpec] = [Text("text"), Ordered("app", "user", "session")]
        if (embed is None) != (dim is None):
            raise ValueError("embed and dim belong together: give both, or neither")
        if dim is not None:
            indexes.append(Vector("embedding", dim=dim, source="text", embed=embed, defer=True))
        self._embed, self._limit = embed, limit
        self._opened = Opened(database)
        with self._opened.closed_on_error() as db:
            self._memories = db.collection(collection, indexes=indexes, owner=OWNER)

    @property
    def client(self) -> Database:
        """The database of the memories."""
        return self._opened.db

    async def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        await in_thread("write", self._opened.close)

    async def add_session_to_memory(self, session: Session) -> None:
        """Stores the events of a session that have content, in place of those stored before."""
        documents = _of_events(session.app_name, session.user_id, session.id, session.events, {})
        of = {"app": session.app_name, "user": session.user_id, "session": session.id}
        await in_thread("write", self._add, documents, of)

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Stores events that have content; those that are there stay as they are."""
        metadata = custom_metadata or {}
        documents = _of_events(app_name, user_id, session_id, events, metadata)
        await in_thread("write", self._memories.put_many, documents, on_conflict="keep")

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Stores memories; one with the id of another replaces it."""
        metadata = custom_metadata or {}
        documents = [_of_entry(app_name, user_id, each, metadata) for each in memories]
        await in_thread("write", self._memories.put_many, documents)

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """The memories of a user that are nearest to a text, the best first."""
        return await in_thread("read", self._search, app_name, user_id, query)

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Deletes a memory for good. One that is not there is passed over."""
        if memory_id:
            await in_thread("write", self._delete, amberdb.key(app_name, user_id, memory_id))

    # -- inside, in threads ------------------------------------------------------------------

    def _add(self, documents: list[dict[str, Any]], of: dict[str, str]) -> None:
        with self.client.transaction() as tx:
            tx.lock(f"{self._memories.name}/{amberdb.key(*of.values())}")
            memories = tx[self._memories.name]
            same = {name: {"$eq": value} for name, value in of.items()}
            kept = {document["id"] for document in documents}
            memories.delete_many(
                ids=[
                    each["id"]
                    for each in memories.find({**same, "deleted": None}, fields=["id"])
                    if each["id"] not in kept
                ]
            )
            memories.put_many(_undeleted(memories, documents))

    def _search(self, app: str, user: str, query: str) -> SearchMemoryResponse:
        asked: dict[str, Any] = {"text": query}
        if self._embed is not None and query.strip():
            asked["vector"] = self._embed([query])[0]
        where = {"app": {"$eq": app}, "user": {"$eq": user}}
        hits = self._memories.search(where=where, limit=self._limit, fields=_FIELDS, **asked)
        return SearchMemoryResponse(memories=[_entry(hit.document) for hit in hits])

    def _delete(self, id: str) -> None:
        with self.client.transaction() as tx:
            memories = tx[self._memories.name]
            found = memories.get(id)
            if found is not None:
                kept: dict[str, Any] = {name: found[name] for name in ("id", "app", "user")}
                memories.put(kept | {"deleted": True})


def _undeleted(
    memories: WritableCollection, documents: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The documents whose memories were not deleted."""
    stored = memories.get_many(document["id"] for document in documents)
    return [
        document
        for document, found in zip(documents, stored, strict=True)
        if found is None or "deleted" not in found
    ]


def _of_events(
    app: str,
    user: str,
    session: str | None,
    events: Iterable[Event],
    metadata: Mapping[str, object],
) -> list[dict[str, Any]]:
    return [
        _document(app, user, event.id, event.content)
        | {
            "session": session,
            "author": event.author,
            "timestamp": datetime.fromtimestamp(event.timestamp, UTC).isoformat(),
            "metadata": to_text(dict(metadata)),
        }
        for event in events
        if event.content is not None and event.content.parts
    ]


def _of_entry(
    app: str, user: str, entry: MemoryEntry, metadata: Mapping[str, object]
) -> dict[str, Any]:
    return _document(app, user, entry.id or new_uuid(), entry.content) | {
        "author": entry.author,
        "timestamp": entry.timestamp,
        "metadata": to_text({**metadata, **entry.custom_metadata}),
    }


def _document(app: str, user: str, memory: str, content: types.Content) -> dict[str, Any]:
    texts = [part.text for part in content.parts or [] if part.text]
    return {
        "id": amberdb.key(app, user, memory),
        "app": app,
        "user": user,
        "memory": memory,
        "text": "\n".join(texts),
        "content": to_text(content.model_dump(mode="json", exclude_none=True)),
    }


def _entry(document: amberdb.Document) -> MemoryEntry:
    return MemoryEntry(
        id=document["memory"],
        content=types.Content.model_validate(state_of(document["content"])),
        author=document["author"],
        timestamp=document["timestamp"],
        custom_metadata=state_of(document["metadata"]),
    )
