"""The memory systems over an event loop: every method has its awaited one, and they work."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from amberdb import ClosedError, CollectionError, QueryError
from amberdb.aio.face import Face
from amberdb.chat import CollectionSink, Schedule, buffer
from amberdb.chat import aio as aio_chat
from amberdb.context import aio as aio_context
from amberdb.context import blocks, context, external, sessions
from amberdb.graph import aio as aio_graph
from amberdb.graph import graph
from amberdb.memory import aio as aio_memory
from amberdb.memory import memory
from amberdb.profiles import aio as aio_profiles
from amberdb.profiles import profiles
from support.awaiting import assert_face_of, audited

FACES: dict[type, type[Face]] = {
    memory.Memory: aio_memory.Memory,
    buffer.ChatBuffer: aio_chat.ChatBuffer,
    profiles.UserProfiles: aio_profiles.UserProfiles,
    context.AgentContext: aio_context.AgentContext,
    sessions.Sessions: aio_context.Sessions,
    external.ExternalMemory: aio_context.ExternalMemory,
    blocks.Blocks: aio_context.Blocks,
    graph.KnowledgeGraph: aio_graph.KnowledgeGraph,
}

INSIDE = {
    *("now", "live", "live_user", "put_part", "put_messages", "marked", "seen", "tokens"),
    *("token_count", "put_entity", "put_relation", "snapshot_relations", "lock"),
    *("embedded", "restore_entity", "restore_relation", "snapshot_entities"),
}
"""Of one system, for its other modules."""

ITERATED = {"export"}
"""Read with `async for`."""


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


@pytest.mark.parametrize("blocking", FACES, ids=lambda kind: kind.__name__)
def test_every_public_method_has_its_awaited_one_with_the_same_signature(blocking: type) -> None:
    assert_face_of(FACES[blocking], blocking, INSIDE, ITERATED)


def test_layered_memory(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            with pytest.raises(CollectionError):
                await aio_memory.open_memory(db, dim=3)
            layers = await aio_memory.open_memory(db)
            (told,) = await layers.remember("lin", "用户是一名软件工程师", memory_layer="profile")
            await layers.update("profile", told.memory_id, content="用户是高级软件工程师")
            (found,) = await layers.recall("软件工程师", entity_id="lin")
            assert found.document["content"] == "用户是高级软件工程师"
            assert len(await layers.logs(told.memory_id)) == 2
            with pytest.raises(QueryError):
                await layers.remember("lin", "没有说明哪一层")
            assert (await layers.forget("lin")).profile == 1
            assert await layers.profile("lin") == []

    run(work)


def test_profiles_count_without_races(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            users = await aio_profiles.open_user_profiles(db)
            await asyncio.gather(*(users.count_conversation("lin") for _ in range(20)))
            found = await users.get("lin")
            assert found is not None
            assert found["conversation_count"] == 20
            assert await users.count() == 1

    run(work)


def test_an_agents_context(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            agent = await aio_context.open_agent_context(db)
            user = await agent.sessions.find_or_create_user("lin")
            session = await agent.sessions.create(user, "assistant")
            await agent.set_system(session, "You are brief.")
            await agent.append(session, "user", "Hello")
            assert [each["content"] for each in await agent.render(session)][-1] == "Hello"
            await agent.external.archival_insert(session, "the umbrella is in the car")
            assert len(await agent.external.archival(session)) == 1
            await agent.blocks.create("human", session_id=session)
            given = {"label": "human", "content": "Likes tea."}
            call = {"type": "tool_use", "id": "c1", "name": "core_memory_append", "input": given}
            answer = await aio_context.run_tool(agent, session, call)
            assert answer["tool_use_id"] == "c1"
            assert "Likes tea." in (await agent.render(session))[0]["content"]
            async with db.transaction() as tx:
                await agent.append_working(session, "Is 12.", tx=tx.blocking)
            assert await agent.part(session, "working") != ""

    run(work)


def test_a_chat_buffer_is_flushed_at_its_times(tmp_path: Path) -> None:
    async def work() -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                await db.close()

        async with audited(tmp_path / "t.amber") as db:
            sink = await db.in_thread(CollectionSink, db.blocking)
            buffer = await aio_chat.open_chat_buffer(db, sink)
            async with db.transaction() as tx:
                await buffer.save_chat("你好", "您好！", "c", "u", tx=tx.blocking)
            assert [turn["user_message"] async for turn in buffer.export(user_id="u")] == ["你好"]
            assert (await buffer.redis.get_stats())["pending_queue_length"] == 1
            flushing = asyncio.create_task(
                aio_chat.keep_flushing(buffer, Schedule(300), sleep=sleep)
            )
            await flushing
            assert slept == [300.0] * 3
            with pytest.raises(ClosedError):
                await buffer.get_stats()
        async with audited(tmp_path / "t.amber") as db:
            assert await db["chat_archive"].count() == 1

    run(work)
