"""Rows about a database that two processes write: a put and a get of the one that follows, while
the other one puts as fast as it can, compared with SQLite in WAL mode used by two processes, and
with a database that is this process's own.

Invariants:
- All puts are durable. In each round one engine's other process writes, and no other's.
"""

import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import amberdb
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave

OWN: Final = "amberdb, its own"
SQLITE: Final = "sqlite"
_DOCUMENT: Final = {"user": "lin", "content": "the umbrella is in the car, and it rains"}


def _amber(path: str, own: bool) -> tuple[Callable[[str], object], Callable[[str], object], Any]:
    db = amberdb.open(path) if own else amberdb.connect(path)
    notes = db.collection("note")
    return (lambda id: notes.put({"id": id, **_DOCUMENT})), notes.get, db


def _sqlite(path: str) -> tuple[Callable[[str], object], Callable[[str], object], Any]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, document TEXT)")
    body = amberdb.to_json(_DOCUMENT)

    def put(id: str) -> object:
        return connection.execute("REPLACE INTO note VALUES (?, ?)", (id, str(body)))

    def get(id: str) -> object:
        return connection.execute("SELECT document FROM note WHERE id = ?", (id,)).fetchone()

    return put, get, connection


def _other(kind: str, path: str, ready: Event, writes: Event, ends: Event) -> None:
    """The other process: it puts while `writes` is set."""
    put, _, db = _sqlite(path) if kind == SQLITE else _amber(path, own=False)
    ready.set()
    number = 0
    while not ends.is_set():
        if writes.wait(0.05):
            number += 1
            put(f"other {number % 1000}")
    db.close()


class _Pair:
    """A database that this process and another one have open."""

    def __init__(self, kind: str, path: Path, stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        ready, self.writes, ends = context.Event(), context.Event(), context.Event()
        arguments = kind, str(path), ready, self.writes, ends
        other = context.Process(target=_other, args=arguments, daemon=True)
        other.start()
        stack.callback(other.join)
        stack.callback(ends.set)
        ready.wait(60)
        self.put, self.get, db = _sqlite(str(path)) if kind == SQLITE else _amber(str(path), False)
        stack.callback(db.close)


def sharing(context: Context) -> Iterator[Line]:
    where = context.directory / "sharing"
    where.mkdir(parents=True, exist_ok=True)
    puts = context.scale.puts
    with ExitStack() as stack:
        amber = _Pair(AMBER, where / "shared.amber", stack)
        sqlite = _Pair(SQLITE, where / "shared.db", stack)
        put, get, own = _amber(str(where / "own.amber"), own=True)
        stack.callback(own.close)
        calls = {
            AMBER: (amber.put, amber.get),
            SQLITE: (sqlite.put, sqlite.get),
            OWN: (put, get),
        }
        pairs = {AMBER: amber, SQLITE: sqlite}
        idle = {name: _turn(None, each[0], puts) for name, each in calls.items()}
        yield _line(context, "a durable put, the other process idle", idle, 1.0)
        busy = {name: _turn(pairs.get(name), each[0], puts) for name, each in calls.items()}
        yield _line(context, "a durable put, the other process puts too", busy, 1.0)
        reads = {name: _turn(None, each[1], 10 * puts) for name, each in calls.items()}
        yield _line(context, "a get by id", reads, 0.5)


def _line(
    context: Context, title: str, turns: dict[str, Callable[[int, Sampler], None]], floor: float
) -> Line:
    measured = interleave(context.scale.rounds, turns)
    return Line("sharing", title, "us", measured, Budget(floor, against=SQLITE), {})


def _turn(
    pair: _Pair | None, call: Callable[[str], object], count: int
) -> Callable[[int, Sampler], None]:
    def turn(number: int, sampler: Sampler) -> None:
        ids = [f"own {n % 1000}" for n in range(count)]
        if pair is not None:
            pair.writes.set()
        sampler.each(call, ids)
        if pair is not None:
            pair.writes.clear()

    return turn


ROWS = (
    Row("sharing", "two processes that write one database, compared with SQLite in WAL", sharing),
)
