"""The contract of a store of events, as a class of tests to inherit:

    class TestMyStore(EventStoreContract):
        def make(self) -> EventStore:
            return MyStore(...)

pytest runs the methods; this module does not import it. `make` returns an empty store.
"""

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from amberdb import QueryError
from amberdb.events.contract_base import START, assert_same, event, ids
from amberdb.events.contract_values import ValuesContract
from amberdb.events.event import EventType
from amberdb.events.in_memory import InMemoryEventStore
from amberdb.events.store import EventStore, Filters, error_rate
from amberdb.events.upkeep import migrate

__all__ = ["START", "EventStoreContract", "event"]


class EventStoreContract(ValuesContract):
    """Subclass it, and implement make(); make_other() too, if two store objects can have the same
    data, and maker() if other processes can. Tests that need them are empty without them."""

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

    def test_events_of_one_microsecond_keep_one_order_over_pages(self) -> None:
        async def work(store: EventStore) -> None:
            wanted = [f"evt_{n * 7 % 20}" for n in range(20)]
            await store.store_many([event(0, event_id=each) for each in wanted[:15]])
            for each in wanted[15:]:
                await store.store(event(0, event_id=each))
            for size in (1, 3, 7, 20, 21):
                pages = [page async for page in store.iterate(batch=size)]
                assert [each for page in pages for each in ids(page)] == wanted
                assert max(map(len, pages)) <= size
                for oldest_first in (True, False):
                    found: list[str] = []
                    for offset in range(0, 22, size):
                        page = await store.retrieve(
                            limit=size, offset=offset, oldest_first=oldest_first, start_time=START
                        )
                        found += ids(page)
                    assert found == (wanted if oldest_first else wanted[::-1])

        self.run(work)

    def test_an_offset_without_a_limit_and_a_limit_of_nothing(self) -> None:
        async def work(store: EventStore) -> None:
            assert ids(await store.retrieve(limit=None, offset=7)) == ["evt_2", "evt_1", "evt_0"]
            found = await store.retrieve(limit=None, offset=8, oldest_first=True)
            assert ids(found) == ["evt_8", "evt_9"]
            for offset in (0, 3, 10, 1000):
                assert await store.retrieve(limit=0, offset=offset) == []
            for limit in (None, 1, 1000):
                assert await store.retrieve(limit=limit, offset=10) == []
            assert await store.search("calculator", limit=0) == []
            assert [page async for page in store.iterate(session_id="another")] == []

        self.run(work, 10)

    def test_a_limit_that_is_none_is_refused(self) -> None:
        async def work(store: EventStore) -> None:
            wrong: list[Any] = [-1, 2.5, "3"]
            for number in wrong:
                await _assert_refused(store.retrieve(limit=number))
                await _assert_refused(store.retrieve(offset=number))
                await _assert_refused(store.search("calculator", limit=number))
            for number in (*wrong, 0):
                await _assert_refused(anext(aiter(store.iterate(batch=number))))
            assert len(await store.retrieve(limit=1 << 31)) == 3

        self.run(work, 3)

    def test_an_event_stored_again_is_found_by_its_new_values_alone(self) -> None:
        async def work(store: EventStore) -> None:
            old = event(0, data={"text": "before"})
            changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
                ({"session_id": old.session_id}, {"session_id": "another"}),
                ({"agent_name": old.agent_name}, {"agent_name": "another"}),
                ({"event_type": old.event_type}, {"event_type": EventType.CUSTOM}),
                (
                    {"end_time": START + timedelta(hours=1)},
                    {"timestamp": START + timedelta(days=1)},
                ),
            ]
            for old_filters, change in changes:
                await store.store(old)
                await store.store(event(0, data={"text": "after"}, **change))
                assert await store.retrieve(**old_filters) == []
                assert await store.retrieve(**old_filters, oldest_first=True) == []
                assert await store.search("before after", **old_filters) == []
                assert (await store.get_stats(**old_filters))["total_events"] == 0
                assert [page async for page in store.iterate(**old_filters)] == []
                assert await store.search("before") == []
                assert ids(await store.search("after")) == ["evt_0"]
                assert await store.clear(**old_filters) == 0
                assert ids(await store.retrieve()) == ["evt_0"]
                await store.store(old)
                await store.store(event(0, **change))
                assert await store.clear(**_filters_of(change)) == 1
                assert await store.retrieve() == [], "the older copy is not there again"

        self.run(work)

    def test_an_event_twice_in_one_call_is_there_once_as_it_was_last(self) -> None:
        async def work(store: EventStore) -> None:
            last = event(0, data={"stored": "again"})
            assert await store.store_many([event(0), event(1), last, event(2)]) == 4
            assert_same(await store.retrieve(oldest_first=True), [event(1), last, event(2)])
            assert await store.store_many([]) == 0

        self.run(work)

    def test_stored_copies_are_found_by_id(self) -> None:
        async def work(store: EventStore) -> None:
            assert await store.stored([]) == []
            assert await store.stored([event(1)]) == []
            events = [event(n) for n in range(1500)]
            await store.store_many(events[::2])
            for n in (0, 2, 4):  # other copies of them: in data, in session, in agent
                events[n] = event(n, data={}, session_id=f"s{n}", agent_name=f"a{n}")
                await store.store(events[n])
            asked = [event(n) for n in range(1500)]
            found = await store.stored(asked)
            by_id = {each.event_id: each for each in found}
            assert len(by_id) == len(found) == 750
            assert_same([by_id[each.event_id] for each in events[::2]], events[::2])
            await store.clear(session_id="s2")
            assert ids(await store.stored([event(2), event(3), event(4)])) == ["evt_4"]

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

    def test_two_chinese_characters_are_found_where_they_are_neighbors(self) -> None:
        async def work(store: EventStore) -> None:
            data: dict[str, dict[str, Any]] = {
                "whole": {"text": "\u6211\u4eec\u4e0b\u5348\u5f00\u4f1a"},
                "comma": {"text": "\u4e0b\u5348\uff0c\u5f00\u4f1a"},
                "fields": {"a": "\u5348", "b": ["\u5f00", {"c": "\u5348 \u5f00"}]},
                "mixed": {"text": "\u7528Python\u5199\u4ee3\u7801 for the \u5f00\u4f1a2026"},
            }
            for name, each in data.items():
                await store.store(event(0, event_id=name, data=each))

            async def found(text: str) -> set[str]:
                return set(ids(await store.search(text)))

            assert await found("\u4e0b\u5348") == {"whole", "comma"}
            assert await found("\u5f00\u4f1a") == {"whole", "comma", "mixed"}
            # Neighbors in a text without a break are a pair, also across the border of two words;
            # with a comma, white space or a field between them they are none.
            assert await found("\u5348\u5f00") == {"whole"}
            assert await found("\u4f1a\u5f00") == await found("\u5348\u4f1a") == set()
            assert await found("\u5f00\u4f1a \u4e0b\u5348") == {"whole", "comma", "mixed"}
            assert await found("python") == await found("\u4ee3\u7801") == {"mixed"}
            assert await found("\u5199python") == {"mixed"}
            assert await found("Python\u4e0b\u5348") == {"whole", "comma", "mixed"}
            assert await found("2026") == {"mixed"}

        self.run(work)

    def test_search_reaches_words_at_any_depth_and_in_no_key(self) -> None:
        async def work(store: EventStore) -> None:
            deep: Any = ["umbrella", 5, None]
            for _ in range(20):
                deep = {"harbor": [deep]}
            await store.store(event(0, data=deep, metadata={"lantern": "lantern"}))
            assert ids(await store.search("umbrella")) == ["evt_0"]
            for nothing in ("harbor", "lantern", "5", "None", "agent0", "evt_0"):
                assert await store.search(nothing) == []

        self.run(work)

    def test_no_text_that_is_searched_for_is_an_error(self) -> None:
        async def work(store: EventStore) -> None:
            signs = "'\"%_*-+()[]{}~^?:&|!<>=@#$\\/;,.`"
            texts = [*signs, *(f"{sign}calculator" for sign in signs), "a\0b", "\0", "\ud83d"]
            texts += [f"calculator{sign}" for sign in signs] + ["AND", "a OR", "NOT (", "NEAR("]
            texts += ["' OR TRUE --", "data:calculator", "calculator*", '"calculator', "%calc%"]
            texts += ["calculator " * 500, "x" * 5000, "\u4f1a\u8bae" * 2500, "- " * 2500]
            texts += [" ".join(f"word{n}" for n in range(700)) + " calculator"]
            for text in texts:
                found = await store.search(text)
                assert len(found) == (5 if "calculator" in text else 0), text[:20]
            await store.store(event(9, data={"text": " ".join(texts[:-1])}))
            assert ids(await store.search("calculator", limit=50))[:6].count("evt_9") == 1
            assert ids(await store.search("near")) == ["evt_9"]

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

    def test_a_store_that_is_opened_again_has_everything(self) -> None:
        async def work(store: EventStore) -> None:
            await store.store(event(3, data={"stored": "again"}))
            await store.clear(session_id="session/0", end_time=START + timedelta(minutes=5))
            before = await store.retrieve(limit=None)
            stats = await store.get_stats()
            await store.close()
            if (other := self.make_other(store)) is None:
                return
            await other.initialize()
            try:
                assert_same(await other.retrieve(limit=None), before)
                assert await other.get_stats() == stats
                assert len(await other.search("calculator", limit=50)) == 16
                await other.store(event(100))
                assert_same(await other.retrieve(limit=None), [event(100), *before])
            finally:
                await other.close()

        self.run(work, 20)

    def test_two_stores_on_the_same_data_see_each_other(self) -> None:
        async def work(store: EventStore) -> None:
            if (other := self.make_other(store)) is None:
                return
            await other.initialize()
            try:
                for n in range(0, 20, 2):
                    await store.store(event(n))
                    await other.store(event(n + 1))
                wanted = [event(n) for n in range(20)]
                for each in (store, other):
                    assert_same(await each.retrieve(oldest_first=True), wanted)
                    assert (await each.get_stats())["total_events"] == 20
                assert await other.clear(session_id="session/0") == 10
                assert len(await store.retrieve()) == 10
                assert await store.clear() == 10
                assert await other.retrieve() == []
            finally:
                await other.close()

        self.run(work)

    def test_two_processes_lose_nothing(self) -> None:
        async def work(store: EventStore) -> None:
            if (make := self.maker(store)) is None:
                return
            spawn = multiprocessing.get_context("spawn")
            barrier = spawn.Barrier(2)
            children = [
                spawn.Process(target=_store_500, args=(make, first, barrier)) for first in (0, 250)
            ]
            for child in children:
                child.start()
            for child in children:
                await asyncio.to_thread(child.join, 120)
            assert [child.exitcode for child in children] == [0, 0]
            found = await store.retrieve(limit=None)
            assert sorted(ids(found)) == sorted(f"evt_{n}" for n in range(750))
            pages = [page async for page in store.iterate(batch=99)]
            assert [each for page in pages for each in ids(page)] == ids(found)[::-1]
            assert (await store.get_stats())["total_events"] == 750

        self.run(work)

    def test_two_event_loops_in_two_threads_lose_nothing(self) -> None:
        async def work(store: EventStore) -> None:
            stores = [self.make_other(store), self.make_other(store)]
            if None in stores:
                return
            loops = [
                _Loop(each, first) for each, first in zip(stores, (0, 100), strict=True) if each
            ]
            for loop in loops:
                loop.start()
            for loop in loops:
                await asyncio.to_thread(loop.join)
            assert [loop.error for loop in loops] == [None, None]
            found = await store.retrieve(limit=None)
            assert sorted(ids(found)) == sorted(f"evt_{n}" for n in range(200))
            by_id = {each.event_id: each for each in found}
            assert_same([by_id[f"evt_{n}"] for n in range(200)], [event(n) for n in range(200)])
            pages = [page async for page in store.iterate(batch=9)]
            assert [each for page in pages for each in ids(page)] == ids(found)[::-1]
            assert (await store.get_stats())["total_events"] == 200

        self.run(work)


async def _assert_refused(call: Awaitable[object]) -> None:
    try:
        await call
    except QueryError:
        return
    raise AssertionError("a limit that is none was taken")


def _store_500(make: Callable[[], EventStore], first: int, barrier: Any) -> None:
    """A process that stores 500 events, half of them in batches; another one stores some of them
    at the same time, and both make the tables, if there are any."""

    async def work() -> None:
        store = make()
        await store.initialize()
        try:
            for start in range(first, first + 500, 10):
                some = [event(n) for n in range(start, start + 10)]
                assert await store.store_many(some[::-2]) == 5
                for each in some[::2]:
                    assert await store.store(each)
        finally:
            await store.close()

    barrier.wait(60)
    asyncio.run(work())


class _Loop(threading.Thread):
    """A thread with an event loop that stores 100 events at once: one by one, and in batches."""

    def __init__(self, store: EventStore, first: int) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._events = [event(first + n) for n in range(100)]
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # the test raises it
            self.error = error

    async def _work(self) -> None:
        await self._store.initialize()
        try:
            calls = [[each] for each in self._events[:50]]
            calls += [self._events[at : at + 10] for at in range(50, 100, 10)]
            stored = await asyncio.gather(*map(self._store.store_many, calls))
            assert sum(stored) == 100
        finally:
            await self._store.close()


def _filters_of(change: dict[str, Any]) -> dict[str, Any]:
    """A filter that the changed event matches."""
    if (moment := change.get("timestamp")) is not None:
        return {"start_time": moment}
    return change
