"""A row about the p99 of durable puts while commits are shipped twice a second, compared with the
same puts when nothing is shipped.

Invariants:
- The target is a folder of the same disk, which costs the writer more than a bucket elsewhere.
- Both take turns, with and without, on one database.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from time import perf_counter_ns
from typing import Final

import amberdb
from amberdb.ship import ship
from bench.harness.context import Context
from bench.harness.latency import latencies_us
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import garbage_apart

NONE: Final = "amberdb, not shipping"
_ROUND_NS: Final = 4_000_000_000
"""Eight archives."""
_TEXT: Final = "x" * 200


def shipping(context: Context) -> Iterator[Line]:
    where = context.directory / "shipping"
    (where / "target").mkdir(parents=True)
    target = f"file://{where.resolve()}/target"
    engines = {AMBER: Measured(), NONE: Measured()}
    samples: dict[str, list[int]] = {AMBER: [], NONE: []}
    numbers = count()
    with amberdb.open(where / "t.amber") as db, garbage_apart():
        notes = db.collection("note")
        begin: dict[str, Callable[[], AbstractContextManager[object]]] = {
            NONE: nullcontext,
            AMBER: lambda: ship(db, target),
        }
        for _ in range(context.scale.rounds):
            for name, shipper in begin.items():
                with shipper():
                    round_ = _puts(lambda: notes.put({"id": f"{next(numbers)}", "t": _TEXT}))
                engines[name].rounds.append(latencies_us(round_)["p99"])
                samples[name] += round_
    for name, measured in engines.items():
        measured.operations = len(samples[name])
        measured.latencies = latencies_us(samples[name])
    title = "p99 of a durable put, shipped every 500 ms"
    yield Line("shipping", title, "us", engines, Budget(1.2, against=NONE, kind="at most"), {})


def _puts(put: Callable[[], object]) -> list[int]:
    samples: list[int] = []
    before = perf_counter_ns()
    end = before + _ROUND_NS
    while before < end:
        put()
        after = perf_counter_ns()
        samples.append(after - before)
        before = after
    return samples


ROWS = (Row("shipping", "p99 of puts whose commits are shipped twice a second", shipping),)
