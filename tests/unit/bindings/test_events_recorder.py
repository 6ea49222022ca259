"""A recorder beside an agent: what it writes down, in which order, and that nothing is lost in
silence."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventsLostError,
    EventType,
    InMemoryEventStore,
    Recorder,
    recorder,
)
from support.databases import OpenDatabase


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def kinds(events: Sequence[AgentEvent]) -> list[str]:
    return [event.event_type.name for event in reversed(events)]


def test_all_that_an_agent_does_is_recorded_in_order(open_db: OpenDatabase) -> None:
    async def work() -> None:
        recorder = Recorder(AmberEventStore(open_db()), "assistant")

        @recorder.tool
        async def calculator(expression: str) -> int:
            return len(expression)

        async with recorder:
            await recorder.user_message("Hello")
            async with recorder.middleware("limits"):
                assert await calculator(expression="2+2") == 3
            with pytest.raises(ZeroDivisionError):
                async with recorder.run(), recorder.tool_call("divide", {"by": 0}):
                    raise ZeroDivisionError("by zero")
            await recorder.model_response("four", tool_calls_count=1)
            await recorder.record(EventType.CUSTOM, {"action": "login"}, metadata={"source": "web"})
            found = await recorder.get_memory()
            assert kinds(found) == [
                "AGENT_INIT",
                "USER_MESSAGE",
                "MIDDLEWARE_PRE",
                "TOOL_CALL_START",
                "TOOL_CALL_SUCCESS",
                "MIDDLEWARE_POST",
                "TOOL_CALL_START",
                "TOOL_CALL_ERROR",
                "AGENT_ERROR",
                "MODEL_RESPONSE",
                "CUSTOM",
            ]
            (message,) = await recorder.get_memory(event_type=EventType.USER_MESSAGE)
            assert message.data == {"message": "Hello", "message_length": 5}
            (result,) = await recorder.get_memory(event_type=EventType.TOOL_CALL_SUCCESS)
            assert result.data == {"tool_name": "calculator", "result": 3}
            (error,) = await recorder.get_memory(event_type=EventType.TOOL_CALL_ERROR)
            assert error.data["error_type"] == "ZeroDivisionError"
            assert len(await recorder.search_memory("calculator")) == 2
            stats = await recorder.get_memory_stats()
            assert (stats["total_events"], stats["by_type"]["AGENT_ERROR"]) == (11, 1)

    run(work)


def test_sessions_are_apart() -> None:
    async def work() -> None:
        store = InMemoryEventStore()
        async with Recorder(store, "assistant") as recorder:
            first = recorder.session_id
            await recorder.user_message("one")
            second = recorder.reset_context()
            await recorder.user_message("two")
            (event,) = await recorder.get_memory(session_id=second)
            assert event.data["message"] == "two"
            assert await recorder.clear_memory(session_id=first) == 2
            assert len(await recorder.get_memory()) == 1
            assert await recorder.clear_memory() == 1

    run(work)


def test_memory_that_is_turned_off_records_nothing() -> None:
    async def work() -> None:
        store = InMemoryEventStore()
        async with Recorder(store, "assistant", enable_memory=False) as recorder:
            await recorder.user_message("secret")
            assert recorder.record_nowait(EventType.CUSTOM)
            assert await recorder.get_memory() == []
        assert await store.retrieve() == []

    run(work)


def test_a_full_queue_waits_or_says_so() -> None:
    async def work() -> None:
        store = InMemoryEventStore()
        recorder = Recorder(store, "assistant", queue_size=2)
        # Not initialized: nobody takes anything out.
        assert recorder.record_nowait(EventType.CUSTOM, {"n": 0})
        assert recorder.record_nowait(EventType.CUSTOM, {"n": 1})
        assert not recorder.record_nowait(EventType.CUSTOM, {"n": 2})
        assert recorder.dropped == 1
        waits = asyncio.create_task(recorder.record(EventType.CUSTOM, {"n": 3}))
        await asyncio.sleep(0)
        assert not waits.done()
        await recorder.initialize()
        await waits
        await recorder.close()
        found = await store.retrieve(oldest_first=True)
        numbers = [each.data["n"] for each in found if "n" in each.data]
        assert numbers == [0, 1, 3]

    run(work)


class Failing:
    """A store_many() that fails until it is mended."""

    def __init__(self, store: InMemoryEventStore) -> None:
        self.is_down = True
        self.failed = asyncio.Event()
        self._store_many = store.store_many

    async def __call__(self, events: Sequence[AgentEvent]) -> int:
        if self.is_down:
            self.failed.set()
            raise ConnectionError("the store is not there")
        return await self._store_many(events)


def test_a_store_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PAUSE_S", 0.001)

    async def work() -> None:
        store = InMemoryEventStore()
        failing = Failing(store)
        monkeypatch.setattr(store, "store_many", failing)
        async with Recorder(store, "assistant") as recorder:
            for number in range(250):
                await recorder.user_message(str(number))
            await failing.failed.wait()
            failing.is_down = False
            found = await recorder.get_memory(event_type=EventType.USER_MESSAGE, limit=None)
            assert [each.data["message"] for each in reversed(found)] == list(map(str, range(250)))

    run(work)


def test_a_store_that_fails_is_asked_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    rest = asyncio.sleep

    async def work() -> None:
        store = InMemoryEventStore()
        failing = Failing(store)
        monkeypatch.setattr(store, "store_many", failing)

        async def sleep(pause_s: float) -> None:
            pauses.append(pause_s)
            failing.is_down = len(pauses) % 12 != 0
            await rest(0)

        monkeypatch.setattr("amberdb.events.recorder.asyncio.sleep", sleep)
        async with Recorder(store, "assistant") as recorder:
            await recorder.flush()
            failing.is_down = True
            await recorder.user_message("after it was mended")
            await recorder.flush()

    run(work)
    grown = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]
    assert pauses == pytest.approx([*grown, *grown])


def test_what_cannot_be_stored_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "CLOSE_S", 0.01)

    async def work() -> None:
        store = InMemoryEventStore()
        monkeypatch.setattr(store, "store_many", Failing(store))
        recorder = Recorder(store, "assistant")
        await recorder.initialize()
        await recorder.user_message("lost")
        with pytest.raises(EventsLostError, match="2 events"):
            await recorder.close()

    run(work)


@pytest.mark.parametrize("broken", ["cut \ud83d", {1: 2}, "x" * 50_000, object()], ids=range(4))
def test_an_event_that_cannot_be_stored_delays_no_other(open_db: OpenDatabase, broken: Any) -> None:
    db = open_db(document_bytes_max=30_000)

    async def work() -> None:
        async with Recorder(AmberEventStore(db), "assistant") as recorder:
            await recorder.record(EventType.CUSTOM, {"value": broken})
            for n in range(5):
                await recorder.user_message(f"good {n}")
            found = await asyncio.wait_for(recorder.get_memory(), 60)
            good = [e.data["message"] for e in found if e.event_type is EventType.USER_MESSAGE]
            assert good == [f"good {n}" for n in reversed(range(5))]
            (bad,) = [e for e in found if e.event_type is EventType.CUSTOM]
            assert bad.data["text"] == ascii({"value": broken})[: len(bad.data["text"])]
            assert bad.data["error"]
            assert [e.event_type.name for e in found][-2:] == ["CUSTOM", "AGENT_INIT"]

    run(work)


def test_an_event_that_is_refused_as_text_too_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryEventStore()
    store_many = store.store_many

    async def refuses(events: Sequence[AgentEvent]) -> int:
        if any(event.event_type is EventType.CUSTOM for event in events):
            raise ValueError("not these")
        return await store_many(events)

    monkeypatch.setattr(store, "store_many", refuses)

    async def work() -> None:
        recorder = Recorder(store, "assistant")
        await recorder.initialize()
        await recorder.record(EventType.CUSTOM)
        await recorder.user_message("good")
        assert len(await recorder.get_memory()) == 2
        with pytest.raises(EventsLostError) as caught:
            await recorder.close()
        assert caught.value.count == recorder.refused == 1

    run(work)
