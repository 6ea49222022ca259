"""Stores of agent events: each keeps the contract, and what is its own besides."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventStore,
    EventType,
    FileEventStore,
    Format,
    InMemoryEventStore,
    NullEventStore,
    clean_up,
    migrate,
)
from amberdb.events.contract import START, EventStoreContract, event
from support.databases import OpenDatabase
from support.names import recorded_names


class TestInMemory(EventStoreContract):
    def make(self) -> EventStore:
        return InMemoryEventStore()


class TestAmber(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, open_db: OpenDatabase) -> None:
        self.open_db = open_db

    def make(self) -> EventStore:
        return AmberEventStore(self.open_db())


class FilesContract(EventStoreContract):
    format: Format = "jsonl"
    file_per_session = True
    rotate_size = 10 << 20

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "agent_memory"

    def make(self) -> EventStore:
        return FileEventStore(
            self.path,
            format=self.format,
            file_per_session=self.file_per_session,
            rotate_size=self.rotate_size,
        )


class TestLinesBySession(FilesContract):
    pass


class TestLinesInOneFile(FilesContract):
    file_per_session = False


class TestArrays(FilesContract):
    format: Format = "json"


class TestLinesThatRotate(FilesContract):
    rotate_size = 600


class TestArraysThatRotate(FilesContract):
    format: Format = "json"
    file_per_session = False
    rotate_size = 600


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_files_are_there_for_other_programs(tmp_path: Path) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path, rotate_size=700)
        await store.initialize()
        for number in range(8):
            await store.store(event(number))

    run(work)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len([name for name in names if name.startswith("session_session%2F0.2")]) >= 1
    lines = [line for path in tmp_path.iterdir() for line in path.read_text("utf-8").splitlines()]
    assert len(lines) == 8
    assert {json.loads(line)["event_type"] for line in lines} == {
        "user_message",
        "model_response",
        "tool_call_start",
    }
    assert any("第3个" in line for line in lines)


def test_a_line_that_was_cut_short_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        store = FileEventStore(tmp_path, file_per_session=False)
        await store.store(event(0))
        with (tmp_path / "events.jsonl").open("ab") as file:
            file.write(b'{"event_id": "torn", "age')
        await store.store(event(1))
        assert [each.event_id for each in await store.retrieve()] == ["evt_1", "evt_0"]

    run(work)
    assert "event 2 cannot be read" in caplog.text


def test_a_store_that_keeps_nothing() -> None:
    async def work() -> None:
        store = NullEventStore()
        assert not await store.store(event(0))
        assert await store.store_many([event(1), event(2)]) == 0
        assert await store.retrieve() == await store.search("calculator") == []
        assert (await store.get_stats())["total_events"] == await store.clear() == 0
        moved = await migrate(InMemoryEventStore(), store)
        assert moved.found == 0

    run(work)


def test_old_events_are_removed_again_and_again(open_db: OpenDatabase) -> None:
    class Enough(Exception):
        pass

    async def work() -> None:
        store = AmberEventStore(open_db())
        await store.store_many([event(number) for number in range(10)])
        now = START + timedelta(minutes=5)
        counts: list[int] = []

        async def sleep(seconds: float) -> None:
            nonlocal now
            assert seconds == 60
            counts.append((await store.get_stats())["total_events"])
            now += timedelta(minutes=2)
            if len(counts) == 3:
                raise Enough

        cleaning = clean_up(
            store,
            timedelta(minutes=1),
            every_s=60,
            clock=lambda: now.timestamp(),
            sleep=sleep,
        )
        with pytest.raises(Enough):
            await cleaning
        assert counts == [6, 4, 2]

    run(work)


def test_an_event_of_its_own_making() -> None:
    made = AgentEvent(
        agent_name="assistant",
        session_id="s",
        event_type=EventType("custom"),
        data={"action": "user_login", "user_id": "123"},
    )
    assert made.event_id.startswith("evt_")
    assert made.timestamp.tzinfo is UTC
    assert AgentEvent.from_map(made.to_map()) == made
    with pytest.raises(ValueError, match="unknown"):
        event(0, event_type="unknown")


@pytest.mark.parametrize("wrong", [{"format": "xml"}, {"rotate_size": 0}])
def test_options_that_make_no_sense(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"format|rotate_size"):
        FileEventStore(tmp_path, **wrong)


@pytest.mark.parametrize("format", ["jsonl", "json"])
def test_the_name_of_an_archive_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    calls = recorded_names(monkeypatch)
    store = FileEventStore(tmp_path, format=format, file_per_session=False, rotate_size=1)
    run(lambda: store.store(event(0)))
    (archive,) = tmp_path.iterdir()
    assert archive.name.startswith("events.2")
    assert calls[-2:] == [("rename", archive.name), ("sync_dir", tmp_path.name)]
