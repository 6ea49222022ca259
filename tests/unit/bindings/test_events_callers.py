"""Who records: threads, tools of any kind, tasks that end, event loops that end, transactions."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from amberdb import TransactionError
from amberdb.events import AmberEventStore, InMemoryEventStore, Recorder
from support.databases import OpenDatabase


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_threads_record_too() -> None:
    async def work() -> None:
        async with Recorder(InMemoryEventStore(), "assistant") as recorder:

            @recorder.tool
            def square(n: int) -> int:
                return n * n

            def thread(n: int) -> bool:
                assert square(n) == n * n
                return recorder.record_nowait("custom", {"n": n})

            done = await asyncio.gather(*(asyncio.to_thread(thread, n) for n in range(50)))
            assert all(done)
            assert len(await recorder.get_memory(event_type="custom")) == 50
            stats = await recorder.get_memory_stats()
            assert stats["by_type"]["TOOL_CALL_SUCCESS"] == 50

    run(work)


def test_tools_of_any_kind_and_messages_of_parts_are_recorded() -> None:
    class Search:
        async def __call__(self, *words: str, limit: int = 3) -> int:
            return len(words) * limit

    def wrong(a: int) -> int:
        return a

    async def work() -> None:
        async with Recorder(InMemoryEventStore(), "assistant") as recorder:
            search: Any = recorder.tool(Search())
            assert await search("a", "b", limit=2) == 4
            assert recorder.tool(max)(1, 2) == 2
            call: Any = recorder.tool(wrong)
            with pytest.raises(TypeError, match="unexpected keyword"):
                call(1, b=2)
            parts: Any = [{"type": "text", "text": "hi"}, {"type": "image_url"}]
            await recorder.user_message(parts)
            found = await recorder.get_memory(event_type="tool_call_start")
            given = [each.data["arguments"] for each in reversed(found)]
            assert given[0] == {"words": ["a", "b"], "limit": 2}
            assert given[1:] == [{"0": 1, "1": 2}, {"0": 1, "b": 2}]
            (said,) = await recorder.get_memory(event_type="user_message")
            assert said.data == {"message": parts, "message_length": 2}

    run(work)


def test_a_recorder_outlives_its_event_loop() -> None:
    store = InMemoryEventStore()
    recorder = Recorder(store, "assistant")

    async def first() -> None:
        await recorder.initialize()
        await recorder.flush()
        assert recorder.record_nowait("custom", {"n": 1})

    async def second() -> None:
        assert recorder.record_nowait("custom", {"n": 2})
        async with recorder:
            found = await recorder.get_memory(event_type="custom")
            assert [each.data["n"] for each in found] == [2, 1]

    async def closed() -> None:
        await recorder.initialize()

    run(first)
    run(second)
    run(closed)
    run(recorder.close)


def test_a_task_that_is_cancelled_does_not_wait_for_room() -> None:
    async def work() -> None:
        recorder = Recorder(InMemoryEventStore(), "assistant", queue_size=1)
        inside = asyncio.Event()

        async def call() -> None:
            async with recorder.tool_call("slow"):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        async with recorder:  # nobody took anything out meanwhile
            (error,) = await recorder.get_memory(event_type="tool_call_error")
            assert error.data["error_type"] == "CancelledError"

    run(work)


def test_an_event_is_recorded_in_the_transaction_of_the_caller(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("order")

    async def work() -> None:
        async with Recorder(AmberEventStore(db), "shop") as recorder:
            await recorder.flush()
            with db.transaction() as tx:
                tx["order"].put({"id": "a"})
                await recorder.record("custom", {"order": "a"}, tx=tx)
                assert await recorder.clear_memory("another", tx=tx) == 0
            (bought,) = await recorder.get_memory(event_type="custom")
            assert bought.data == {"order": "a"}
        async with Recorder(InMemoryEventStore(), "shop") as recorder:
            refused = pytest.raises(TransactionError, match="InMemoryEventStore has no")
            with db.transaction() as tx, refused:
                await recorder.record("custom", tx=tx)

    run(work)


def test_names_of_any_text_are_found_again(open_db: OpenDatabase) -> None:
    async def work() -> None:
        store = AmberEventStore(open_db())
        async with Recorder(store, "cut \ud83d", session_id="s\udc00") as recorder:
            await recorder.user_message("hello")
            assert len(await recorder.get_memory(session_id=recorder.session_id)) == 2
            assert len(await recorder.search_memory("hello")) == 1
            assert await recorder.clear_memory() == 2

    run(work)
    with pytest.raises(ValueError, match="queue_size"):
        Recorder(InMemoryEventStore(), "a", queue_size=0)
