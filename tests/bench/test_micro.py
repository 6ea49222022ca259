"""Micro-benchmarks: a few single calls, small enough for every test run.

They detect a call that became several times slower; `python -m bench` measures precisely. To see
the figures: `pytest tests/bench --benchmark-only -n 0`. With xdist each call simply runs once.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb.index.ordered.keys import encode
from bench.workloads.events import INDEXES, NEWEST, Document, documents

# The fixture `benchmark` is Any: its package has no types.

LOADED = 2_000
ENTITY = "entity-loaded"
ROUNDS = 200


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Iterator[amberdb.Collection]:
    """Documents of one entity, checkpointed."""
    path: Path = tmp_path_factory.mktemp("micro") / "micro.amber"
    with amberdb.open(path, sync="os") as db:
        indexes = [amberdb.Ordered(*fields) for fields in INDEXES]
        collection = db.collection("event", indexes=indexes)
        collection.put_many([{**one, "entity_id": ENTITY} for one in documents(0, LOADED)])
        db.checkpoint()
        yield collection


def test_put(benchmark: Any, events: amberdb.Collection) -> None:
    fresh = documents(10_000, ROUNDS)
    before = len(events)

    def next_document() -> tuple[tuple[Document], dict[str, object]]:
        return (next(fresh),), {}

    benchmark.pedantic(events.put, setup=next_document, rounds=ROUNDS)
    assert len(events) > before


def test_get(benchmark: Any, events: amberdb.Collection) -> None:
    keys = itertools.cycle([str(one["id"]) for one in documents(0, LOADED)])
    found = benchmark.pedantic(lambda: events.get(next(keys)), rounds=ROUNDS, iterations=20)
    assert found is not None


def test_find_newest_50(benchmark: Any, events: amberdb.Collection) -> None:
    def newest() -> list[Document]:
        return list(events.find({"entity_id": ENTITY}, order_by="-created_at", limit=NEWEST))

    page = benchmark.pedantic(newest, rounds=ROUNDS)
    assert [one["id"] for one in page] == [
        one["id"] for one in reversed(list(documents(1_000, 1_000))[-NEWEST:])
    ]


def test_encode_key(benchmark: Any) -> None:
    document = next(documents(0, 1))
    fields = [document[name] for name in INDEXES[0]]
    encoded = benchmark.pedantic(
        lambda: b"".join(map(encode, fields)), rounds=ROUNDS, iterations=100
    )
    assert encoded.startswith(encode(document["entity_id"]))
