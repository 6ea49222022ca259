"""A row about a directory that is moved to PostgreSQL, compared with `executemany` of psycopg alone
into a table of typed columns with the same indexes.

    export AMBERDB_BENCH_POSTGRESQL=postgresql://user:password@host/database
    make bench ARGS="--rows moving"

Invariants:
- Both have the documents of workloads/events.py, in batches of as many, durable as the server is
  set up, into tables that are empty. psycopg has the documents in memory; the move reads them from
  the directory, reads each batch back, and builds the indexes at the end.
- No document has a vector: the graph over vectors would take most of the time.
- Without the variable, or the driver, the row is left out.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from time import perf_counter_ns
from typing import Final

import amberdb
from amberdb import Ordered
from amberdb.move import move
from bench.engines.database import library
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.rows.systems.postgres import BARE, VARIABLE, Bare
from bench.workloads import events

_COUNT: Final = 20_000
_BATCH: Final = 1_000
_SCHEMA: Final = "amberdb_bench_moving"


def moving(context: Context) -> Iterator[Line]:
    url = os.environ.get(VARIABLE)
    if not url:
        context.say(f"moving: left out, {VARIABLE} has no URL of a PostgreSQL server")
        return
    documents = events.documents(0, _COUNT)
    batches = list(events.in_batches(documents, _BATCH))

    def bare(_: int, sampler: Sampler) -> None:
        with closing(Bare(url)) as engine:
            began = perf_counter_ns()
            for batch in batches:
                engine.put_many(batch)
            sampler.add_round(perf_counter_ns() - began, operations=_COUNT)

    with amberdb.open(context.directory / "moving.amber") as db:
        source = db.collection("event", indexes=[Ordered(*each) for each in events.INDEXES])
        for batch in batches:
            source.put_many(batch)

        def moved(_: int, sampler: Sampler) -> None:
            with _target(url) as target:
                began = perf_counter_ns()
                report = move(db, target, batch=_BATCH, finish=True)
                sampler.add_round(perf_counter_ns() - began, operations=_COUNT)
            assert report.documents == _COUNT

        measured = interleave(context.scale.rounds, {AMBER: moved, BARE: bare})
    _drop(url)
    title = f"move of {_COUNT:,} documents, per document"
    budget = Budget(0.5, against=BARE)
    least = {name: min(each.rounds) for name, each in measured.items()}
    notes = {"fastest rounds": {**least, "ratio": least[BARE] / least[AMBER]}}
    yield Line("moving", title, "us", measured, budget, notes)


def _target(url: str) -> amberdb.Database:
    """A new database on the server."""
    _drop(url)
    return amberdb.connect(f"{url}{'&' if '?' in url else '?'}schema={_SCHEMA}")


def _drop(url: str) -> None:
    with library("psycopg").connect(url) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


ROWS = (Row("moving", "a directory moved to PostgreSQL, compared with psycopg alone", moving),)
