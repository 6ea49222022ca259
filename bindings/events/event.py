"""Events of agents, and what a store of them is: one interface, several stores behind it.

Invariants:
- An event is known by its id: stored twice, it is there once.
- Stores give the latest first, unless they are asked for the oldest; events of one moment in a
  fixed order.
- Times are aware.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypedDict, cast, final
from uuid import uuid4

from amberdb import Document, InvalidDocumentError

logger = logging.getLogger("amberdb.events")

BATCH: Final = 500


class EventType(StrEnum):
    """What happened. `data` of each: docs/events.md."""

    USER_MESSAGE = "user_message"
    MODEL_RESPONSE = "model_response"
    TOOL_CALL_START = "tool_call_start"
    TOOL_CALL_SUCCESS = "tool_call_success"
    TOOL_CALL_ERROR = "tool_call_error"
    AGENT_INIT = "agent_init"
    AGENT_ERROR = "agent_error"
    MIDDLEWARE_PRE = "middleware_pre"
    MIDDLEWARE_POST = "middleware_post"
    CUSTOM = "custom"


def _new_id() -> str:
    return f"evt_{uuid4().hex}"


def _now() -> datetime:
    return datetime.now(UTC)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One event. Raises InvalidDocumentError."""

    agent_name: str
    session_id: str
    event_type: EventType
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    event_id: str = field(default_factory=_new_id)
    timestamp: datetime = field(default_factory=_now)

    def __post_init__(self) -> None:
        _check(self.timestamp)
        object.__setattr__(self, "event_type", EventType(self.event_type))

    def to_map(self) -> Document:
        """As it is stored."""
        return {
            "event_id": self.event_id,
            "agent_name": self.agent_name,
            "session_id": self.session_id,
            "event_type": self.event_type.value,
            "timestamp": self.timestamp,
            "data": dict(self.data),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "AgentEvent":
        """What to_map() gave. Raises KeyError, ValueError for anything else."""
        names = ("event_id", "agent_name", "session_id", "event_type", "timestamp")
        given = {name: stored[name] for name in names}
        return cls(**given, data=stored.get("data", {}), metadata=stored.get("metadata", {}))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which events are asked for; `start_time` counts, `end_time` does not."""

    event_type: EventType | None = None
    session_id: str | None = None
    agent_name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    def matches(self, event: AgentEvent) -> bool:
        return (
            (self.event_type is None or event.event_type is self.event_type)
            and (self.session_id is None or event.session_id == self.session_id)
            and (self.agent_name is None or event.agent_name == self.agent_name)
            and (self.start_time is None or event.timestamp >= self.start_time)
            and (self.end_time is None or event.timestamp < self.end_time)
        )


class Stats(TypedDict):
    """What a store counts; types by their names, as in EventType."""

    total_events: int
    by_type: dict[str, int]
    first_event: datetime | None
    last_event: datetime | None


class EventStore(ABC):
    """To be inherited: the seven methods without a body here are enough."""

    async def initialize(self) -> None:  # noqa: B027
        """Before anything else."""

    @abstractmethod
    async def store(self, event: AgentEvent) -> bool:
        """Whether it is kept."""

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        """How many are kept."""
        return sum([await self.store(event) for event in events])

    @abstractmethod
    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]: ...

    @abstractmethod
    async def search(
        self, query: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        """Events with the words of the query in the texts of their data."""

    @abstractmethod
    async def get_stats(self, filters: Filters | None = None) -> Stats: ...

    @abstractmethod
    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        """Removes what is of the session and older than `end_time`; without both, everything. How
        many there were."""

    async def close(self) -> None:  # noqa: B027
        """After everything else."""

    async def iterate(
        self, filters: Filters | None = None, *, batch: int = BATCH
    ) -> AsyncIterator[list[AgentEvent]]:
        """All of them, the oldest first, in batches."""
        offset = 0
        while found := await self.retrieve(filters, limit=batch, offset=offset, oldest_first=True):
            yield found
            offset += len(found)


def error_rate(stats: Stats) -> float:
    """Of all events those that are an agent's error; 0 where there is none."""
    errors = stats["by_type"].get(EventType.AGENT_ERROR.name, 0)
    return errors / stats["total_events"] if stats["total_events"] else 0.0


@final
@dataclass(slots=True)
class Moved:
    """What migrate() has done so far."""

    found: int = 0
    stored: int = 0
    verified: int = 0
    """Read back from the target and found equal."""


async def migrate(
    source: EventStore,
    target: EventStore,
    *,
    batch: int = BATCH,
    progress: Callable[[Moved], None] | None = None,
) -> Moved:
    """Copies every event, and reads back what was copied. Run again after an interruption, it
    copies nothing twice. Both stores are initialized."""
    moved = Moved()
    async for events in source.iterate(batch=batch):
        moved.found += len(events)
        moved.stored += await target.store_many(events)
        last = events[-1].timestamp + timedelta(microseconds=1)
        span = Filters(start_time=events[0].timestamp, end_time=last)
        there = {each.event_id: each for each in await target.retrieve(span, limit=None)}
        moved.verified += sum(there.get(event.event_id) == event for event in events)
        if progress is not None:
            progress(moved)
    return moved


async def clean_up(
    store: EventStore,
    older_than: timedelta,
    *,
    every_s: float = 3600.0,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Any] = asyncio.sleep,
) -> None:
    """Removes what is older, now and every `every_s`, until the task is cancelled. What fails is
    logged and tried again."""
    while True:
        end = datetime.fromtimestamp(clock(), UTC) - older_than
        try:
            count = await store.clear(end_time=end)
            logger.debug("%d events from before %s were removed", count, end)
        except Exception:
            logger.exception("old events were not removed, and are tried again")
        await sleep(every_s)


def texts(value: Any) -> list[str]:
    """All text within data."""
    if isinstance(value, str):
        return [value]
    inside: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inside = cast(Mapping[str, Any], value).values()
    elif isinstance(value, list | tuple):
        inside = cast(Sequence[Any], value)
    return [text for each in inside for text in texts(each)]


def _check(timestamp: object) -> None:
    if not isinstance(timestamp, datetime) or timestamp.tzinfo is None:
        raise InvalidDocumentError(
            f"the timestamp of an event is an aware datetime, not {timestamp!r}", field="timestamp"
        )
