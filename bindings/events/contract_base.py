"""What the tests of the contract of a store of events are made of: events, and a store to run with.

Invariants:
- pytest runs the tests; this module does not import it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from amberdb._shared.equality import equal_in_type
from amberdb.events.event import AgentEvent, EventType
from amberdb.events.store import EventStore

START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_T = TypeVar("_T")


def event(number: int, **changes: Any) -> AgentEvent:
    """An event of these tests: one a minute, of three types, two sessions and two agents."""
    fields: dict[str, Any] = {
        "event_id": f"evt_{number}",
        "agent_name": f"agent{number % 2}",
        "session_id": f"session/{number % 2}",
        "event_type": list(EventType)[number % 3],
        "timestamp": START + timedelta(minutes=number),
        "data": {
            "message": f"\u7b2c{number}\u4e2a calculator",
            "nested": {"list": ["deep words", number]},
        },
        "metadata": {"source": "web"},
    }
    return AgentEvent(**{**fields, **changes})


def ids(events: Sequence[AgentEvent]) -> list[str]:
    """The ids of events, in their order."""
    return [each.event_id for each in events]


def assert_same(found: Sequence[AgentEvent], wanted: Sequence[AgentEvent]) -> None:
    """The same events in the same order, with values of the same types."""
    assert ids(found) == ids(wanted)
    for one, other in zip(found, wanted, strict=True):
        for name, value in other.to_map().items():
            got = one.to_map()[name]
            assert equal_in_type(got, value), f"{name} of {one.event_id!r}: {got!r} != {value!r}"


class StoreContract(ABC):
    """The stores that tests run with."""

    @abstractmethod
    def make(self) -> EventStore:
        """A new, empty store."""

    def make_other(self, store: EventStore) -> EventStore | None:
        """Another store object on the data of a store that make() made, which may be closed by
        now; None where there is none, as in memory. It is initialized and closed by the test."""
        return None

    def maker(self, store: EventStore) -> Callable[[], EventStore] | None:
        """What another process calls for a store on the same data: it can be pickled. None where
        one process has the data."""
        return None

    def run(self, work: Callable[[EventStore], Awaitable[_T]], count: int = 0) -> _T:
        """Runs `work` with a store that has `count` events; its result."""

        async def whole() -> _T:
            store = self.make()
            await store.initialize()
            try:
                assert await store.store_many([event(number) for number in range(count)]) == count
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(whole())
