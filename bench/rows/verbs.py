"""Rows about the verbs of a collection, each against what a program would write without it.

Invariants:
- Before they are timed, both ways have to give the same answer.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

from bench.engines.amber import AmberEngine
from bench.harness.context import Context
from bench.harness.line import AMBER, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads.events import document_id

_IDS = 100
"""In one call of get_many()."""


def get_many(context: Context) -> Iterator[Line]:
    events = _events(context)
    rng = random.Random(1)
    asked = [
        [document_id(rng.randrange(context.scale.base)) for _ in range(_IDS)]
        for _ in range(max(1, context.scale.gets // _IDS))
    ]
    ways: dict[str, Callable[[list[str]], list[Any]]] = {
        AMBER: events.get_many,
        "gets": lambda ids: [events.get(id) for id in ids],
        "$in": lambda ids: events.find({"id": {"$in": ids}}),
    }
    assert ways[AMBER](asked[0]) == ways["gets"](asked[0])
    turns = {name: _turn(way, asked) for name, way in ways.items()}
    title = f"{_IDS} documents by id, decoded"
    yield Line("get_many", title, "us", interleave(context.scale.rounds, turns))


def values(context: Context) -> Iterator[Line]:
    events = _events(context)
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "the distinct categories": (
            lambda: events.distinct("category"),
            lambda: sorted({document["category"] for document in events.documents()}),
        ),
        "the documents of each category": (
            lambda: events.count_by("category"),
            lambda: _counted(document["category"] for document in events.documents()),
        ),
        "the newest time": (
            lambda: events.max("created_at"),
            lambda: max(document["created_at"] for document in events.documents()),
        ),
    }
    for title, (verb, scan) in calls.items():
        assert verb() == scan()
        turns = {AMBER: _once(verb), "scan": _once(scan)}
        yield Line("values", title, "us", interleave(context.scale.rounds, turns))


def _events(context: Context) -> Any:
    engine = context.settled_fleet()[AmberEngine.name]
    assert isinstance(engine, AmberEngine)
    return engine.events


def _counted(found: Iterator[Any]) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for value in found:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _turn(
    way: Callable[[list[str]], list[Any]], asked: list[list[str]]
) -> Callable[[int, Sampler], None]:
    return lambda number, sampler: sampler.each(way, asked)


def _once(call: Callable[[], Any]) -> Callable[[int, Sampler], None]:
    return lambda number, sampler: sampler.each(lambda _: call(), [None])


ROWS = (
    Row("get_many", "many documents by id, compared with a get for each and with $in", get_many),
    Row("values", "values of a field from an index, compared with a scan", values),
)
