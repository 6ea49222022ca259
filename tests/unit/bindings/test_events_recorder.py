"""A recorder beside an agent: what it writes down, in which order, and that nothing is lost in
silence."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from amberdb import ClosedError, InvalidDocumentError
from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventsLostError,
    EventsPendingError,
    EventType,
    InMemoryEventStore,
    Recorder,
    queue,
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
    monkeypatch.setattr(queue, "PAUSE_S", 0.001)

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

        monkeypatch.setattr("amberdb.events.queue.asyncio.sleep", sleep)
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


@pytest.mark.parametrize(
    ("broken", "stored"),
    [
        ("cut \ud83d", "cut \ufffd"),
        ({1: Decimal("0.10"), "at": datetime(2026, 3, 1)}, None),
        ([1 << 70, float("nan"), {3, 1, 2}, Path("/tmp")], [str(1 << 70), None, [1, 2, 3], "/tmp"]),
        (UUID(int=5), str(UUID(int=5))),
    ],
    ids=range(4),
)
def test_what_cannot_be_stored_is_made_storable(
    open_db: OpenDatabase, broken: Any, stored: Any
) -> None:
    async def work() -> None:
        async with Recorder(AmberEventStore(open_db()), "assistant") as recorder:
            await recorder.record(EventType.CUSTOM, {"value": broken})
            (event,) = await recorder.get_memory(event_type="custom")
            if stored is None:
                assert event.data["value"] == {"1": "0.10", "at": datetime(2026, 3, 1, tzinfo=UTC)}
            else:
                assert event.data["value"] == stored

    run(work)


def test_what_no_form_makes_storable_is_refused_by_field() -> None:
    async def work() -> None:
        async with Recorder(InMemoryEventStore(), "assistant") as recorder:
            no_map: Any = ["a list"]
            wrong_calls: dict[str, Callable[[], Any]] = {
                "event_type": lambda: recorder.record("user_login"),
                "data": lambda: recorder.record("custom", no_map),
                "metadata": lambda: recorder.record("custom", metadata=no_map),
            }
            for name, wrong in wrong_calls.items():
                with pytest.raises(InvalidDocumentError) as caught:
                    await wrong()
                assert caught.value.field == name
            assert len(await recorder.get_memory()) == 1

    run(work)


def test_an_event_that_cannot_be_stored_delays_no_other(
    open_db: OpenDatabase,
) -> None:
    db = open_db(document_bytes_max=30_000)

    async def work() -> None:
        async with Recorder(AmberEventStore(db), "assistant") as recorder:
            await recorder.record(EventType.CUSTOM, {"value": "x" * 50_000})
            for n in range(5):
                await recorder.user_message(f"good {n}")
            found = await recorder.get_memory()
            good = [e.data["message"] for e in found if e.event_type is EventType.USER_MESSAGE]
            assert good == [f"good {n}" for n in reversed(range(5))]
            (bad,) = [e for e in found if e.event_type is EventType.CUSTOM]
            assert bad.data["text"].startswith("{'value': 'xxx")
            assert bad.data["error"]
            assert [e.event_type.name for e in found][-2:] == ["CUSTOM", "AGENT_INIT"]

    run(work)


class Picky(InMemoryEventStore):
    """Refuses the events with these numbers, each time, by an error of its own."""

    def __init__(self, error: Exception, *numbers: int) -> None:
        super().__init__()
        self.error = error
        self.numbers = numbers
        self.calls = 0

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        self.calls += 1
        if any(each.metadata.get("n") in self.numbers for each in events):
            raise self.error
        return await super().store_many(events)


async def hundred(recorder: Recorder) -> None:
    await recorder.flush()
    for n in range(100):
        await recorder.record("custom", {"n": n}, metadata={"n": n})


def test_a_batch_that_is_refused_is_halved_until_the_bad_event_is_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 60.0)  # it waits for nothing

    async def work() -> None:
        store = Picky(KeyError("no such column"), 17, 63)
        async with Recorder(store, "assistant") as recorder:
            before = store.calls
            await hundred(recorder)
            found = await recorder.get_memory(event_type="custom", limit=None)
            assert [each.data.get("n") for each in reversed(found)] == [
                None if n in (17, 63) else n for n in range(100)
            ]
            assert store.calls - before < 60
            assert recorder.refused == 0  # without their metadata, they were stored as text

    run(work)


def test_an_event_that_makes_a_store_fail_delays_others_for_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0.001)

    async def work() -> None:
        store = Picky(ConnectionError("it says nothing of the event"), 0, 99)
        async with Recorder(store, "assistant") as recorder:
            await hundred(recorder)
            found = await recorder.get_memory(event_type="custom", limit=None)
            assert sorted(each.data["n"] for each in found if "n" in each.data) == [*range(1, 99)]
            assert len(found) == 100

    run(work)


def test_nothing_waits_for_ever_for_a_store_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0.001)
    monkeypatch.setattr(queue, "PAUSE_MAX_S", 0.005)
    monkeypatch.setattr(queue, "WAIT_S", 0.02)
    monkeypatch.setattr(recorder, "CLOSE_S", 0.02)

    async def work() -> None:
        store = InMemoryEventStore()
        failing = Failing(store)
        monkeypatch.setattr(store, "store_many", failing)
        async with Recorder(store, "assistant", queue_size=3) as recorder:
            async with asyncio.timeout(10):
                for n in range(1000):
                    await recorder.record("custom", {"n": n})
            # The fourth has waited in vain; those after it were dropped without waiting.
            assert recorder.dropped == 997
            with pytest.raises(EventsPendingError) as caught:
                await recorder.flush(0.01)
            assert caught.value.count == 4
            with pytest.raises(EventsPendingError):
                await recorder.get_memory()
            failing.is_down = False
            monkeypatch.setattr(queue, "WAIT_S", 60.0)
            await recorder.flush()
            await recorder.record("custom", {"n": "after"})
            found = await recorder.get_memory(event_type="custom")
            assert [each.data["n"] for each in found] == ["after", 2, 1, 0]
            failing.is_down = True
            await recorder.record("custom")
            with pytest.raises(EventsLostError, match="1 events"):
                await recorder.close()
            failing.is_down = False
            await recorder.initialize()  # what was left is stored now
            assert len(await recorder.get_memory()) == 7

    run(work)


def test_a_store_that_never_answers_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "CLOSE_S", 0.02)

    class Silent(InMemoryEventStore):
        async def store_many(self, events: Sequence[AgentEvent]) -> int:
            await asyncio.Event().wait()
            return 0

    async def work() -> None:
        recorder = Recorder(Silent(), "assistant")
        await recorder.initialize()
        with pytest.raises(EventsLostError, match="1 events"):
            await recorder.close()

    run(work)


def test_a_store_that_is_cancelled_inside_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0.001)

    class Cancelled(InMemoryEventStore):
        calls = 0

        async def store_many(self, events: Sequence[AgentEvent]) -> int:
            self.calls += 1
            if self.calls == 1:
                raise asyncio.CancelledError
            return await super().store_many(events)

    async def work() -> None:
        async with Recorder(Cancelled(), "assistant") as recorder:
            await recorder.user_message("kept")
            assert len(await recorder.get_memory()) == 2

    run(work)


def test_a_store_that_keeps_fewer_than_it_was_given_is_told() -> None:
    class Short(InMemoryEventStore):
        async def store(self, event: AgentEvent) -> Any:  # as a store that was written in a hurry
            if event.data.get("message") == "not this":
                return False
            await super().store(event)
            return None

    async def work() -> None:
        recorder = Recorder(Short(), "assistant")
        async with recorder:
            await recorder.user_message("not this")
            await recorder.user_message("this")
            texts = [each.data for each in await recorder.get_memory()]
            assert texts[0]["message"] == "this"
            assert "has kept 0 of 1" in texts[1]["error"]

    run(work)


def test_a_recorder_that_is_not_open_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "WAIT_S", 600.0)  # at once

    async def work() -> None:
        recorder = Recorder(InMemoryEventStore(), "assistant")
        await recorder.record("custom")
        with pytest.raises(EventsPendingError, match="call initialize"):
            await recorder.flush()
        async with recorder:
            assert len(await recorder.get_memory()) == 2
        with pytest.raises(ClosedError, match="initialize"):
            await recorder.record("custom")

        @recorder.tool
        async def add(a: int, b: int) -> int:
            return a + b

        assert await add(1, b=2) == 3  # and the log has the error

    run(work)


def as_it_is(event: AgentEvent, _: Exception) -> AgentEvent:
    return event


def test_durable_means_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0.001)
    monkeypatch.setattr(queue, "PAUSE_MAX_S", 0.005)

    async def work() -> None:
        store = InMemoryEventStore()
        failing = Failing(store)
        failing.is_down = False
        monkeypatch.setattr(store, "store_many", failing)
        async with Recorder(store, "assistant", durable=True) as recorder:
            await recorder.user_message("stored")
            assert (await store.retrieve())[0].data["message"] == "stored"
            failing.is_down = True
            monkeypatch.setattr(queue, "WAIT_S", 0.02)
            with pytest.raises(EventsPendingError):
                await recorder.record("custom")

            @recorder.tool
            async def add(a: int, b: int) -> int:
                return a + b

            assert await add(1, b=2) == 3
            failing.is_down = False
            monkeypatch.setattr(queue, "WAIT_S", 60.0)
            assert len(await recorder.get_memory()) == 5

    async def refused() -> None:
        store = Picky(ValueError("no"), 1)
        async with Recorder(store, "assistant", durable=True) as recorder:
            await recorder.record("custom", metadata={"n": 1})
            assert (await store.retrieve())[0].data["error"]
            monkeypatch.setattr(queue, "_as_text", as_it_is)
            with pytest.raises(EventsLostError, match="refuses it: no"):
                await recorder.record("custom", metadata={"n": 1})
            recorder._queue.refused = 0  # pyright: ignore[reportPrivateUsage]  # it was told

    run(work)
    run(refused)


def test_each_task_has_its_session() -> None:
    async def work() -> None:
        async with Recorder(InMemoryEventStore(), "assistant", session_id="main") as recorder:
            turn = asyncio.Barrier(2)

            async def serve(user: str) -> str:
                session = recorder.reset_context()
                for n in range(3):
                    await turn.wait()
                    await asyncio.gather(recorder.user_message(f"{user} {n}"))
                return session

            sessions = await asyncio.gather(serve("lin"), serve("wang"))
            for session, user in zip(sessions, ("lin", "wang"), strict=True):
                found = await recorder.get_memory(session_id=session)
                texts = [each.data["message"] for each in found]
                assert texts == [f"{user} {n}" for n in (2, 1, 0)]
            assert recorder.session_id == "main"
            with recorder.session("again") as session:
                await recorder.user_message("in a block")
            await recorder.user_message("behind it")
            (inside,) = await recorder.get_memory(session_id=session)
            assert (session, inside.data["message"]) == ("again", "in a block")
            assert len(await recorder.get_memory(session_id="main")) == 2
            other = Recorder(InMemoryEventStore(), "assistant")
            assert other.session_id not in ("main", "again", *sessions)

    run(work)


@dataclass
class Weather:
    city: str
    degrees: list[Decimal]


class Secretive(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_results_keep_their_structure_and_calls_their_parents() -> None:
    async def work() -> None:
        async with Recorder(InMemoryEventStore(), "assistant") as recorder:

            @recorder.tool
            def weather(city: str) -> Weather:
                return Weather(city, [Decimal("21.5")])

            @recorder.tool
            async def plan(city: str, *, days: int = 1) -> dict[str, Any]:
                return {"weather": weather(city), "days": (days, days + 1)}

            async with recorder.run():
                assert (await plan("Oslo", days=2))["weather"] == Weather("Oslo", [Decimal("21.5")])
            with pytest.raises(Secretive):
                async with recorder.run(), recorder.tool_call("odd"):
                    raise Secretive
            found = await recorder.get_memory(limit=None)
            start, inner, inner_end, end, _, odd, failed = reversed(found[:-1])
            assert start.data["arguments"] == {"city": "Oslo", "days": 2}
            assert end.data["result"] == {
                "weather": {"city": "Oslo", "degrees": ["21.5"]},
                "days": [2, 3],
            }
            span, run_id = start.metadata["span_id"], start.metadata["parent_id"]
            assert inner.metadata["parent_id"] == span != inner.metadata["span_id"]
            assert inner_end.metadata["span_id"] == inner.metadata["span_id"]
            assert inner_end.metadata["duration_ms"] <= end.metadata["duration_ms"]
            assert run_id is not None
            assert (odd.data["error_type"], odd.metadata["parent_id"]) == (
                "Secretive",
                failed.metadata["span_id"],
            )
            assert failed.metadata["parent_id"] is None

    run(work)


def test_clearing_is_of_this_agent_alone(open_db: OpenDatabase) -> None:
    async def work() -> None:
        store = AmberEventStore(open_db())
        async with Recorder(store, "planner") as planner, Recorder(store, "writer") as writer:
            with writer.session("shared"):
                await writer.user_message("kept")
            with planner.session("shared"):
                await planner.user_message("cleared")
            await writer.flush()
            assert await planner.clear_memory("shared") == 1
            assert await planner.clear_memory(end_time=datetime(2000, 1, 1, tzinfo=UTC)) == 0
            assert await planner.clear_memory() == 1
            assert len(await writer.get_memory()) == 2

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
