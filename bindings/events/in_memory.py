"""Stores of events: in AmberDB, in memory, and nowhere.

Invariants:
- Calls of the database run in other threads, so no loop waits for a disk.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, final

from amberdb import Database, Document, Ordered, QueryError, Sync, Text
from amberdb._shared.queries import between
from amberdb.events.event import BATCH, AgentEvent, EventStore, EventType, Filters, Stats, texts

COLLECTION: Final = "agent_event"


@final
class AmberEventStore(EventStore):
    """In a collection of an open database.

    sync    of what is stored; None: as the database was opened
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
        found = await asyncio.to_thread(
            self._collection.find, _where(filters), order_by=order, limit=end
        )
        return list(map(AgentEvent.from_map, found[offset:]))

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
        self, query: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        """Ranked by BM25; in the language of searches (docs/search.md). Raises QueryError."""
        hits = await asyncio.to_thread(
            self._collection.search, query, where=_where(filters), limit=limit
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
        """In commits of bounded size."""
        count = 0
        while True:
            found = self._collection.find(where, limit=BATCH, fields=["id"])
            if not found:
                return count
            with self._db.transaction(sync=self._sync) as tx:
                count += sum(tx[self._collection.name].delete(each["id"]) for each in found)


@final
class InMemoryEventStore(EventStore):
    """For tests: gone with the process."""

    def __init__(self) -> None:
        self._events: dict[str, AgentEvent] = {}

    async def store(self, event: AgentEvent) -> bool:
        self._events[event.event_id] = event
        return True

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]:
        return chosen(self._events.values(), filters, limit, offset, oldest_first)

    async def search(
        self, query: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        return found_by(self._events.values(), query, filters, limit)

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return counted(self._events.values(), filters)

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        filters = Filters(session_id=session_id, end_time=end_time)
        gone = [each.event_id for each in self._events.values() if filters.matches(each)]
        for event_id in gone:
            del self._events[event_id]
        return len(gone)


@final
class NullEventStore(EventStore):
    """Keeps nothing: memory that is turned off."""

    async def store(self, event: AgentEvent) -> bool:
        return False

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]:
        return []

    async def search(
        self, query: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        return []

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return counted([], filters)

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        return 0


# -- over events in memory -----------------------------------------------------------------------


def chosen(
    events: Iterable[AgentEvent],
    filters: Filters | None,
    limit: int | None,
    offset: int,
    oldest_first: bool,
) -> list[AgentEvent]:
    """What retrieve() gives."""
    found = [event for event in events if filters is None or filters.matches(event)]
    found.sort(key=lambda event: event.timestamp)
    ordered = found if oldest_first else reversed(found)
    return list(islice(ordered, offset, None if limit is None else offset + limit))


def found_by(
    events: Iterable[AgentEvent], query: str, filters: Filters | None, limit: int
) -> list[AgentEvent]:
    """Those with all words of the query in their texts, the latest first. Raises QueryError."""
    words = query.casefold().split()
    if not words:
        raise QueryError("a search for no word")
    having = [
        event
        for event in events
        if all(word in text for text in [" ".join(texts(event.data)).casefold()] for word in words)
    ]
    return chosen(having, filters, limit, 0, False)


def counted(events: Iterable[AgentEvent], filters: Filters | None) -> Stats:
    """What get_stats() gives."""
    found = chosen(events, filters, None, 0, True)
    by_type: dict[str, int] = {}
    for event in found:
        by_type[event.event_type.name] = by_type.get(event.event_type.name, 0) + 1
    return Stats(
        total_events=len(found),
        by_type=by_type,
        first_event=found[0].timestamp if found else None,
        last_event=found[-1].timestamp if found else None,
    )


def _document(event: AgentEvent) -> Document:
    return {"id": event.event_id, **event.to_map()}


def _where(filters: Filters | None) -> dict[str, Any]:
    if filters is None:
        return {}
    kind = None if filters.event_type is None else filters.event_type.value
    names = {
        "event_type": kind,
        "session_id": filters.session_id,
        "agent_name": filters.agent_name,
    }
    where: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    return {**where, **between("timestamp", filters.start_time, filters.end_time)}
