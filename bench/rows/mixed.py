"""A row about mixed work: YCSB's workloads A, B and E over the event documents.

Invariants:
- A is half reads and half updates, B 5 % updates, E 95 % scans of 1 to 100 documents and 5 % puts
  of new ones. Writes are durable.
- Keys are drawn with the frequencies of a Zipf distribution, and frequent ones lie apart.
- Every engine makes the same calls in the same order; a call's kind is part of the item.
"""

from typing import Any, TypeAlias

from bench.engines.amber import AmberEngine
from bench.engines.engine import Engine
from bench.engines.lmdb import LmdbPeer
from bench.engines.rocksdb import RocksPeer
from bench.engines.sqlite import SqlitePeer
from bench.harness.line import Budget
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.harness.state import ALTERNATING, STATES
from bench.rows.families import EVENTS
from bench.rows.speed import digest, random_of
from bench.workloads import events

Call: TypeAlias = tuple[str, Any]

_SCAN_MAX = 100
_KINDS = tuple(kind.name for kind in (AmberEngine, SqlitePeer, LmdbPeer, RocksPeer))
_STATES = tuple(state for state in STATES if state is not ALTERNATING)
"""The work itself alternates."""


def _items(draw: Draw, workload: str) -> list[Call]:
    rng = random_of(draw, f"mixed:{workload}")
    share = {"A": 0.5, "B": 0.05, "E": 0.05}[workload]
    stored = sum(map(len, draw.stored))
    count = draw.count(draw.scale.mixed)
    writes = [rng.random() < share for _ in range(count)]
    fresh = iter(draw.fresh(max(1, sum(writes))))
    found: list[Call] = []
    for is_write in writes:
        if is_write and workload == "E":
            found.append(("put", next(fresh)))
            continue
        rank = int(stored ** rng.random()) - 1
        key = events.document_id(draw.place(rank * 2_654_435_761 % stored / stored))
        if workload == "E":
            found.append(("scan", (key, rng.randint(1, _SCAN_MAX))))
        else:
            found.append(("update", (key, round(rng.random(), 6))) if is_write else ("get", key))
    return found


def _call(engine: Engine, item: Call) -> object:
    kind, argument = item
    if kind == "get":
        return engine.get(argument)
    if kind == "scan":
        return engine.scan(*argument)
    if kind == "put":
        engine.put(argument)
    else:
        engine.update(*argument)
    return None


def _answer(engine: Engine, item: Call) -> str:
    """Of the state that the calls leave."""
    kind, argument = item
    if kind == "scan":
        return digest(engine.scan(*argument))
    key = argument if kind == "get" else argument["id"] if kind == "put" else argument[0]
    return digest(engine.get(key))


def _workload(name: str, about: str) -> Operation[Engine, Call]:
    return Operation(
        title=f"YCSB {name}: {about}",
        family=EVENTS,
        items=lambda draw: _items(draw, name),
        call=_call,
        answer=_answer,
        kinds=_KINDS,
        budget=Budget(1.1, 1.5),
        states=_STATES,
        writes=True,
    )


ROWS = (
    Row(
        "mixed",
        "reads, durable writes and short scans mixed (YCSB A, B, E)",
        operations=(
            _workload("A", "half reads, half updates"),
            _workload("B", "95 % reads, 5 % updates"),
            _workload("E", "95 % scans, 5 % puts"),
        ),
    ),
)
