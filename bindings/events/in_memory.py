"""Stores of events without a database: in memory, and one that drops all events."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, cast, final

from amberdb.events.event import AgentEvent
from amberdb.events.store import EventStore, Filters, Stats


@final
class InMemoryEventStore(EventStore):
    """Events in a dict, for tests; they end with the process."""

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
        return select_events(self._events.values(), filters, limit, offset, oldest_first)

    async def search(
        self, text: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        return search_events(self._events.values(), text, filters, limit)

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return count_events(self._events.values(), filters)

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        filters = Filters(session_id=session_id, end_time=end_time)
        cleared = [event.event_id for event in self._events.values() if filters.matches(event)]
        for event_id in cleared:
            del self._events[event_id]
        return len(cleared)


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
    ) -> list[AgentEvent]:
        return []

    async def search(
        self, text: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        return []

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return count_events([], filters)

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        return 0


# -- over events in memory -----------------------------------------------------------------------


def select_events(
    events: Iterable[AgentEvent],
    filters: Filters | None,
    limit: int | None,
    offset: int,
    oldest_first: bool,
) -> list[AgentEvent]:
    """The result of retrieve() over these events."""
    matches = [event for event in events if filters is None or filters.matches(event)]
    matches.sort(key=lambda event: event.timestamp)
    ordered = matches if oldest_first else reversed(matches)
    return list(islice(ordered, offset, None if limit is None else offset + limit))


def search_events(
    events: Iterable[AgentEvent], text: str, filters: Filters | None, limit: int
) -> list[AgentEvent]:
    """Events with all words of the text in their data, the newest first; none without a word."""
    words = text.casefold().split()
    if not words:
        return []
    matches = [
        event
        for event in events
        if all(word in data for data in [" ".join(_texts(event.data)).casefold()] for word in words)
    ]
    return select_events(matches, filters, limit, 0, False)


def count_events(events: Iterable[AgentEvent], filters: Filters | None) -> Stats:
    """The result of get_stats() over these events."""
    selected = select_events(events, filters, None, 0, True)
    by_type: dict[str, int] = {}
    for event in selected:
        by_type[event.event_type.name] = by_type.get(event.event_type.name, 0) + 1
    return Stats(
        total_events=len(selected),
        by_type=by_type,
        first_event=selected[0].timestamp if selected else None,
        last_event=selected[-1].timestamp if selected else None,
    )


def _texts(value: Any) -> Iterator[str]:
    """All strings inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in cast(Mapping[str, Any], value).values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in cast(Sequence[Any], value):
            yield from _texts(inner)
