"""A store of events in a collection of an open database.

Invariants:
- Calls of the database run in threads, so the event loop never waits for a disk; within the
  caller's transaction, which belongs to its thread, they run in the caller's.
- The position of an event is its place in the order in which events were stored.
- clear() commits a bounded number of deletions at a time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import count as numbers
from typing import Any, Final, TypeVar, Unpack, final

from amberdb import Database, Document, Ordered, ReadableCollection, Sync, Text, Transaction
from amberdb._shared.queries import between, having
from amberdb._shared.systems import in_transaction
from amberdb.events.event import AgentEvent, EventType
from amberdb.events.store import BATCH, EventStore, FilterFields, Filters, Stats, check_counts

logger = logging.getLogger("amberdb.events")

COLLECTION: Final = "agent_event"
_ID_BYTES_MAX: Final = 480
"""Of the id of a document."""
_DIGEST: Final = "long-id:sha256:"
_TYPES: Final = frozenset(EventType)
_T = TypeVar("_T")


@final
class AmberEventStore(EventStore):
    """Events in a collection of an open database. Raises CollectionError.

    name    name of the collection
    sync    durability class of writes; None: as the database was opened
    """

    def __init__(self, db: Database, *, name: str = COLLECTION, sync: Sync | None = None) -> None:
        self._db = db
        self._sync: Sync | None = sync
        self._collection = db.collection(
            name,
            owner="events",
            indexes=[
                Ordered("timestamp"),
                Ordered("session_id", "timestamp"),
                Ordered("agent_name", "timestamp"),
                Ordered("event_type", "timestamp"),
                Ordered("position"),
                Ordered("session_id", "position"),
                Ordered("session_id", "event_type", "position"),
                Ordered("agent_name", "position"),
                Ordered("agent_name", "event_type", "position"),
                Ordered("metadata.user_id", sparse=True),
                Text("data"),
            ],
        )

    async def store(self, event: AgentEvent, *, tx: Transaction | None = None) -> bool:
        return await self.store_many([event], tx=tx) == 1

    async def store_many(
        self, events: Sequence[AgentEvent], *, tx: Transaction | None = None
    ) -> int:
        return await _run(tx, lambda: self._store(events, tx))

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        check_counts(limit=limit, offset=offset)
        where = _where(Filters.of(filters, **fields))
        order = "position" if oldest_first else "-position"
        end = None if limit is None else offset + limit
        found = await asyncio.to_thread(self._collection.find, where, order_by=order, limit=end)
        return _events(found[offset:])

    async def iterate(
        self,
        filters: Filters | None = None,
        *,
        batch: int = BATCH,
        **fields: Unpack[FilterFields],
    ) -> AsyncIterator[list[AgentEvent]]:
        check_counts(batch=batch)
        where = _where(Filters.of(filters, **fields))
        after: str | None = None
        while True:
            page = await asyncio.to_thread(
                self._collection.find, where, order_by="position", limit=batch, after=after
            )
            if page:
                yield _events(page)
            after = page.cursor
            if after is None:
                return

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        ids = {_document_id(event.event_id) for event in events}
        found = await asyncio.to_thread(self._collection.get_many, ids)
        return _events(document for document in found if document is not None)

    async def search(  # pyright: ignore[reportIncompatibleMethodOverride]  # a keyword more
        self,
        text: str | None = None,
        filters: Filters | None = None,
        *,
        query: str | None = None,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        """Events ranked by BM25, by the words of a text, or by a query in the query language
        (docs/search.md). Raises QueryError."""
        check_counts(limit=limit)
        where = _where(Filters.of(filters, **fields))
        hits = await asyncio.to_thread(
            self._collection.search, text, query=query, where=where, limit=limit
        )
        return _events(hit.document for hit in hits)

    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        return await asyncio.to_thread(self._stats, _where(Filters.of(filters, **fields)))

    async def clear(  # pyright: ignore[reportIncompatibleMethodOverride]  # a keyword more
        self,
        filters: Filters | None = None,
        *,
        tx: Transaction | None = None,
        **fields: Unpack[FilterFields],
    ) -> int:
        where = _where(Filters.of(filters, **fields))
        return await _run(tx, lambda: self._clear(where, tx))

    # -- in threads --------------------------------------------------------------------------

    def _store(self, events: Sequence[AgentEvent], tx: Transaction | None) -> int:
        name = self._collection.name

        def store(tx: Transaction) -> None:
            tx.lock(f"{name}/position")
            collection = tx[name]
            positions = numbers((collection.max("position") or 0) + 1)
            collection.put_many(
                {"id": _document_id(event.event_id), **event.to_map(), "position": position}
                for event, position in zip(events, positions, strict=False)
            )

        in_transaction(self._db, tx, store, self._sync)
        return len(events)

    def _stats(self, where: dict[str, Any]) -> Stats:
        with self._db.snapshot() as at:
            events = at[self._collection.name]
            counts = _counts(events, where)
            return Stats(
                total_events=sum(counts.values()),
                by_type={EventType(kind).name: count for kind, count in counts.items() if count},
                first_event=_time(events.min("timestamp", where)),
                last_event=_time(events.max("timestamp", where)),
            )

    def _clear(self, where: dict[str, Any], tx: Transaction | None) -> int:
        """Deletes events, in commits of BATCH where the transaction is not the caller's; how
        many."""

        def delete(tx: Transaction) -> int:
            collection = tx[self._collection.name]
            ids = [event["id"] for event in collection.find(where, limit=BATCH, fields=["id"])]
            return sum(map(collection.delete, ids))

        count = 0
        while True:
            deleted = in_transaction(self._db, tx, delete, self._sync)
            count += deleted
            if deleted < BATCH:
                return count


def _document_id(event_id: str) -> str:
    """The id of the document of an event: that of the event, or a digest where it is too long for
    one. No other event has it: an id that begins like a digest has one too."""
    data = event_id.encode()
    if len(data) <= _ID_BYTES_MAX and not event_id.startswith(_DIGEST):
        return event_id
    return _DIGEST + sha256(data).hexdigest()


async def _run(tx: Transaction | None, work: Callable[[], _T]) -> _T:
    return work() if tx is not None else await asyncio.to_thread(work)


def _counts(events: ReadableCollection, where: dict[str, Any]) -> dict[str, int]:
    """The number of events of each type; those of types that are none of EventType are CUSTOM."""
    kind = where.get("event_type")
    if kind is not None:
        return {kind: events.count(where)}
    if len(where) == 0 or where.keys() in ({"agent_name"}, {"session_id"}, {"timestamp"}):
        # An index has the type before or after the field: no document is read.
        counts = {each.value: events.count({**where, "event_type": each}) for each in EventType}
        others = events.count(where) - sum(counts.values())
    else:
        found = events.count_by("event_type", where)
        counts = {kind: count for kind, count in found.items() if kind in _TYPES}
        others = sum(found.values()) - sum(counts.values())
    return {**counts, EventType.CUSTOM: counts.get(EventType.CUSTOM, 0) + others}


def _events(documents: Iterable[Document]) -> list[AgentEvent]:
    """The events of documents; one that another program has put and is none is logged."""
    events: list[AgentEvent] = []
    for document in documents:
        try:
            events.append(AgentEvent.from_map(document))
        except ValueError as error:
            logger.warning("document %s is no event: %s", document.get("id"), error)
    return events


def _time(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _where(filters: Filters) -> dict[str, Any]:
    equal = having(
        event_type=None if filters.event_type is None else filters.event_type.value,
        session_id=filters.session_id,
        agent_name=filters.agent_name,
    )
    return {**equal, **between("timestamp", filters.start_time, filters.end_time)}
