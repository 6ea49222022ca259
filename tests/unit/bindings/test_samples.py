"""The pieces of code in the users' documents, written for AmberDB; the tables in docs/memory.md,
docs/chat.md, docs/events.md and docs/profiles.md say which is which. What they ask of a server is
in tests/unit/bindings/test_server.py."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database
from amberdb.chat import ChatBuffer, CollectionSink, Flusher, Schedule
from amberdb.events import (
    AmberEventStore,
    EventStore,
    FileEventStore,
    InMemoryEventStore,
    Recorder,
)
from amberdb.memory import Memory, RuleExtractor
from amberdb.profiles import UserProfiles
from amberdb.sql import SQLiteEventStore
from support.agents import ask_an_agent, clear_after_seven_days, move_from_memory, talk
from support.chats import chat_and_flush, read_what_is_no_longer_hot, save
from support.databases import FakeClock, OpenDatabase

USER = "user123"


# -- layered memory ----------------------------------------------------------------------------


@pytest.fixture
def memory(db: Database) -> Memory:
    return Memory(db, extract=RuleExtractor())


def contents(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return [each["content"] for each in found]


def test_both_layers_are_stored_to_and_asked(memory: Memory) -> None:
    career = "用户是一名软件工程师，毕业于北京大学"
    party = "用户今天下午参加了技术分享会，讨论了人工智能的应用"
    memory.remember(USER, career, memory_layer="profile")
    memory.remember(USER, party, memory_layer="event", is_permanent=False)
    assert contents(memory.profile(USER)) == [career]
    (event,) = memory.events(USER, limit=50)
    assert event["content"] == party
    assert event["expiry_date"] > datetime.now(UTC)


def test_text_is_sorted_into_layers_by_itself(memory: Memory) -> None:
    said = "用户今天告诉我他是一名软件工程师，毕业于北京大学。他下午参加了技术分享会。"
    outcomes = memory.remember(USER, said, auto_extract=True)
    assert {outcome.action for outcome in outcomes} == {"insert"}
    assert any("软件工程师" in each for each in contents(memory.profile(USER)))
    (event,) = memory.events(USER)
    assert "技术分享会" in event["content"]
    assert event["category"] == "meeting"


@pytest.mark.parametrize("layer", ["profile", "event"])
def test_each_layer_is_changed_and_deleted_with_a_log(memory: Memory, layer: Any) -> None:
    (told,) = memory.remember(USER, "用户是一名软件工程师", memory_layer=layer)
    memory.update(
        layer, told.memory_id, content="用户是一名高级软件工程师", reason="补充了具体的职级信息"
    )
    memory.delete(layer, told.memory_id)
    log = memory.logs(told.memory_id, memory_layer=layer)
    assert [entry["action"] for entry in log] == ["delete", "update", "insert"]
    assert log[1]["reason"] == "补充了具体的职级信息"
    assert all(entry["reason"] for entry in log)


# -- chat buffer -------------------------------------------------------------------------------


def test_a_chat_is_hot_first_and_flushed_in_batches(db: Database) -> None:
    chat_and_flush(db, CollectionSink(db))


def test_every_five_minutes_or_at_night_and_important_ones_at_once(db: Database) -> None:
    buffer = ChatBuffer(db, CollectionSink(db))
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert Schedule(300).next_after(noon) == noon + timedelta(minutes=5)
    night = Schedule(300, window="02:00-04:00", zone=UTC).next_after(noon)
    assert night == datetime(2026, 1, 2, 2, tzinfo=UTC)
    assert save(buffer, important=True)["sink_stored"]
    with Flusher(buffer, Schedule(300)) as flusher:
        flusher.wake()


def test_what_is_no_longer_hot_is_read_from_the_sink(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    read_what_is_no_longer_hot(db, CollectionSink(db), clock)


# -- events of agents --------------------------------------------------------------------------


@pytest.fixture(params=["memory", "jsonl", "json", "database", "sqlite"])
def store(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> EventStore:
    if request.param == "memory":
        return InMemoryEventStore()
    if request.param == "database":
        return AmberEventStore(db)
    if request.param == "sqlite":
        path = tmp_path / "agent_memory.db"
        return SQLiteEventStore(config={"db_path": str(path), "wal_mode": True})
    return FileEventStore(
        tmp_path / "agent_memory",
        format=request.param,
        file_per_session=True,
        rotate_size=10 * 1024 * 1024,
    )


def test_an_agent_is_asked_what_it_did(store: EventStore) -> None:
    asyncio.run(ask_an_agent(store))


def test_events_move_from_memory_into_a_database(store: EventStore) -> None:
    asyncio.run(move_from_memory(store))


def test_what_is_seven_days_old_is_cleaned_up(store: EventStore) -> None:
    asyncio.run(clear_after_seven_days(store))


def test_a_memory_that_is_turned_off() -> None:
    async def main() -> None:
        store = InMemoryEventStore()
        async with Recorder(store, "agent", enable_memory=False) as agent:
            await talk(agent)
            assert await agent.get_memory() == []
        assert (await store.get_stats())["total_events"] == 0

    asyncio.run(main())


# -- user profiles -----------------------------------------------------------------------------


def test_a_row_of_the_table_of_profiles(db: Database) -> None:
    profiles = UserProfiles(db)
    columns = ("basic_info", "personality", "life_context", "interests")
    facts: dict[str, Any] = {name: {"a": 1} for name in columns}
    profiles.save("u1", user_name="小林", **facts)
    profiles.save("u1", basic_info={"b": 2}, conversation_summary="谈了茶")
    profiles.count_conversation("u1")
    found = profiles.get("u1")
    assert found is not None
    assert found["basic_info"] == {"a": 1, "b": 2}
    assert (found["conversation_count"], found["conversation_summary"]) == (1, "谈了茶")
    assert found["created_at"] <= found["last_updated"]
    assert [each["id"] for each in profiles.recent(since=found["last_updated"])] == ["u1"]
    assert json.loads(json.dumps(found["interests"])) == {"a": 1}
