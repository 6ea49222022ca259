"""The interface of a store of events, its filters and its statistics.

Invariants:
- An event is identified by its id: stored twice, it is returned once.
- Stores return the newest events first, unless `oldest_first` is set. Events with the same
  timestamp have a fixed order.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, final

from amberdb._shared.queries import having
from amberdb.events.event import AgentEvent, EventType, event_type_of

BATCH: Final = 500


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions on events: equal fields, and `start_time <= timestamp < end_time`. Raises
    InvalidDocumentError, QueryError."""

    event_type: EventType | None = None
    session_id: str | None = None
    agent_name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    def __post_init__(self) -> None:
        if self.event_type is not None:
            object.__setattr__(self, "event_type", event_type_of(self.event_type))
        having(session_id=self.session_id, agent_name=self.agent_name)  # raises

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
    """Statistics of a store. `by_type` has the names of EventType as keys."""

    total_events: int
    by_type: dict[str, int]
    first_event: datetime | None
    last_event: datetime | None


class EventStore(ABC):
    """The base of stores. A subclass implements the abstract methods."""

    async def initialize(self) -> None:  # noqa: B027  # a store may have nothing to do
        """Prepares the store; called before any other method."""

    @abstractmethod
    async def store(self, event: AgentEvent) -> bool:
        """Stores an event; whether it was stored."""

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        """Stores events; how many were stored."""
        return sum([await self.store(event) for event in events])

    @abstractmethod
    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]:
        """Up to `limit` events that match, after skipping `offset` of them."""

    @abstractmethod
    async def search(
        self, text: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        """Events whose data contains the words of a text; none when it has no word."""

    @abstractmethod
    async def get_stats(self, filters: Filters | None = None) -> Stats:
        """Statistics of the events that match."""

    @abstractmethod
    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        """Deletes the events of a session, older than `end_time`, or both; without arguments all
        events. How many."""

    async def close(self) -> None:  # noqa: B027  # a store may have nothing to do
        """Releases resources; called after all other methods."""

    async def iterate(
        self, filters: Filters | None = None, *, batch: int = BATCH
    ) -> AsyncIterator[list[AgentEvent]]:
        """All events that match, the oldest first, in batches."""
        offset = 0
        while events := await self.retrieve(filters, limit=batch, offset=offset, oldest_first=True):
            yield events
            offset += len(events)


def error_rate(stats: Stats) -> float:
    """The share of AGENT_ERROR among all events; 0 for an empty store."""
    errors = stats["by_type"].get(EventType.AGENT_ERROR.name, 0)
    return errors / stats["total_events"] if stats["total_events"] else 0.0
