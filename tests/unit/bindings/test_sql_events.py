"""Stores of events in SQLite: they keep the contract, and what is their own besides. Those on
servers: tests/servers."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from amberdb import InvalidDocumentError
from amberdb.events import AgentEvent, EventStore, EventType
from amberdb.events.contract import START, EventStoreContract, event
from amberdb.sql import (
    SqlConfigError,
    SQLiteEventStore,
    SqlSchemaError,
)
from support.event_loops import use_at_once, use_one_after_another

_T = TypeVar("_T")


class TestSQLiteFile(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "agent_memory.db"

    def make(self) -> EventStore:
        return SQLiteEventStore(self.path)

    def make_other(self, store: EventStore) -> EventStore:
        return self.make()

    def maker(self, store: EventStore) -> Callable[[], EventStore]:
        return partial(SQLiteEventStore, self.path)


class TestSQLiteInMemory(EventStoreContract):
    def make(self) -> EventStore:
        return SQLiteEventStore(config={"db_path": ":memory:"})


def run(store: SQLiteEventStore, work: Callable[[SQLiteEventStore], Awaitable[_T]]) -> _T:
    async def whole() -> _T:
        try:
            await store.initialize()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(("wal_mode", "journal"), [(True, "wal"), (False, "delete")])
def test_the_config_of_the_users_document(tmp_path: Path, wal_mode: bool, journal: str) -> None:
    path = tmp_path / "memory.db"
    store = SQLiteEventStore(config={"db_path": str(path), "wal_mode": wal_mode})
    run(store, lambda opened: opened.store(event(1)))
    assert rows(path, "PRAGMA journal_mode") == [(journal,)]
    assert rows(path, "SELECT count(*) FROM agent_event") == [(1,)]


def test_an_address_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(SqlConfigError, match="give one of them"):
        SQLiteEventStore(tmp_path / "a.db", config={"db_path": "b.db"})
    with pytest.raises(SqlConfigError, match="the keys are db_path, wal_mode"):
        SQLiteEventStore(config={"path": "b.db"})  # type: ignore[arg-type]
    for url in ("mysql://u:s3cret@host/x", "postgres://u:s3cret@host/x"):  # no path, to be shown
        with pytest.raises(SqlConfigError, match="must be one of sqlite") as raised:
            SQLiteEventStore(url)
        assert "s3cret" not in str(raised.value)
    with pytest.raises(SqlConfigError, match="must be one of sqlite"):
        SQLiteEventStore("sqlite3:///a.db")


def test_a_row_can_be_read_by_people(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    run(SQLiteEventStore(f"sqlite:///{path}"), lambda store: store.store(event(1)))
    columns = "event_id, event_type, timestamp, data->>'message'"
    assert rows(path, f"SELECT {columns} FROM agent_event") == [
        ("evt_1", "model_response", "2026-03-01T12:01:00.000000Z", "\u7b2c1\u4e2a calculator")
    ]


def test_two_stores_share_a_database(tmp_path: Path) -> None:
    first, second = (SQLiteEventStore(tmp_path / "a.db", name=name) for name in ("one", "two"))
    run(first, lambda store: store.store(event(1)))
    assert run(second, lambda store: store.retrieve()) == []
    assert len(run(first, lambda store: store.retrieve())) == 1


def test_a_newer_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    run(SQLiteEventStore(path), lambda store: store.store(event(1)))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE amberdb_schema SET version = 9")
    connection.commit()
    connection.close()
    with pytest.raises(SqlSchemaError, match="version 9, and this program knows up to 1"):
        run(SQLiteEventStore(path), lambda store: store.retrieve())


def test_a_name_that_is_too_long_is_refused_and_the_batch_with_it(tmp_path: Path) -> None:
    async def work(store: SQLiteEventStore) -> None:
        with pytest.raises(InvalidDocumentError, match="session_id has 481 characters"):
            await store.store_many([event(1), event(2, session_id="s" * 481)])
        assert await store.retrieve() == []
        assert await store.store(event(2, session_id="\u4f1a" * 480))

    run(SQLiteEventStore(tmp_path / "a.db"), work)


def test_rows_of_another_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.db"

    async def work(store: SQLiteEventStore) -> tuple[list[AgentEvent], int]:
        connection = sqlite3.connect(path)
        connection.execute(
            "INSERT INTO agent_event (event_id, agent_name, session_id, event_type, timestamp,"
            " data, metadata, words)"
            " VALUES ('x', 'a', 's', 'dream', '2026-01-01', '{\"a\": 1}', '{}', ''),"
            " ('y', 'a', 's', 'custom', '2026-01-01T00:00:00Z', '[1]', '{}', '')"
        )
        connection.commit()
        connection.close()
        await store.store(event(1))
        return await store.retrieve(), (await store.get_stats())["by_type"]["CUSTOM"]

    (newest, own), count = run(SQLiteEventStore(path), work)
    assert newest == event(1)
    assert (own.event_type, own.metadata, own.data) == (
        EventType.CUSTOM,
        {"event_type": "dream"},
        {"a": 1},
    )
    assert count == 2
    assert "row y is no event" in caplog.text


def test_a_writer_waits_for_another_program(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def work(store: SQLiteEventStore) -> list[AgentEvent]:
        other = sqlite3.connect(path, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.store(event(1)))
        batch = asyncio.create_task(store.store_many([event(2), event(3)]))
        await asyncio.sleep(0)
        assert not waiting.done()
        other.execute("COMMIT")
        other.close()
        assert await waiting
        assert await batch == 2
        return await store.retrieve()

    assert len(run(SQLiteEventStore(path), work)) == 3


def test_a_task_that_is_cancelled_leaves_the_store_in_use(tmp_path: Path) -> None:
    async def work(store: SQLiteEventStore) -> None:
        for number in range(20):
            task = asyncio.create_task(store.store_many([event(n) for n in range(50)]))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert len(await store.retrieve()) in (0, 50)
            await store.clear()
        assert await store.store_many([event(n) for n in range(50)]) == 50
        assert len(await store.retrieve()) == 50

    run(SQLiteEventStore(tmp_path / "a.db"), work)
    run(SQLiteEventStore(":memory:"), work)


@pytest.mark.parametrize("in_memory", [False, True])
def test_event_loops_one_after_another_and_at_once(tmp_path: Path, in_memory: bool) -> None:
    def path(name: str) -> str | Path:
        return ":memory:" if in_memory else tmp_path / name

    use_one_after_another(SQLiteEventStore(path("a.db")))
    use_at_once(SQLiteEventStore(path("b.db")))


def test_a_database_in_memory_ends_with_close() -> None:
    store = SQLiteEventStore(":memory:")
    run(store, lambda opened: opened.store(event(1)))
    assert run(store, lambda opened: opened.retrieve()) == []


def test_two_programs_that_ask_for_different_journals(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")

    async def work() -> None:
        stores = [
            SQLiteEventStore(config={"db_path": path, "wal_mode": n % 2 == 0}) for n in (0, 1)
        ]
        for n, store in enumerate(stores):
            await store.initialize()
            await store.store(event(n))
        for store in stores:
            assert len(await store.retrieve()) == 2
        for store in stores:
            await store.close()

    asyncio.run(work())


def test_a_batch_of_many_events_lets_the_event_loop_go_on(tmp_path: Path) -> None:
    async def work(store: SQLiteEventStore) -> None:
        turns = 0
        task = asyncio.create_task(store.store_many([event(n) for n in range(5_000)]))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert await task == 5_000
        assert turns > 9, "a turn for each slice at least"
        assert (await store.get_stats())["total_events"] == 5_000

    run(SQLiteEventStore(tmp_path / "a.db"), work)


def test_more_calls_than_connections_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.sql.connections.CONNECT_S", 0)
    monkeypatch.setattr("amberdb.sql.connections.BUSY_S", 0)

    async def work(store: SQLiteEventStore) -> None:
        assert all(await asyncio.gather(*(store.store(event(n)) for n in range(200))))

    run(SQLiteEventStore(tmp_path / "a.db"), work)


def test_a_search_after_events_were_replaced_and_cleared(tmp_path: Path) -> None:
    async def work(store: SQLiteEventStore) -> None:
        await store.store(event(1, data={"message": "umbrella"}))
        await store.store(event(1, data={"message": "raincoat"}))
        assert await store.search("umbrella") == []
        assert len(await store.search("raincoats")) == 1
        await store.clear(end_time=START + timedelta(days=1))
        assert await store.search("raincoat") == []

    run(SQLiteEventStore(tmp_path / "a.db"), work)
