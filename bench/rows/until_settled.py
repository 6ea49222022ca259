"""Rows about writes until they are in the data files: batches, and removal of what has expired.

Invariants:
- Durable rows put each document once per engine, the same documents in the same order.
- These rows have one state: they measure the way from commit to data file.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import perf_counter_ns, process_time_ns

from bench.engines.engine import Engine
from bench.harness.context import Context
from bench.harness.line import Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS


def put_many_settled(context: Context) -> Iterator[Line]:
    scale = context.scale
    shares = [
        list(events.batches(number * scale.put_batches * BATCH_DOCUMENTS, count))
        for number in range(scale.rounds)
        if (count := scale.put_batches * BATCH_DOCUMENTS)
    ]

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        def run(number: int, sampler: Sampler) -> None:
            documents = scale.put_batches * BATCH_DOCUMENTS
            cpu, before = process_time_ns(), perf_counter_ns()
            for batch in shares[number]:
                engine.put_many(batch)
            engine.settle()
            elapsed, cpu = perf_counter_ns() - before, process_time_ns() - cpu
            sampler.add_round(elapsed, operations=documents, cpu_ns=cpu)

        return run

    with context.fresh_engines("put_many") as engines:
        turns = {name: turn(engine) for name, engine in engines.items()}
        measured = interleave(scale.rounds, turns)
    title = f"put_many of {BATCH_DOCUMENTS:,} into an empty database, per document, until settled"
    yield Line("put_many_settled", title, "us", measured, Budget(1.2, 2))


def expire(context: Context) -> Iterator[Line]:
    """Each round puts documents of which every second one has expired, settles, and expires."""
    scale = context.scale
    count = 2 * scale.expired
    stride = -(-count // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
    shares = [
        list(events.documents(number * stride, count, expired_every=2))
        for number in range(scale.rounds)
    ]
    settled: dict[str, Sampler] = {}

    def turn(name: str, engine: Engine) -> Callable[[int, Sampler], None]:
        whole = settled[name] = Sampler()

        def run(number: int, sampler: Sampler) -> None:
            engine.put_many(shares[number])
            engine.settle()
            cpu, before = process_time_ns(), perf_counter_ns()
            removed = engine.expire(datetime.now(UTC))
            cpu_expired, expired = process_time_ns(), perf_counter_ns()
            engine.settle()
            after, cpu_after = perf_counter_ns(), process_time_ns()
            if removed != scale.expired:
                raise RuntimeError(f"{name} removed {removed} of {scale.expired} documents")
            sampler.add_round(expired - before, operations=removed, cpu_ns=cpu_expired - cpu)
            whole.add_round(after - before, operations=removed, cpu_ns=cpu_after - cpu)

        return run

    with context.fresh_engines("expire", expiring=True) as engines:
        turns = {name: turn(name, engine) for name, engine in engines.items()}
        measured = interleave(scale.rounds, turns)
    title = "remove expired documents, per document"
    yield Line(
        "expire", f"{title}, durable", "us", measured, Budget(1.5, note="aim: past rocksdict")
    )
    final = {name: sampler.measured() for name, sampler in settled.items()}
    yield Line(
        "expire", f"{title}, until settled", "us", final, Budget(1.5, note="aim: past rocksdict")
    )


ROWS = (
    Row("put_many_settled", "batches of 1,000, and the checkpoint", put_many_settled),
    Row("expire", "removal of expired documents by the database itself", expire),
)
