"""The interface of a store of events, its filters and its statistics.

Invariants:
- An event is identified by its id: stored twice, it is returned once.
- Events have the order in which they were stored, whatever their timestamps are: a clock that is
  set back reverses nothing. Stores return the newest first, unless `oldest_first` is set.
- A search finds the events that have at least one word of the text in their data, words as a Text
  index tells them (docs/search.md).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack, cast, final

from amberdb import QueryError
from amberdb._shared.queries import having
from amberdb._shared.storable import storable_text
from amberdb.events.event import AgentEvent, EventType, event_type_of, time_of

BATCH: Final = 500
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class FilterFields(TypedDict, total=False):
    """The fields of Filters, as arguments of the methods of stores."""

    event_type: EventType | str | None
    session_id: str | None
    agent_name: str | None
    start_time: datetime | None
    end_time: datetime | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions on events: equal fields, and `start_time <= timestamp < end_time`; a time without
    a zone is local time. Raises InvalidDocumentError, QueryError."""

    event_type: EventType | None = None
    session_id: str | None = None
    agent_name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    @classmethod
    def of(cls, filters: "Filters | None" = None, /, **fields: Unpack[FilterFields]) -> "Filters":
        """The conditions of `filters` and of `fields`. Raises InvalidDocumentError, QueryError."""
        given: dict[str, Any] = {name: each for name, each in fields.items() if each is not None}
        if filters is None:
            return cls(**given)
        if twice := [name for name in given if getattr(filters, name, None) is not None]:
            raise QueryError(f"{twice[0]} is in the Filters and an argument: give it once")
        return replace(filters, **given)

    def __post_init__(self) -> None:
        if self.event_type is not None:
            object.__setattr__(self, "event_type", event_type_of(self.event_type))
        for name, text in having(session_id=self.session_id, agent_name=self.agent_name).items():
            object.__setattr__(self, name, storable_text(text))  # as events have it
        for name in ("start_time", "end_time"):
            if (time := cast(object, getattr(self, name))) is not None:
                object.__setattr__(self, name, time_of(name, time))

    def matches(self, event: AgentEvent) -> bool:
        """Whether the event meets all conditions."""
        return (
            (self.event_type is None or event.event_type is self.event_type)
            and (self.session_id is None or event.session_id == self.session_id)
            and (self.agent_name is None or event.agent_name == self.agent_name)
            and (self.start_time is None or event.timestamp >= self.start_time)
            and (self.end_time is None or event.timestamp < self.end_time)
        )


class Stats(TypedDict):
    """Statistics of a store. `by_type` has the names of EventType as keys; `first_event` and
    `last_event` are the smallest and largest timestamp."""

    total_events: int
    by_type: dict[str, int]
    first_event: datetime | None
    last_event: datetime | None


class EventStore(ABC):
    """The base of stores. A subclass implements the abstract methods. The conditions of a call are
    `Filters.of(filters, **fields)`."""

    async def initialize(self) -> None:  # noqa: B027  # a store may have nothing to do
        """Prepares the store; called before any other method."""

    @abstractmethod
    async def store(self, event: AgentEvent) -> bool:
        """Stores an event; whether it was stored."""

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        """Stores events; how many were stored."""
        # A store() without a result has stored the event.
        return sum([(await self.store(event)) is not False for event in events])

    @abstractmethod
    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        """Up to `limit` events that match, after skipping `offset` of them."""

    @abstractmethod
    async def search(
        self,
        text: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        """Events whose data has words of a text, those with more of them first."""

    @abstractmethod
    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        """Statistics of the events that match."""

    @abstractmethod
    async def clear(self, filters: Filters | None = None, **fields: Unpack[FilterFields]) -> int:
        """Deletes the events that match; without arguments all events. How many."""

    async def close(self) -> None:  # noqa: B027  # a store may have nothing to do
        """Releases resources; called after all other methods."""

    async def iterate(
        self,
        filters: Filters | None = None,
        *,
        batch: int = BATCH,
        **fields: Unpack[FilterFields],
    ) -> AsyncIterator[list[AgentEvent]]:
        """All events that match, the oldest first, in batches."""
        check_counts(batch=batch)
        filters = Filters.of(filters, **fields)
        offset = 0
        while events := await self.retrieve(filters, limit=batch, offset=offset, oldest_first=True):
            yield events
            offset += len(events)

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        """The store's own copies of those of these events that it has, by id, in any order.

        This one reads all events of the time of these ones, and so misses a copy that has another
        time: a store that finds events by their ids should have its own."""
        wanted = {event.event_id for event in events}
        if not wanted:
            return []
        first, last = (find(event.timestamp for event in events) for find in (min, max))
        end = None if last == _LAST else last + timedelta(microseconds=1)
        pages = self.iterate(start_time=first, end_time=end)
        return [event async for page in pages for event in page if event.event_id in wanted]


def check_counts(**counts: int | None) -> None:
    """Raises QueryError for a limit, offset or batch that is none; None is no limit."""
    given: dict[str, object] = {**counts}
    for name, count in given.items():
        least = int(name == "batch")
        if count is not None and (not isinstance(count, int) or count < least):
            raise QueryError(f"{name} must be an int of at least {least}, not {count!r}")


def error_rate(stats: Stats) -> float:
    """The share of AGENT_ERROR among all events; 0 for an empty store."""
    errors = stats["by_type"].get(EventType.AGENT_ERROR.name, 0)
    return errors / stats["total_events"] if stats["total_events"] else 0.0
