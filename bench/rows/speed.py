"""Rows that time calls: AmberDB and every peer take turns at the same work.

Invariants:
- Durable rows put each document once per engine, the same documents in the same order.
- Before a read is timed, all engines have to answer a sample equally, or the row raises.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from time import perf_counter_ns

from bench.engines.engine import Engine
from bench.harness.context import Context
from bench.harness.line import Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS, NEWEST, SEED, WRITER_THREADS, Document

_SAMPLE = 20


def put(context: Context) -> Iterator[Line]:
    scale = context.scale
    shares = [context.fresh(scale.puts) for _ in range(scale.rounds)]

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        return lambda number, sampler: sampler.each(engine.put, shares[number])

    engines = context.settled_fleet()
    measured = interleave(scale.rounds, {name: turn(one) for name, one in engines.items()})
    yield Line("put", "single durable put, 1 thread", "us", measured, Budget(1.2, 1.3))


def put8(context: Context) -> Iterator[Line]:
    scale = context.scale
    rounds: list[list[list[Document]]] = []
    for _ in range(scale.rounds):
        fresh = context.fresh(WRITER_THREADS * scale.puts_per_thread)
        rounds.append([fresh[thread::WRITER_THREADS] for thread in range(WRITER_THREADS)])

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        return lambda number, sampler: sampler.threads(engine.put, rounds[number])

    engines = context.settled_fleet()
    measured = interleave(scale.rounds, {name: turn(one) for name, one in engines.items()})
    title = f"durable puts, {WRITER_THREADS} threads, wall time per put"
    yield Line("put8", title, "us", measured, Budget(4, 6))


def put_many(context: Context) -> Iterator[Line]:
    scale = context.scale
    shares = [
        list(events.batches(number * scale.put_batches * BATCH_DOCUMENTS, count))
        for number in range(scale.rounds)
        if (count := scale.put_batches * BATCH_DOCUMENTS)
    ]
    settled: dict[str, Sampler] = {}

    def turn(name: str, engine: Engine) -> Callable[[int, Sampler], None]:
        whole = settled[name] = Sampler()

        def run(number: int, burst: Sampler) -> None:
            documents = scale.put_batches * BATCH_DOCUMENTS
            samples = _time_each(engine.put_many, shares[number])
            before = perf_counter_ns()
            engine.settle()
            settling = perf_counter_ns() - before
            burst.add_round(sum(samples), samples, operations=documents)
            whole.add_round(sum(samples) + settling, operations=documents)

        return run

    with context.fresh_engines("put_many") as engines:
        turns = {name: turn(name, engine) for name, engine in engines.items()}
        measured = interleave(scale.rounds, turns)
    title = f"put_many of {BATCH_DOCUMENTS:,}, per document"
    yield Line("put_many", f"{title}, burst", "us", measured)
    final = {name: sampler.measured() for name, sampler in settled.items()}
    yield Line("put_many", f"{title}, until settled", "us", final, Budget(1.2, 2))


def get(context: Context) -> Iterator[Line]:
    scale = context.scale
    rng = random.Random(SEED)
    rounds = [
        [events.document_id(rng.randrange(scale.base)) for _ in range(scale.gets)]
        for _ in range(scale.rounds)
    ]

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        return lambda number, sampler: sampler.all(engine.get, rounds[number])

    engines = context.settled_fleet()
    _agree(engines, "get", lambda engine: [engine.get(key) for key in rounds[0][:_SAMPLE]])
    measured = interleave(scale.rounds, {name: turn(one) for name, one in engines.items()})
    budget = Budget(2.5, note="aim: past lmdb")
    yield Line("get", "get by id, decoded", "us", measured, budget)


def newest(context: Context) -> Iterator[Line]:
    scale = context.scale
    rng = random.Random(SEED)
    rounds = [
        [events.entity_id(rng.randrange(scale.base)) for _ in range(scale.finds)]
        for _ in range(scale.rounds)
    ]

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        return lambda number, sampler: sampler.all(engine.newest, rounds[number])

    def run(engines: Mapping[str, Engine]) -> Line:
        _agree(engines, "newest", lambda one: [one.newest(key) for key in rounds[0][:_SAMPLE]])
        measured = interleave(scale.rounds, {name: turn(one) for name, one in engines.items()})
        return Line("newest", f"newest {NEWEST} of one entity, decoded", "us", measured)

    line = run(context.settled_fleet())
    line.budget = Budget(1.4, 1.6)
    yield line
    fresh = context.fresh(scale.put_batches * BATCH_DOCUMENTS // 2)
    for engine in context.fleet().values():
        engine.put_many(fresh)
    line = run(context.fleet())
    line.title = f"  the same, {len(fresh):,} documents not settled"
    yield line


def update(context: Context) -> Iterator[Line]:
    scale = context.scale
    rng = random.Random(SEED)
    # Six digits: SQLite's json_set keeps 15, and the engines' answers are compared.
    rounds = [
        [
            (events.document_id(rng.randrange(scale.base)), round(rng.random(), 6))
            for _ in range(scale.puts)
        ]
        for _ in range(scale.rounds)
    ]

    def turn(engine: Engine) -> Callable[[int, Sampler], None]:
        def change(item: tuple[str, float]) -> None:
            engine.update(*item)

        return lambda number, sampler: sampler.each(change, rounds[number])

    engines = context.settled_fleet()
    measured = interleave(scale.rounds, {name: turn(one) for name, one in engines.items()})
    _agree(engines, "update", lambda one: [one.get(key) for key, _ in rounds[-1][:_SAMPLE]])
    yield Line("update", "update one field, durable", "us", measured, Budget(1, 1.1))


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
            before = perf_counter_ns()
            removed = engine.expire(datetime.now(UTC))
            expired = perf_counter_ns()
            engine.settle()
            after = perf_counter_ns()
            if removed != scale.expired:
                raise RuntimeError(f"{name} removed {removed} of {scale.expired} documents")
            sampler.add_round(expired - before, operations=removed)
            whole.add_round(after - before, operations=removed)

        return run

    with context.fresh_engines("expire", expiring=True) as engines:
        turns = {name: turn(name, engine) for name, engine in engines.items()}
        measured = interleave(scale.rounds, turns)
    title = "remove expired documents, per document"
    yield Line(
        "expire", f"{title}, durable", "us", measured, Budget(1.2, note="aim: past rocksdict")
    )
    final = {name: sampler.measured() for name, sampler in settled.items()}
    yield Line(
        "expire", f"{title}, until settled", "us", final, Budget(1.2, note="aim: past rocksdict")
    )


def _time_each(
    call: Callable[[list[Document]], object], batches: list[list[Document]]
) -> list[int]:
    samples: list[int] = []
    for batch in batches:
        before = perf_counter_ns()
        call(batch)
        samples.append(perf_counter_ns() - before)
    return samples


def _agree(engines: Mapping[str, Engine], row: str, ask: Callable[[Engine], list[object]]) -> None:
    """Raises RuntimeError unless all engines give equal answers."""
    answers = {name: ask(engine) for name, engine in engines.items()}
    first = next(iter(answers.values()))
    if differing := [name for name, answer in answers.items() if answer != first]:
        raise RuntimeError(f"{row}: {', '.join(differing)} and {next(iter(answers))} differ")


ROWS = (
    Row("put", "one durable put at a time, three ordered indexes", put),
    Row("put8", "durable puts from eight threads", put8),
    Row("put_many", "batches of 1,000, burst and until settled", put_many),
    Row("get", "random documents by id", get),
    Row("newest", "newest 50 of one entity", newest),
    Row("update", "one field of one document, durable", update),
    Row("expire", "remove expired documents and their index entries", expire),
)
