"""Stores of events without a database: in memory, and one that drops all events.

Invariants:
- What other stores read into memory is selected, searched and counted by the functions of this
  module.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from typing import Unpack, final

from amberdb._shared.words import Words, texts_in
from amberdb.events.event import AgentEvent
from amberdb.events.store import BATCH, EventStore, FilterFields, Filters, Stats, check_counts


class InMemoryEventStore(EventStore):
    """Events in a dict, for tests; they end with the process. A subclass can change a method."""

    def __init__(self) -> None:
        self._events: dict[str, AgentEvent] = {}

    async def store(self, event: AgentEvent) -> bool:
        self._events.pop(event.event_id, None)  # stored again, it is the newest
        self._events[event.event_id] = event
        return True

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
        events = self._matching(filters, fields, oldest_first=oldest_first)
        return list(islice(events, offset, None if limit is None else offset + limit))

    async def iterate(
        self,
        filters: Filters | None = None,
        *,
        batch: int = BATCH,
        **fields: Unpack[FilterFields],
    ) -> AsyncIterator[list[AgentEvent]]:
        check_counts(batch=batch)
        events = self._matching(filters, fields, oldest_first=True)
        while page := list(islice(events, batch)):
            yield page

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        ids = {event.event_id for event in events}
        return [self._events[event_id] for event_id in ids if event_id in self._events]

    async def search(
        self,
        text: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        check_counts(limit=limit)
        return search_events(self._matching(filters, fields), text, limit)

    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        return count_events(self._matching(filters, fields))

    async def clear(self, filters: Filters | None = None, **fields: Unpack[FilterFields]) -> int:
        cleared = [event.event_id for event in self._matching(filters, fields)]
        for event_id in cleared:
            del self._events[event_id]
        return len(cleared)

    def _matching(
        self, filters: Filters | None, fields: FilterFields, *, oldest_first: bool = False
    ) -> Iterator[AgentEvent]:
        matches = Filters.of(filters, **fields).matches
        events = list(self._events.values())
        return filter(matches, events if oldest_first else reversed(events))


@final
class NullEventStore(EventStore):
    """Drops every event: for a recorder that is turned off."""

    async def store(self, event: AgentEvent) -> bool:
        return False

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        return []

    async def search(
        self,
        text: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        return []

    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        return count_events([])

    async def clear(self, filters: Filters | None = None, **fields: Unpack[FilterFields]) -> int:
        return 0


# -- over events in memory -----------------------------------------------------------------------


def search_events(newest: Iterable[AgentEvent], text: str, limit: int) -> list[AgentEvent]:
    """The result of search() over events that come the newest first: those with more of the words
    first, of equals the newest."""
    words = Words(text)
    if not words:
        return []
    counted = ((words.count_in(texts_in(event.data)), event) for event in newest)
    found = ((count, event) for count, event in counted if count)
    return [event for _, event in nlargest(limit, found, key=lambda each: each[0])]


def count_events(events: Iterable[AgentEvent]) -> Stats:
    """The result of get_stats() over these events."""
    stats = Stats(total_events=0, by_type={}, first_event=None, last_event=None)
    for event in events:
        name, time = event.event_type.name, event.timestamp
        stats["total_events"] += 1
        stats["by_type"][name] = stats["by_type"].get(name, 0) + 1
        stats["first_event"] = min(stats["first_event"] or time, time)
        stats["last_event"] = max(stats["last_event"] or time, time)
    return stats
