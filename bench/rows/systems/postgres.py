"""Rows about a database on PostgreSQL, compared with psycopg alone on a table of typed columns with
the same indexes.

    export AMBERDB_BENCH_POSTGRESQL=postgresql://user:password@host/database
    make bench ARGS="--rows postgres"

Invariants:
- Both have the documents of workloads/events.py, of fewer entities, are durable as the server is
  set up, and return equal documents.
- psycopg prepares its statements, sends and reads binary values, and has one connection for each
  thread.
- They take turns after a few calls, since a sync takes five times as long in one second as in
  another. A note has the ratio of the fastest rounds, which other work disturbs least.
- Without the variable, or the driver, the rows are left out.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeAlias

import amberdb
from amberdb import Ordered
from bench.engines.database import library
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events
from bench.workloads.events import Document

VARIABLE: Final = "AMBERDB_BENCH_POSTGRESQL"
BARE: Final = "psycopg"
_SCHEMA: Final = "amberdb_bench"
_BASE: Final = 5_000
_ENTITIES: Final = 50
_BATCH: Final = 1_000
_THREADS: Final = 8
_COUNTERS: Final = 4
_CALLS: Final = 25
_TURNS: Final = 5
"""For each round of the other rows: short ones."""
_COLUMNS: Final = (
    ("id", "text PRIMARY KEY"),
    ("entity_id", "text"),
    ("memory_type", "text"),
    ("category", "text"),
    ("content", "text"),
    ("created_at", "timestamptz"),
    ("score", "float8"),
    ("is_permanent", "bool"),
    ("metadata", "jsonb"),
)
_NAMES: Final = ", ".join(name for name, _ in _COLUMNS)
_INSERT: Final = f"INSERT INTO bench_bare ({_NAMES}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
_UPSERT: Final = f"{_INSERT} ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name, _ in _COLUMNS[1:]
)
_SELECT: Final = f"SELECT {_NAMES} FROM bench_bare WHERE"


def _entity(number: int) -> str:
    return f"entity-{number % _ENTITIES:04d}"


def _documents(start: int, count: int) -> list[Document]:
    return [
        {**document, "entity_id": _entity(start + number)}
        for number, document in enumerate(events.documents(start, count))
    ]


_Turn: TypeAlias = Callable[[int, Sampler], None]


class _Engine(ABC):
    """What both do."""

    @abstractmethod
    def put(self, document: Document) -> object: ...

    @abstractmethod
    def put_new(self, document: Document) -> object:
        """Its id is made by the engine, or known to be new."""

    @abstractmethod
    def put_many(self, documents: Sequence[Document]) -> object: ...

    @abstractmethod
    def get(self, id: str) -> object: ...

    @abstractmethod
    def newest(self, entity: str) -> object: ...

    @abstractmethod
    def update(self, id: str) -> object: ...

    @abstractmethod
    def get_and_put(self, id: str) -> object:
        """One transaction that changes a document."""

    @abstractmethod
    def count(self, counter: str) -> object:
        """One transaction that increases a counter."""

    @abstractmethod
    def close(self) -> None: ...


class _Amber(_Engine):
    """This project."""

    def __init__(self, url: str) -> None:
        mark = "&" if "?" in url else "?"
        self._url = url
        self._drop()
        self._db = db = amberdb.connect(f"{url}{mark}schema={_SCHEMA}")
        indexes = [Ordered(*fields) for fields in events.INDEXES]
        self._events = db.collection("event", indexes=indexes)
        counters = db.collection("counter")
        counters.put_many({"id": f"{number}", "n": 0} for number in range(_COUNTERS))

    def put(self, document: Document) -> object:
        return self._events.put(document)

    def put_new(self, document: Document) -> object:
        return self._events.put({name: document[name] for name in document if name != "id"})

    def put_many(self, documents: Sequence[Document]) -> object:
        return self._events.put_many(documents)

    def get(self, id: str) -> object:
        return self._events.get(id)

    def newest(self, entity: str) -> object:
        return self._events.find({"entity_id": entity}, order_by="-created_at", limit=50)

    def update(self, id: str) -> object:
        return self._events.update(id, {"score": 0.5})

    def get_and_put(self, id: str) -> object:
        with self._db.transaction() as tx:
            document = tx["event"][id]
            return tx["event"].put({**document, "score": document["score"] / 2})

    def count(self, counter: str) -> object:
        with self._db.transaction() as tx:
            document = tx["counter"][counter]
            return tx["counter"].put({**document, "n": document["n"] + 1})

    def close(self) -> None:
        self._db.close()
        self._drop()

    def _drop(self) -> None:
        with library("psycopg").connect(self._url) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


class Bare(_Engine):
    """The driver alone."""

    def __init__(self, url: str) -> None:
        self._psycopg: Any = library("psycopg")
        self._rows = library("psycopg.rows")
        self._jsonb = library("psycopg.types.json").Jsonb
        self._url = url
        self._connection = self._connected()
        self._open: list[Any] = []
        """Those of threads, in no thread's hand."""
        columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
        for statement in (
            "DROP TABLE IF EXISTS bench_bare, bench_counter",
            f"CREATE TABLE bench_bare ({columns})",
            *(f"CREATE INDEX ON bench_bare ({', '.join(each)})" for each in events.INDEXES),
            "CREATE TABLE bench_counter (id text PRIMARY KEY, n bigint NOT NULL)",
            f"INSERT INTO bench_counter SELECT i::text, 0 FROM generate_series(0, {_COUNTERS}) i",
        ):
            self._connection.execute(statement)

    def _connected(self) -> Any:
        return self._psycopg.connect(self._url, autocommit=True, row_factory=self._rows.dict_row)

    def _values(self, document: Document) -> list[Any]:
        values = [document[name] for name, _ in _COLUMNS]
        values[-1] = self._jsonb(values[-1])
        return values

    def put(self, document: Document) -> object:
        return self._connection.execute(_UPSERT, self._values(document), binary=True)

    def put_new(self, document: Document) -> object:
        return self._connection.execute(_INSERT, self._values(document), binary=True)

    def put_many(self, documents: Sequence[Document]) -> object:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            values = [self._values(document) for document in documents]
            return cursor.executemany(_INSERT, values)

    def get(self, id: str) -> object:
        return self._connection.execute(f"{_SELECT} id = %s", [id], binary=True).fetchone()

    def newest(self, entity: str) -> object:
        return self._connection.execute(
            f"{_SELECT} entity_id = %s ORDER BY created_at DESC LIMIT 50", [entity], binary=True
        ).fetchall()

    def update(self, id: str) -> object:
        return self._connection.execute("UPDATE bench_bare SET score = %s WHERE id = %s", [0.5, id])

    def get_and_put(self, id: str) -> object:
        connection = self._connection
        with connection.transaction():
            sql = f"{_SELECT} id = %s FOR UPDATE"
            document = connection.execute(sql, [id], binary=True).fetchone()
            document["score"] /= 2
            return connection.execute(_UPSERT, self._values(document), binary=True)

    def count(self, counter: str) -> object:
        connection = self._open.pop() if self._open else self._connected()
        with connection.transaction():
            sql = "SELECT n FROM bench_counter WHERE id = %s FOR UPDATE"
            n = connection.execute(sql, [counter], binary=True).fetchone()["n"]
            sql = "UPDATE bench_counter SET n = %s WHERE id = %s"
            connection.execute(sql, [n + 1, counter])
        self._open.append(connection)
        return n

    def close(self) -> None:
        self._connection.execute("DROP TABLE bench_bare, bench_counter")
        for connection in (self._connection, *self._open):
            connection.close()


class _Fresh:
    """Documents that neither engine has."""

    def __init__(self) -> None:
        self._next = _BASE

    def take(self, rounds: int, count: int) -> list[list[Document]]:
        """Some for each round."""
        start, blocks = self._next, -(-rounds * count // events.BATCH_DOCUMENTS)
        self._next += blocks * events.BATCH_DOCUMENTS
        found = _documents(start, rounds * count)
        return [found[at * count : (at + 1) * count] for at in range(rounds)]


def postgres(context: Context) -> Iterator[Line]:
    url = os.environ.get(VARIABLE)
    if not url:
        context.say(f"postgres: left out, {VARIABLE} has no URL of a PostgreSQL server")
        return
    with ExitStack() as stack:
        engines: dict[str, _Engine] = {AMBER: _Amber(url), BARE: Bare(url)}
        for engine in engines.values():
            stack.callback(engine.close)
            for batch in events.in_batches(_documents(0, _BASE), _BATCH):
                engine.put_many(batch)
        yield from _writes(context, engines)
        ids = [events.document_id(number * 7 % _BASE) for number in range(100)]
        entities = [_entity(number) for number in range(_ENTITIES)]
        _check_equal(engines, ids, entities)
        for title, method, most, items in (
            ("a document by id", "get", 1.3, ids),
            ("the newest 50 of an entity", "newest", 2.0, entities),
            ("an update of one field, durable", "update", 2.2, ids[:_CALLS]),
            ("a transaction of a get and a put", "get_and_put", 1.5, ids[:_CALLS]),
        ):
            turns = {name: _turn(engine, method, items) for name, engine in engines.items()}
            yield _line(context, title, most, turns)
        title = f"{_THREADS} threads on {_COUNTERS} counters, a transaction"
        turns = {name: _counting(engine) for name, engine in engines.items()}
        yield _line(context, title, 1 / 0.8, turns)


def _writes(context: Context, engines: dict[str, _Engine]) -> Iterator[Line]:
    rounds, fresh = context.scale.rounds * _TURNS, _Fresh()
    for title, method in (
        ("a put of a new document, durable", "put_new"),
        ("the same with an id of the program", "put"),
    ):
        new = fresh.take(rounds, _CALLS)
        turns = {name: _turn(each, method, *new) for name, each in engines.items()}
        yield _line(context, title, 1.4, turns)
    batches = [[batch] for batch in fresh.take(rounds, _BATCH)]
    turns = {name: _turn(each, "put_many", *batches) for name, each in engines.items()}
    yield _line(context, f"a put_many of {_BATCH:,}, durable", 1.5, turns)


def _check_equal(engines: dict[str, _Engine], ids: list[str], entities: list[str]) -> None:
    amber, bare = engines.values()
    for id in ids:
        assert amber.get(id) == bare.get(id)
    for entity in entities:
        assert amber.newest(entity) == bare.newest(entity)


def _turn(engine: _Engine, method: str, *items: Sequence[Any]) -> _Turn:
    """Rounds of calls with these items, or with those of each round."""
    call = getattr(engine, method)
    return lambda number, sampler: sampler.each(call, items[number % len(items)])


def _counting(engine: _Engine) -> _Turn:
    shares = [[f"{n % _COUNTERS}" for n in range(at, at + _CALLS)] for at in range(_THREADS)]
    return lambda _, sampler: sampler.threads(engine.count, shares)


def _line(context: Context, title: str, most: float, turns: dict[str, _Turn]) -> Line:
    measured = interleave(context.scale.rounds * _TURNS, turns)
    least = {name: min(each.rounds) for name, each in measured.items()}
    ratio = least[AMBER] / least[BARE]
    context.say(
        f"postgres: {title}: {ratio:.2f}x of {BARE} in the fastest rounds "
        f"({least[AMBER]:.0f} and {least[BARE]:.0f} us)"
    )
    budget = Budget(most, against=BARE, kind="at most")
    notes = {"fastest rounds": {**least, "ratio": ratio}}
    return Line("postgres", title, "us", measured, budget, notes)


ROWS = (Row("postgres", "a database on PostgreSQL, compared with psycopg alone", postgres),)
