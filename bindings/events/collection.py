"""A store of events in a collection of an open database.

Invariants:
- Calls of the database run in threads, so the event loop never waits for a disk.
- clear() commits a bounded number of deletions at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import Database, Document, Ordered, Sync, Text
from amberdb._shared.queries import between, having
from amberdb.events.event import AgentEvent, EventType
from amberdb.events.store import BATCH, EventStore, Filters, Stats

COLLECTION: Final = "agent_event"


@final
class AmberEventStore(EventStore):
    """Events in a collection of an open database.

    name    name of the collection
    sync    durability class of writes; None: as the database was opened
    """

    def __init__(self, db: Database, *, name: str = COLLECTION, sync: Sync | None = None) -> None:
        self._db = db
        self._sync: Sync | None = sync
        self._collection = db.collection(
            name,
            indexes=[
                Ordered("timestamp"),
                Ordered("session_id", "timestamp"),
                Ordered("agent_name", "timestamp"),
                Ordered("event_type", "timestamp"),
                Text("data"),
            ],
        )

    async def store(self, event: AgentEvent) -> bool:
        await asyncio.to_thread(self._collection.put, _document(event), sync=self._sync)
        return True

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        documents = [_document(event) for event in events]
        return len(await asyncio.to_thread(self._collection.put_many, documents, sync=self._sync))

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]:
        order = "timestamp" if oldest_first else "-timestamp"
        end = None if limit is None else offset + limit
        documents = await asyncio.to_thread(
            self._collection.find, _where(filters), order_by=order, limit=end
        )
        return list(map(AgentEvent.from_map, documents[offset:]))

    async def iterate(
        self, filters: Filters | None = None, *, batch: int = BATCH
    ) -> AsyncIterator[list[AgentEvent]]:
        after: str | None = None
        while True:
            page = await asyncio.to_thread(
                self._collection.find,
                _where(filters),
                order_by="timestamp",
                limit=batch,
                after=after,
            )
            if page:
                yield list(map(AgentEvent.from_map, page))
            after = page.cursor
            if after is None:
                return

    async def search(
        self,
        text: str | None = None,
        filters: Filters | None = None,
        *,
        query: str | None = None,
        limit: int = 10,
    ) -> list[AgentEvent]:
        """Events ranked by BM25, by the words of a text, or by a query in the query language
        (docs/search.md). Raises QueryError."""
        hits = await asyncio.to_thread(
            self._collection.search, text, query=query, where=_where(filters), limit=limit
        )
        return [AgentEvent.from_map(hit.document) for hit in hits]

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return await asyncio.to_thread(self._stats, _where(filters))

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        filters = Filters(session_id=session_id, end_time=end_time)
        return await asyncio.to_thread(self._clear, _where(filters))

    def _stats(self, where: dict[str, Any]) -> Stats:
        with self._db.snapshot() as at:
            events = at[self._collection.name]
            if "event_type" in where:
                counts = {where["event_type"]: events.count(where)}
            else:
                counts = {
                    kind.value: events.count({**where, "event_type": kind.value})
                    for kind in EventType
                }
            first = events.find(where, order_by="timestamp", limit=1)
            last = events.find(where, order_by="-timestamp", limit=1)
        return Stats(
            total_events=sum(counts.values()),
            by_type={EventType(kind).name: count for kind, count in counts.items() if count},
            first_event=first[0]["timestamp"] if first else None,
            last_event=last[0]["timestamp"] if last else None,
        )

    def _clear(self, where: dict[str, Any]) -> int:
        """Deletes events in commits of BATCH; how many."""
        count = 0
        while True:
            page = self._collection.find(where, limit=BATCH, fields=["id"])
            if not page:
                return count
            with self._db.transaction(sync=self._sync) as tx:
                count += sum(tx[self._collection.name].delete(event["id"]) for event in page)


def _document(event: AgentEvent) -> Document:
    return {"id": event.event_id, **event.to_map()}


def _where(filters: Filters | None) -> dict[str, Any]:
    if filters is None:
        return {}
    equal = having(
        event_type=None if filters.event_type is None else filters.event_type.value,
        session_id=filters.session_id,
        agent_name=filters.agent_name,
    )
    return {**equal, **between("timestamp", filters.start_time, filters.end_time)}
