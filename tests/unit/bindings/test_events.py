"""Stores of agent events: each keeps the contract, and what is its own besides."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from amberdb import (
    ClosedError,
    CollectionError,
    InvalidDocumentError,
    Ordered,
    QueryError,
    Text,
    Unique,
    aio,
)
from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventStore,
    EventType,
    FileEventStore,
    Filters,
    Format,
    InMemoryEventStore,
    NullEventStore,
    clean_up,
    migrate,
)
from amberdb.events.contract import START, EventStoreContract, event
from support.databases import SMALL, OpenDatabase
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

    def make_other(self, store: EventStore) -> EventStore:
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

    def make_other(self, store: EventStore) -> EventStore:
        return self.make()


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


def test_events_are_stored_in_the_transaction_of_the_caller(open_db: OpenDatabase) -> None:
    db = open_db()
    orders = db.collection("order")
    store = AmberEventStore(db, name="audit")

    async def work() -> None:
        async def undone() -> None:
            with db.transaction() as tx:
                tx["order"].put({"id": "a"})
                await store.store(event(0), tx=tx)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await undone()
        assert await store.retrieve() == []
        with db.transaction() as tx:
            tx["order"].put({"id": "a"})
            await store.store_many([event(1), event(2)], tx=tx)
            await store.store(event(3), tx=tx)
            assert await store.clear(event_type="model_response", tx=tx) == 1
        assert [each.event_id for each in await store.retrieve()] == ["evt_3", "evt_2"]
        assert len(orders) == 1
        with pytest.raises(ClosedError):
            await store.store(event(4), tx=tx)
        async with aio.open(db.path, **SMALL) as other, other.transaction() as atx:
            await store.store(event(5), tx=atx.blocking)
        assert (await store.get_stats())["total_events"] == 3

    run(work)


def test_an_event_id_that_is_too_long_for_a_document_has_a_digest(open_db: OpenDatabase) -> None:
    store = AmberEventStore(db := open_db())
    digest = f"long-id:sha256:{sha256(b'x' * 481).hexdigest()}"
    longest, longer = "x" * 480, "x" * 481

    async def work() -> None:
        wanted = [event(n, event_id=text) for n, text in enumerate((longest, longer, digest))]
        await store.store_many(wanted)
        assert await store.retrieve(oldest_first=True) == wanted
        assert {longest, digest} < {document["id"] for document in db["agent_event"].find()}
        await store.store(event(5, event_id=longer))
        assert (await store.get_stats())["total_events"] == 3

    run(work)


def test_a_collection_of_an_earlier_version_goes_on(
    open_db: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    db = open_db()
    before = db.collection(
        "agent_event",
        indexes=[
            Ordered("timestamp"),
            Ordered("session_id", "timestamp"),
            Ordered("agent_name", "timestamp"),
            Ordered("event_type", "timestamp"),
            Text("data"),
        ],
    )
    for n in range(3):
        before.put({"id": f"evt_{n}", **event(n).to_map()})
    before.put({"id": "foreign", "event_type": "login", "data": {"by": "lin"}})
    before.put({"id": "no event", "data": 5, "session_id": ["a", "list"]})
    store = AmberEventStore(db)

    async def work() -> None:
        await store.store(event(3, timestamp=START - timedelta(days=1)))
        found = await store.retrieve()
        assert [each.event_id for each in found] == ["evt_3", "foreign", "evt_2", "evt_1", "evt_0"]
        assert (found[1].event_type, found[1].metadata) == (
            EventType.CUSTOM,
            {"event_type": "login"},
        )
        assert (found[1].agent_name, found[1].timestamp.year) == ("", 1970)
        assert "document no event is no event" in caplog.text
        assert await store.search("lin") == [found[1]]
        stats = await store.get_stats()
        assert (stats["total_events"], stats["by_type"]["CUSTOM"]) == (6, 2)

    run(work)


def test_an_app_keeps_its_own_collection(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("agent_event", indexes=[Unique("badge")])
    with pytest.raises(CollectionError, match="name="):
        AmberEventStore(db)
    AmberEventStore(db, name="agents_events")


def test_statistics_read_an_index_and_no_document(open_db: OpenDatabase) -> None:
    store = AmberEventStore(db := open_db())
    where: list[Any] = [{}, {"agent_name": "agent1"}, {"timestamp": {"$gte": START}}]

    async def work() -> None:
        await store.store_many([event(n) for n in range(30)])
        for each in where:
            plan = db["agent_event"].explain({**each, "event_type": "custom"}, fields=["id"])
            assert plan["covering"]
        assert (await store.get_stats(start_time=START))["total_events"] == 30
        assert (await store.get_stats(agent_name="agent1", start_time=START))["total_events"] == 15
        assert (await store.get_stats(agent_name="agent1", event_type="custom")) == {
            "total_events": 0,
            "by_type": {},
            "first_event": None,
            "last_event": None,
        }

    run(work)


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


def test_an_event_that_a_target_refuses_stops_no_migration(open_db: OpenDatabase) -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), AmberEventStore(open_db(document_bytes_max=30_000))
        await source.store_many([event(n) for n in range(20)])
        await source.store(event(7, data={"text": "x" * 50_000}))
        moved = await migrate(source, target, batch=8)
        assert (moved.found, moved.stored, moved.verified) == (20, 19, 19)
        assert "evt_7" in moved.failed

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
    for wrong in ({"event_type": "unknown"}, {"timestamp": "now"}, {"data": [1]}, {"event_id": ""}):
        with pytest.raises(InvalidDocumentError) as caught:
            event(0, **wrong)
        assert caught.value.field == next(iter(wrong))


def test_a_time_without_a_zone_is_local_time() -> None:
    noon = datetime(2026, 3, 1, 12)
    made = event(0, timestamp=noon)
    assert (made.timestamp, made.timestamp.tzinfo) == (noon.astimezone(), UTC)
    assert Filters(start_time=noon).matches(made)
    assert not Filters(end_time=noon).matches(made)
    with pytest.raises(QueryError, match="give it once"):
        Filters.of(Filters(start_time=noon), start_time=noon)


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
