"""Migrations of events as child processes: from a source that needs no memory, into any store.

    python -m support.migrating KIND COUNT WAY DIRECTORY

prints what the process held at most, in bytes, beyond what it held before its first event. WAY is
"migrate"; or "kill", which prints a line after each batch of 50 besides; or "store", which gives
the same batches to the target alone; or "read", which migrates into a target that has everything,
and counts what Python allocated. KIND may be the URL of an SQL database.

Invariants:
- The events of a source are a function of their numbers.
"""

import asyncio
import os
import sys
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import amberdb
from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventStore,
    EventType,
    FileEventStore,
    Filters,
    Moved,
    migrate,
)
from amberdb.events.contract import START, event

LAST = datetime.max.replace(tzinfo=UTC)
AT = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
BATCH = 500
KINDS = ("database", "lines by session", "lines in one file", "arrays", "lines that rotate")


def made(number: int) -> AgentEvent:
    """All of one microsecond, of five sessions."""
    return AgentEvent(
        event_id=f"evt_{number:07}",
        agent_name="agent",
        session_id=f"s{number * number % 5}",
        event_type=EventType.CUSTOM,
        timestamp=AT,
        data={"number": number, "text": f"words of event {number % 1000}"},
    )


def some(count: int) -> list[AgentEvent]:
    """Of several sessions and few moments, with values that stores like to change."""
    values: list[Any] = [
        1,
        1.0,
        True,
        None,
        -0.0,
        1e16,
        "a\0",
        b"\0",
        [],
        {},
        START,
        {"$date": "x"},
    ]
    return [
        event(
            n,
            session_id=f"s{n * n % 5}",
            timestamp=(START, LAST, START + timedelta(microseconds=1))[n % 3],
            data={"value": values[n % len(values)]},
        )
        for n in range(count)
    ]


async def everything(store: EventStore) -> list[AgentEvent]:
    return [each async for page in store.iterate(batch=7) for each in page]


class Made(EventStore):
    """Has a number of events, and makes them when they are read."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def iterate(
        self, filters: Filters | None = None, *, batch: int = BATCH, **fields: Any
    ) -> AsyncIterator[list[AgentEvent]]:
        assert Filters.of(filters, **fields) == Filters()
        for at in range(0, self._count, batch):
            yield [made(n) for n in range(at, min(at + batch, self._count))]

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        return [made(int(event.event_id.removeprefix("evt_"))) for event in events]

    async def retrieve(self, *args: Any, limit: int | None = 100, **more: Any) -> list[AgentEvent]:
        assert limit is not None
        return [made(n) for n in range(self._count - 1, max(0, self._count - limit) - 1, -1)]

    async def store(self, event: AgentEvent) -> bool:
        raise NotImplementedError

    async def search(self, *args: Any, **more: Any) -> list[AgentEvent]:
        raise NotImplementedError

    async def get_stats(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def clear(self, *args: Any, **more: Any) -> int:
        raise NotImplementedError


def sql_store(url: str, name: str = "agent_event") -> EventStore:
    """The store of a URL."""
    from amberdb.sql import MySQLEventStore, PostgreSQLEventStore, SQLiteEventStore

    if url.startswith("sqlite"):
        return SQLiteEventStore(url, name=name)
    if url.startswith("mysql"):
        return MySQLEventStore(url, name=name)
    return PostgreSQLEventStore(url, name=name)


@asynccontextmanager
async def opened(kind: str, path: Path, **options: Any) -> AsyncGenerator[EventStore]:
    """A store of this kind, or of this URL; options of the database."""
    if kind == "database":
        with amberdb.open(path, **options) as db:
            yield AmberEventStore(db)
        return
    if "://" in kind:
        store = sql_store(kind)
        await store.initialize()
        try:
            yield store
        finally:
            await store.close()
        return
    yield FileEventStore(
        path,
        format="json" if kind == "arrays" else "jsonl",
        file_per_session=kind != "lines in one file",
        rotate_size=4000 if kind == "lines that rotate" else 10 << 20,
    )


def held_bytes() -> int:
    """Resident, without the pages of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise NotImplementedError


async def _measure(kind: str, count: int, way: str, directory: Path) -> int:
    source = Made(count)
    if way == "read":
        tracemalloc.start()
        moved = await migrate(source, source, batch=BATCH)
        assert (moved.found, moved.present, moved.verified) == (count, count, count)
        return tracemalloc.get_traced_memory()[1]
    before = most = held_bytes()

    def look(_moved: Moved | None = None) -> None:
        nonlocal most
        most = max(most, held_bytes())

    async with opened(kind, directory / "events") as target:
        if way == "kill":
            await migrate(source, target, batch=50, progress=lambda _: print(flush=True))
        elif way == "migrate":
            moved = await migrate(source, target, batch=BATCH, progress=look)
            assert (moved.found, moved.stored, moved.verified) == (count, count, count)
        else:
            async for events in source.iterate(batch=BATCH):
                assert await target.store_many(events) == len(events)
                look()
            assert await target.stored([made(0)]) == [made(0)]
        look()
    return most - before


if __name__ == "__main__":
    _kind, _count, _way, _directory = sys.argv[1:]
    print(asyncio.run(_measure(_kind, int(_count), _way, Path(_directory))))
    sys.stdout.flush()
    os._exit(0)
