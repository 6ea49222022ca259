"""The contract of a store of events, as a class of tests to inherit:

    class TestMyStore(EventStoreContract):
        def make(self) -> EventStore:
            return MyStore(...)

pytest runs the methods; this module does not import it. `make` returns an empty store.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from amberdb.events.event import AgentEvent, EventType
from amberdb.events.in_memory import InMemoryEventStore
from amberdb.events.store import EventStore, Filters, error_rate
from amberdb.events.upkeep import migrate

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
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


class EventStoreContract(ABC):
    """Subclass it, and implement make()."""

    @abstractmethod
    def make(self) -> EventStore:
        """A new, empty store."""

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

    def test_what_is_stored_comes_back_equal(self) -> None:
        async def work(store: EventStore) -> None:
            one = event(0, data={"x": [1, 2.5, None, True], "text": "\u5f15\u7528 ' \n"})
            assert await store.store(one)
            assert await store.retrieve() == [one]

        self.run(work)

    def test_an_event_stored_twice_is_there_once(self) -> None:
        async def work(store: EventStore) -> None:
            await store.store(event(1))
            assert len(await store.retrieve()) == 3
            assert (await store.get_stats())["total_events"] == 3

        self.run(work, 3)

    def test_the_latest_come_first_and_pages_meet_each_once(self) -> None:
        async def work(store: EventStore) -> None:
            found = await store.retrieve(limit=3)
            assert [each.event_id for each in found] == ["evt_9", "evt_8", "evt_7"]
            found = await store.retrieve(limit=4, offset=8)
            assert [each.event_id for each in found] == ["evt_1", "evt_0"]
            found = await store.retrieve(limit=2, oldest_first=True)
            assert [each.event_id for each in found] == ["evt_0", "evt_1"]
            pages = [[each.event_id for each in page] async for page in store.iterate(batch=4)]
            assert pages == [
                ["evt_0", "evt_1", "evt_2", "evt_3"],
                ["evt_4", "evt_5", "evt_6", "evt_7"],
                ["evt_8", "evt_9"],
            ]

        self.run(work, 10)

    def test_filters(self) -> None:
        async def work(store: EventStore) -> None:
            async def numbers(**filters: Any) -> set[int]:
                found = await store.retrieve(Filters(**filters), limit=None)
                return {int(each.event_id.removeprefix("evt_")) for each in found}

            assert await numbers(event_type=EventType.USER_MESSAGE) == {0, 3, 6, 9}
            assert await numbers(session_id="session/1") == {1, 3, 5, 7, 9}
            assert await numbers(agent_name="agent0") == {0, 2, 4, 6, 8}
            since, until = START + timedelta(minutes=3), START + timedelta(minutes=6)
            assert await numbers(start_time=since) == {3, 4, 5, 6, 7, 8, 9}
            assert await numbers(start_time=since, end_time=until) == {3, 4, 5}
            both = {"session_id": "session/0", "event_type": EventType.USER_MESSAGE}
            assert await numbers(**both, end_time=until) == {0}
            assert await numbers(session_id="another") == set()

        self.run(work, 10)

    def test_filters_as_arguments_and_types_as_text(self) -> None:
        async def work(store: EventStore) -> None:
            since, until = START + timedelta(minutes=3), START + timedelta(minutes=6)
            found = await store.retrieve(start_time=since, end_time=until, limit=50)
            assert [each.event_id for each in found] == ["evt_5", "evt_4", "evt_3"]
            for kind in ("user_message", "USER_MESSAGE", EventType.USER_MESSAGE):
                found = await store.retrieve(event_type=kind, agent_name="agent1")
                assert [each.event_id for each in found] == ["evt_9", "evt_3"]
            both = await store.retrieve(Filters(session_id="session/1"), start_time=since, limit=2)
            assert [each.event_id for each in both] == ["evt_9", "evt_7"]
            assert (await store.get_stats(session_id="session/1"))["total_events"] == 5
            assert len(await store.search("calculator", agent_name="agent0", end_time=until)) == 3
            pages = [page async for page in store.iterate(batch=2, event_type="user_message")]
            assert [[each.event_id for each in page] for page in pages] == [
                ["evt_0", "evt_3"],
                ["evt_6", "evt_9"],
            ]
            assert await store.clear(agent_name="agent0", end_time=until) == 3
            assert (await store.get_stats())["total_events"] == 7

        self.run(work, 10)

    def test_the_order_is_that_of_storing_whatever_the_clock_says(self) -> None:
        async def work(store: EventStore) -> None:
            ids: list[str] = []
            for minutes in (5, 5, -60, -60, 3):  # equal times, and a clock that is set back
                for session in ("a", "b"):
                    at = START + timedelta(minutes=minutes)
                    ids.append(f"evt_{len(ids)}")
                    await store.store(event(0, event_id=ids[-1], session_id=session, timestamp=at))
            assert [each.event_id for each in await store.retrieve(oldest_first=True)] == ids
            assert [each.event_id for each in await store.retrieve(limit=3)] == ids[:-4:-1]
            of_one = await store.retrieve(session_id="b")
            assert [each.event_id for each in of_one] == ids[::-2]
            pages = [page async for page in store.iterate(batch=3)]
            assert [each.event_id for page in pages for each in page] == ids
            stats = await store.get_stats()
            assert stats["first_event"] == START - timedelta(minutes=60)
            assert stats["last_event"] == START + timedelta(minutes=5)
            await store.store(event(0, event_id="evt_2", data={"stored": "again"}))
            newest, oldest = await store.retrieve(), await store.retrieve(oldest_first=True)
            assert newest == oldest[::-1]
            assert (newest[0].event_id, newest[0].data) == ("evt_2", {"stored": "again"})

        self.run(work)

    def test_search_finds_words_in_the_data(self) -> None:
        async def work(store: EventStore) -> None:
            texts = {
                "open": "the umbrella is open",
                "cafe": "two umbrellas stood in the Caf\u00e9",
                "zh": "\u6211\u4eec\u4e0b\u5348\u5f00\u4f1a",
            }
            for name, text in texts.items():
                await store.store(event(0, event_id=name, data={"result": [{"text": text}]}))

            async def found(text: str, **more: Any) -> set[str]:
                return {each.event_id for each in await store.search(text, **more)}

            # Any of the words, in any form of them; a part of a word is none.
            assert await found("Umbrella") == {"open", "cafe"}
            assert await found("umbrella nowhere") == {"open", "cafe"}
            assert await found("where is the open one?") == {"open"}
            assert await found("cafe") == {"cafe"}
            assert await found("umb") == set()
            assert await found("\u5f00\u4f1a") == {"zh"}
            (best, second) = await store.search("the umbrellas of a cafe", limit=2)
            assert (best.event_id, second.event_id) == ("cafe", "open")
            assert len(await store.search("calculator", limit=3)) == 3
            assert len(await store.search("deep", limit=10)) == 5
            in_one = await store.search("calculator", Filters(session_id="session/1"))
            assert {each.session_id for each in in_one} == {"session/1"}
            for nothing in ("nowhere", "", " \n", "?!"):
                assert await store.search(nothing) == []

        self.run(work, 5)

    def test_what_no_store_holds_is_stored_in_another_form(self) -> None:
        async def work(store: EventStore) -> None:
            one = event(
                0,
                session_id="half \ud83d of an emoji",
                data={1: Decimal("1.5"), "big": 1 << 80, "nan": float("nan"), "set": {"b", "a"}},
            )
            assert await store.store(one)
            assert await store.retrieve() == [one]
            assert one.data == {"1": "1.5", "big": str(1 << 80), "nan": None, "set": ["a", "b"]}
            assert await store.retrieve(session_id=one.session_id) == [one]

        self.run(work)

    def test_ids_that_look_alike_are_apart(self) -> None:
        async def work(store: EventStore) -> None:
            ids = ["e\u0301", "\u00e9", "A", "a", "a ", "", ".", "a.b", "*", "\u4f1a" * 200]
            for session_id in ids:
                await store.store(
                    event(0, event_id=f"evt {session_id}"[:100], session_id=session_id)
                )
            for session_id in ids:
                found = await store.retrieve(session_id=session_id)
                assert [each.session_id for each in found] == [session_id]
                assert await store.clear(session_id=session_id) == 1

        self.run(work)

    def test_statistics(self) -> None:
        async def work(store: EventStore) -> None:
            await store.store(event(10, event_type=EventType.AGENT_ERROR))
            stats = await store.get_stats()
            assert stats == {
                "total_events": 11,
                "by_type": {
                    "USER_MESSAGE": 4,
                    "MODEL_RESPONSE": 3,
                    "TOOL_CALL_START": 3,
                    "AGENT_ERROR": 1,
                },
                "first_event": START,
                "last_event": START + timedelta(minutes=10),
            }
            assert error_rate(stats) == 1 / 11
            of_one = await store.get_stats(Filters(session_id="session/1"))
            assert of_one["total_events"] == 5

        self.run(work, 10)

    def test_an_empty_store(self) -> None:
        async def work(store: EventStore) -> None:
            assert await store.retrieve() == []
            stats = await store.get_stats()
            assert stats["total_events"] == 0
            assert stats["first_event"] is stats["last_event"] is None
            assert error_rate(stats) == 0
            assert await store.clear() == 0

        self.run(work)

    def test_clearing_a_session_by_age_and_everything(self) -> None:
        async def work(store: EventStore) -> None:
            end = START + timedelta(minutes=4)
            assert await store.clear(session_id="session/1", end_time=end) == 2
            assert await store.clear(session_id="session/1") == 3
            left = await store.retrieve()
            assert {each.session_id for each in left} == {"session/0"}
            assert await store.clear(end_time=end) == 2
            assert await store.clear() == 3
            assert await store.retrieve() == []

        self.run(work, 10)

    def test_events_move_there_and_back(self) -> None:
        async def work(store: EventStore) -> None:
            other = InMemoryEventStore()
            there = await migrate(store, other, batch=7)
            assert (there.found, there.stored, there.verified) == (20, 20, 20)
            before = await store.retrieve(limit=None)
            await store.clear()
            back = await migrate(other, store, batch=7)
            assert (back.found, back.stored, back.verified) == (20, 20, 20)
            await migrate(other, store, batch=7)
            assert await store.retrieve(limit=None) == before

        self.run(work, 20)

    def test_many_at_once(self) -> None:
        async def work(store: EventStore) -> None:
            await asyncio.gather(*(store.store(event(number)) for number in range(60)))
            assert (await store.get_stats())["total_events"] == 60

        self.run(work)
