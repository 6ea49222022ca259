"""A row about event loops: the lag of a loop while tasks put at a steady rate, and how many puts
one sync serves when all are awaited at once.

Invariants:
- Puts are paced by the clock: a late put is followed at once by the next, so the rate holds.
- The lag is that of a task that sleeps for a millisecond at a time. A loop without a database is
  measured in turns with it: its lag is the machine's.
"""

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter_ns
from typing import Any

from amberdb import Ordered, aio
from bench.harness.context import Context
from bench.harness.latency import latencies_us, percentile
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.row import Row
from bench.workloads.events import Document

_PUTS_PER_S = 1_000
_IDLE = "a loop without a database"
_TICK_S = 0.001
_INDEXES = (
    Ordered("entity_id", "created_at"),
    Ordered("created_at"),
    Ordered("category", "created_at"),
)


def lag(context: Context) -> Iterator[Line]:
    context.directory.mkdir(parents=True, exist_ok=True)
    yield from asyncio.run(_measured(context))


async def _measured(context: Context) -> list[Line]:
    count = 10 * context.scale.puts
    lags: dict[str, list[list[int]]] = {AMBER: [], _IDLE: []}
    async with aio.open(context.directory / "aio.amber") as db:
        events = await db.collection("event", indexes=_INDEXES)
        before = await db.stats()
        for _ in range(context.scale.rounds):
            documents = context.fresh(count)
            lags[AMBER].append(await _lags(_paced(events, documents)))
            lags[_IDLE].append(await _lags(asyncio.sleep(count / _PUTS_PER_S)))
        after = await db.stats()
        documents = context.fresh(count)
        began = perf_counter_ns()
        await asyncio.gather(*map(events.put, documents))
        took_ns = perf_counter_ns() - began
        last = await db.stats()
    notes: dict[str, Any] = {
        "puts per sync, paced": _puts_per_sync(before, after, count * context.scale.rounds),
        "puts per sync, all at once": _puts_per_sync(after, last, count),
        "us per put, all at once": round(took_ns / 1000 / count, 1),
        "checkpoints": last["checkpoints"],
    }
    engines = {name: _tail(rounds) for name, rounds in lags.items()}
    title = f"p99.9 of a loop's lag at {_PUTS_PER_S:,} durable puts a second"
    return [Line("aio", title, "ms", engines, Budget(10, against="", kind="at most"), notes)]


async def _paced(events: aio.Collection, documents: Sequence[Document]) -> None:
    """Starts a put every millisecond, whether or not the previous one has ended."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as puts:
        for number, document in enumerate(documents):
            await asyncio.sleep(began + number / _PUTS_PER_S - loop.time())
            puts.create_task(events.put(document))


async def _lags(work: Any) -> list[int]:
    """The lags in nanoseconds while the work runs."""
    task = asyncio.ensure_future(work)
    found: list[int] = []
    while not task.done():
        before = perf_counter_ns()
        await asyncio.sleep(_TICK_S)
        found.append(max(0, perf_counter_ns() - before - int(_TICK_S * 1e9)))
    await task
    return found


def _puts_per_sync(before: Any, after: Any, puts: int) -> float:
    syncs: int = after.sync.count - before.sync.count
    return round(puts / max(1, syncs), 2)


def _tail(rounds: Sequence[Sequence[int]]) -> Measured:
    """The rounds in milliseconds, the single lags in microseconds."""
    latencies = latencies_us([lag for one in rounds for lag in one])
    figures = [percentile(sorted(one), 99.9) / 1e6 for one in rounds]
    return Measured(figures, sum(map(len, rounds)), latencies)


ROWS = (Row("aio", "the lag of an event loop during durable puts", lag),)
