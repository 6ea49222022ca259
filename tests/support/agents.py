"""The agent of the users' document on event stores, and what its users ask."""

import asyncio
from datetime import UTC, datetime, timedelta

from amberdb.events import (
    AgentEvent,
    EventStore,
    EventType,
    Filters,
    InMemoryEventStore,
    Recorder,
    clean_up,
    error_rate,
    migrate,
)


async def talk(recorder: Recorder) -> None:
    """What the agent of the document does."""
    await recorder.record(
        EventType.CUSTOM, {"action": "user_login", "user_id": "123"}, metadata={"source": "web"}
    )

    @recorder.tool
    async def calculator(expression: str) -> int:
        return sum(map(int, expression.split("+")))

    await recorder.user_message("Hello!")
    await recorder.model_response(str(await calculator("2+2")), tool_calls_count=1)
    await recorder.flush()


async def ask_an_agent(store: EventStore) -> None:
    """Has the agent talk into an empty store, asks what it did, and clears its memory."""
    async with Recorder(store, "assistant") as agent:
        await talk(agent)
        events = await agent.get_memory(limit=100)
        assert events[-1].event_type is EventType.AGENT_INIT
        (tool,) = await agent.get_memory(event_type=EventType.TOOL_CALL_SUCCESS)
        assert tool.data == {"tool_name": "calculator", "result": 4}
        assert len(await agent.get_memory(session_id=agent.session_id)) == len(events) == 6
        hour = Filters(start_time=datetime.now(UTC) - timedelta(hours=1))
        assert len(await store.retrieve(hour, limit=50)) == 6
        assert len(await agent.search_memory("calculator", limit=10)) == 2
        stats = await agent.get_memory_stats()
        assert stats["total_events"] == 6
        assert stats["by_type"]["USER_MESSAGE"] == 1
        assert stats["first_event"] is not None
        assert stats["last_event"] is not None
        assert error_rate(stats) < 0.1
        before = agent.session_id
        agent.reset_context()
        await agent.user_message("another session")
        await agent.clear_memory(session_id=before)
        assert [event.event_type for event in await agent.get_memory()] == [EventType.USER_MESSAGE]
        await agent.clear_memory()
        assert (await agent.get_memory_stats())["total_events"] == 0


async def move_from_memory(target: EventStore) -> None:
    """What the agent did, from memory into another store."""
    source = InMemoryEventStore()
    async with Recorder(source, "assistant") as agent:
        await talk(agent)
    await target.initialize()
    moved = await migrate(source, target)
    assert moved.found == moved.stored == moved.verified == 6
    assert await target.retrieve(limit=100) == await source.retrieve(limit=100)
    await target.close()


async def clear_after_seven_days(store: EventStore) -> None:
    """An event of yesterday stays, and one of last week is deleted."""
    now = datetime.now(UTC)
    await store.initialize()
    for days in (1, 8):
        await store.store(
            AgentEvent(
                agent_name="assistant",
                session_id="s",
                event_type=EventType.USER_MESSAGE,
                timestamp=now - timedelta(days=days),
                data={"message": "Hello", "message_length": 5},
            )
        )
    task = asyncio.create_task(clean_up(store, timedelta(days=7)))
    while (await store.get_stats())["total_events"] != 1:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()
