"""Rows about a store of events on PostgreSQL, compared with its bare driver on a table of the same
columns and indexes.

    AMBERDB_BENCH_POSTGRESQL=postgresql://user:password@host/database make bench ARGS="--rows sql"

Invariants:
- Both are one connection of one event loop, and durable as the server is set up.
- The bare statements do the work that the store has the server do; they decode JSON and no more.
- Without the variable, or the driver, the rows are left out.
"""

import asyncio
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from amberdb._shared.words import texts_in
from amberdb.events import AgentEvent, EventType
from bench.engines.database import library
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave

VARIABLE: Final = "AMBERDB_BENCH_POSTGRESQL"
BARE: Final = "asyncpg"
_NAMES: Final = "event_id, agent_name, session_id, event_type, timestamp, data, metadata, words"
_READ: Final = f"SELECT {_NAMES.rpartition(', ')[0]} FROM bench_bare"
_INSERT: Final = (
    f"INSERT INTO bench_bare ({_NAMES}) VALUES"
    " ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, array_to_tsvector($8::text[]))"
    " ON CONFLICT (event_id) DO UPDATE SET position = excluded.position,"
    " agent_name = excluded.agent_name, session_id = excluded.session_id,"
    " event_type = excluded.event_type, timestamp = excluded.timestamp,"
    " data = excluded.data, metadata = excluded.metadata, words = excluded.words"
)
_BASE: Final = 5_000
_BATCH: Final = 500

Call = Callable[[int], Awaitable[object]]


def _event(number: int) -> AgentEvent:
    return AgentEvent(
        event_id=f"evt_{number}",
        agent_name=f"agent {number % 3}",
        session_id=f"session {number % 50}",
        event_type=list(EventType)[number % 9],
        data={
            "message": f"the umbrella is in the car, it rains on day {number} rare{number % 700}"
        },
        metadata={"source": "web"},
    )


class _Engine(ABC):
    """What both do; each method is called with a number."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def store(self, number: int) -> object: ...

    @abstractmethod
    async def store_many(self, number: int) -> object: ...

    @abstractmethod
    async def retrieve(self, number: int) -> object: ...

    @abstractmethod
    async def search(self, number: int) -> object: ...

    @abstractmethod
    async def stats(self, number: int) -> object: ...

    @abstractmethod
    async def close(self) -> None: ...


class _Store(_Engine):
    """The store of this project."""

    def __init__(self, url: str) -> None:
        self._store = library("amberdb.sql").PostgreSQLEventStore(
            url.replace("postgresql://", f"postgresql+{BARE}://"), name="bench_events"
        )

    async def open(self) -> None:
        await self._store.initialize()
        await self._store.clear()

    async def store(self, number: int) -> object:
        return await self._store.store(_event(number))

    async def store_many(self, number: int) -> object:
        return await self._store.store_many([_event(n) for n in range(number, number + _BATCH)])

    async def retrieve(self, number: int) -> object:
        return await self._store.retrieve(session_id=f"session {number % 50}", limit=50)

    async def search(self, number: int) -> object:
        return await self._store.search(f"rare{number % 700}", limit=10)

    async def stats(self, number: int) -> object:
        return await self._store.get_stats()

    async def close(self) -> None:
        await self._store.clear()
        await self._store.close()


class _Bare(_Engine):
    """The driver alone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def open(self) -> None:
        connection = self._connection = await library(BARE).connect(self._url)
        await connection.execute(
            "DROP TABLE IF EXISTS bench_bare; CREATE TABLE bench_bare"
            " (LIKE bench_events INCLUDING INDEXES INCLUDING IDENTITY)"
        )

    async def store(self, number: int) -> object:
        return await self._connection.execute(_INSERT, *self._row(_event(number)))

    async def store_many(self, number: int) -> object:
        rows = [self._row(_event(n)) for n in range(number, number + _BATCH)]
        async with self._connection.transaction():
            return await self._connection.executemany(_INSERT, rows)

    async def retrieve(self, number: int) -> object:
        rows = await self._connection.fetch(
            f"{_READ} WHERE session_id = $1 ORDER BY position DESC LIMIT 50",
            f"session {number % 50}",
        )
        return [{**row, "data": json.loads(row["data"])} for row in rows]

    async def search(self, number: int) -> object:
        return await self._connection.fetch(
            f"{_READ} WHERE words @@ $1::text::tsquery"
            " ORDER BY ts_rank(words, $1::text::tsquery) DESC, position DESC LIMIT 10",
            f"rare{number % 700}",
        )

    async def stats(self, number: int) -> object:
        return await self._connection.fetch(
            "SELECT event_type, count(*), min(timestamp), max(timestamp) FROM bench_bare"
            " GROUP BY event_type"
        )

    async def close(self) -> None:
        await self._connection.execute("DROP TABLE bench_bare")
        await self._connection.close()

    @staticmethod
    def _row(event: AgentEvent) -> tuple[object, ...]:
        stored = event.to_map()
        stored["data"], stored["metadata"] = json.dumps(stored["data"]), json.dumps({})
        words = library("amberdb.sql.full_text").indexed_words(texts_in(event.data))
        return (*stored.values(), words)


_CALLS: Final = (
    ("store", "one event, durable", 3.0, 40),
    ("store_many", f"{_BATCH} events in one call", 1.6, 1),
    ("retrieve", "the newest 50 of a session", 2.2, 40),
    ("search", "ten events with a rare word", 1.5, 40),
    ("stats", "the number of events of each type", 2.5, 10),
)
"""A method, what it does, how many times the bare driver's time it may take, calls in a round."""


def sql(context: Context) -> Iterator[Line]:
    url = os.environ.get(VARIABLE)
    if not url:
        context.say(f"sql: left out, {VARIABLE} has no URL of a PostgreSQL server")
        return
    with asyncio.Runner() as runner:
        engines: dict[str, _Engine] = {AMBER: _Store(url), BARE: _Bare(url)}
        for engine in engines.values():
            runner.run(engine.open())
            for number in range(0, _BASE, _BATCH):
                runner.run(engine.store_many(number))
        fresh = _BASE
        for name, what, most, calls in _CALLS:
            turns: dict[str, Callable[[int, Sampler], None]] = {}
            for label, engine in engines.items():
                call: Call = getattr(engine, name)
                turns[label] = _turn(runner, call, calls, fresh)
            measured = interleave(context.scale.rounds, turns)
            fresh += 100_000
            budget = Budget(round(1 / most, 2), against=BARE)
            yield Line("sql", what, "us", measured, budget, {})
        for engine in reversed(engines.values()):
            runner.run(engine.close())


def _turn(
    runner: "asyncio.Runner", call: Call, calls: int, first: int
) -> Callable[[int, Sampler], None]:
    def turn(number: int, sampler: Sampler) -> None:
        start = first + number * calls * _BATCH
        numbers = range(start, start + calls * _BATCH, _BATCH)
        sampler.each(lambda at: runner.run(_awaited(call, at)), numbers)

    return turn


async def _awaited(call: Call, number: int) -> object:
    return await call(number)


ROWS = (Row("sql", "a store of events on PostgreSQL, compared with its bare driver", sql),)
