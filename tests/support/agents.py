"""The agent of the users' document on event stores, and what its users ask."""

from datetime import UTC, datetime, timedelta

from amberdb.events import EventStore, EventType, Filters, Recorder, error_rate


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
