"""Events of LightAgent, as its stores write them: files, a SQLite table, rows of a server."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventType,
    FileEventStore,
    Imported,
    import_lightagent,
)
from support.databases import OpenDatabase

TEXTS = ["你好", "Hello!", "2+2?"]


def its_event(n: int, session: str = "uuid-1") -> dict[str, Any]:
    """An event as its model is dumped: a time without a zone, of a clock on the wall."""
    return {
        "event_id": f"evt_170410680{n}.5",
        "agent_name": "assistant",
        "session_id": session,
        "event_type": "user_message",
        "timestamp": f"2024-01-01T12:00:0{n}.500000",
        "data": {"message": TEXTS[n], "message_length": len(TEXTS[n])},
        "metadata": {},
    }


async def imported(db: Any, source: Any) -> tuple[Imported, list[AgentEvent]]:
    store = AmberEventStore(db)
    done = await import_lightagent(store, source)
    assert (await import_lightagent(store, source)).stored == done.stored
    return done, await store.retrieve(oldest_first=True)


def check(done: Imported, events: list[AgentEvent]) -> None:
    assert (done.found, done.stored) == (3, 3)
    assert [each.data["message"] for each in events] == TEXTS
    for n, each in enumerate(events):
        assert each.event_type is EventType.USER_MESSAGE
        assert each.timestamp == datetime(2024, 1, 1, 12, 0, n, 500_000).astimezone()


def test_files(open_db: OpenDatabase, tmp_path: Path) -> None:
    async def work() -> None:
        folder = tmp_path / "agent_memory"
        folder.mkdir()
        for name, n in (("session_uuid-1", 2), ("session_uuid-1_20240101_130000", 0)):
            line = json.dumps(its_event(n), ensure_ascii=False)
            (folder / f"{name}.jsonl").write_text(line + "\n", "utf-8")
        (folder / "session_uuid-2.jsonl").write_text(json.dumps(its_event(1, "uuid-2")) + "\n")
        check(*await imported(open_db(), folder))
        # Where it stays, it goes on with the same files.
        store = FileEventStore(folder)
        found = await store.retrieve(session_id="uuid-1", start_time=datetime(2024, 1, 1, 12))
        assert [each.data["message"] for each in found] == [TEXTS[2], TEXTS[0]]

    asyncio.run(work())


def test_arrays(open_db: OpenDatabase, tmp_path: Path) -> None:
    rows = [its_event(n) for n in range(3)]
    for row in rows:
        row["timestamp"] = row["timestamp"].replace("T", " ")
        row["event_type"] = "EventType.USER_MESSAGE"
    (tmp_path / "events.json").write_text(json.dumps(rows, indent=2), "utf-8")
    check(*asyncio.run(imported(open_db("db"), tmp_path)))


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_table_of_sqlite(open_db: OpenDatabase, tmp_path: Path, is_whole: bool) -> None:
    path = tmp_path / "agent memory?.db"
    with closing(sqlite3.connect(path)) as connection:
        columns = "agent_name, session_id, event_type, timestamp, data, metadata"
        connection.execute(f"CREATE TABLE agent_events (event_id TEXT PRIMARY KEY, {columns})")
        for n in (1, 0, 2):
            event = its_event(n)
            event["data"] = json.dumps(event if is_whole else event["data"], ensure_ascii=False)
            values = [*event.values()][:-1]
            connection.execute(
                "INSERT INTO agent_events VALUES (?, ?, ?, ?, ?, ?, ?)", [*values, "{}"]
            )
        connection.commit()
    check(*asyncio.run(imported(open_db(), path)))
    with pytest.raises(FileNotFoundError, match="db_path"):
        asyncio.run(imported(open_db(), tmp_path / "nowhere.db"))


def test_rows_of_a_server_and_what_cannot_be_stored(open_db: OpenDatabase) -> None:
    broken = {**its_event(0), "event_id": "broken", "data": "{half"}
    late = {**its_event(0), "event_id": "late", "timestamp": "yesterday"}
    large = {**its_event(0), "event_id": "large", "data": {"message": "x" * 50_000}}
    last = its_event(2)
    last |= {"timestamp": datetime(2024, 1, 1, 12, 0, 2, 500_000), "metadata": None}
    rows = [its_event(0), broken, tuple(its_event(1).values()), late, last, large]
    done, events = asyncio.run(imported(open_db(document_bytes_max=30_000), rows))
    assert [each.data["message"] for each in events] == TEXTS
    assert (done.found, done.stored, sorted(done.failed)) == (
        6,
        3,
        ["broken", "large", "late"],
    )
    assert "timestamp must be" in done.failed["late"]
