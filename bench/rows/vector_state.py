"""Rows about vector search beside other work: a burst of writes, the build of a graph; and its
memory.

Invariants:
- Latency during other work is compared with latency without it, in the same run.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import amberdb
from amberdb import Ordered, Vector
from bench.engines.amber_search import AmberHybrid
from bench.engines.database import installed
from bench.engines.kinds import VECTOR_ENGINES
from bench.harness.context import Context
from bench.harness.latency import latencies_us
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.process import child
from bench.harness.row import Row
from bench.rows.families import BY_HAND, VECTORS
from bench.workloads import vectors
from bench.workloads.events import BATCH_DOCUMENTS, Document
from bench.workloads.vectors import Vectors

_BURST_COMMITS = 50
_IDLE_PASSES = 5
_ASK_STATS_EVERY = 20


def _arguments(context: Context, name: str) -> list[str]:
    base = context.base(VECTORS)
    path, options = base.path(name), base.options[name]
    return [name, str(path), str(options["dim"]), str(options["ef"])]


def vector_memory(context: Context) -> Iterator[Line]:
    kinds, left_out = installed(kind for kind in VECTOR_ENGINES if kind.name in (AMBER, BY_HAND))
    measured = {kind.name: Measured() for kind in kinds}
    notes: dict[str, Any] = dict(left_out)
    for _ in range(context.scale.builds):
        for kind in kinds:
            facts = child("vector_memory", *_arguments(context, kind.name))
            measured[kind.name].rounds.append(facts["anon_kib"] / 1024)
            if facts["stats"]:
                notes["db.stats()"] = facts["stats"]
    title = f"RssAnon after open of {context.scale.vectors:,} vectors and searches, over before"
    yield Line("vector_memory", title, "MiB", measured, None, notes)


def vector_burst(context: Context) -> Iterator[Line]:
    """One thread puts vectors, another puts small documents into another collection."""
    scale = context.scale
    count = min(_BURST_COMMITS * BATCH_DOCUMENTS, scale.vectors)
    batches = list(vectors.batches(0, count, scale.dim))
    as_bytes = [[{**one, "embedding": one["embedding"].tobytes()} for one in b] for b in batches]
    difference = Measured()
    notes: dict[str, Any] = {}
    for number in range(scale.builds):
        p99s: dict[str, float] = {}
        for name, burst in (("with the index", batches), ("without", as_bytes)):
            path = context.directory / f"vector-burst-{number}"
            samples = _puts_during(path, burst, scale.dim if burst is batches else None)
            shutil.rmtree(path)
            latencies = latencies_us(samples)
            p99s[name] = latencies["p99"] / 1e3
            shown = ", ".join(f"{key} {value / 1e3:.2f}" for key, value in latencies.items())
            notes[f"puts {name}, round {number + 1}"] = f"{len(samples)}, ms: {shown}"
        difference.rounds.append(p99s["with the index"] - p99s["without"])
        difference.operations += 1
    title = f"p99 of puts beside {len(batches)} commits of 1,000 vectors, over that without index"
    budget = Budget(50, against="", kind="at most")
    yield Line("vector_burst", title, "ms", {AMBER: difference}, budget, notes)


def _puts_during(path: Path, burst: list[list[Document]], dim: int | None) -> list[int]:
    """Nanoseconds of each put of a small document during the burst."""
    samples: list[int] = []
    with amberdb.open(path) as db:
        index = [] if dim is None else [Vector("embedding", dim=dim)]
        memory = db.collection("memory", indexes=[Ordered("entity_id"), *index])
        small = db.collection("small")

        def put_all() -> None:
            for batch in burst:
                memory.put_many(batch)

        worker = _Worker(put_all)
        while worker.is_alive:
            document = {"id": str(len(samples)), "content": "moved to Thursday"}
            before = perf_counter_ns()
            small.put(document)
            samples.append(perf_counter_ns() - before)
        worker.join()
        if len(memory) != sum(map(len, burst)):
            raise RuntimeError("documents of the burst are missing")
    return samples


class _Worker:
    """A thread; join() raises its error."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


def vector_building(context: Context) -> Iterator[Line]:
    """Enough new vectors that the graph is extended, and searches until it has been."""
    scale = context.scale
    base = context.base(VECTORS)
    path = context.directory / "vector-building"
    shutil.copytree(base.path(AMBER), path)
    engine = AmberHybrid(path, **base.options[AMBER])
    questions = vectors.questions(scale.recall_questions, scale.dim)
    engine.catch_up(questions[0])
    idle = _search(engine, questions, _IDLE_PASSES * len(questions))
    fresh = max(3 * BATCH_DOCUMENTS, scale.vectors * 6 // 100)
    first = -(-scale.vectors // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
    for batch in vectors.batches(first, fresh, scale.dim):
        engine.put_many(batch)
    before = engine.stats()["graph_rows"]
    busy: list[int] = []
    while not busy or not engine.is_caught_up():
        busy += _search(engine, questions, _ASK_STATS_EVERY)
    grown = engine.stats()["graph_rows"] - before
    engine.close()
    shutil.rmtree(path)
    slower = latencies_us(busy)["p99"] / latencies_us(idle)["p99"]
    measured = {AMBER: Measured([slower], len(busy), latencies_us(busy))}
    notes = {"idle, us": latencies_us(idle), "rows added to the graph": grown}
    title = f"search p99 while a graph of {scale.vectors:,} is extended, over idle"
    budget = Budget(3, against="", kind="at most")
    yield Line("vector_building", title, "x", measured, budget, notes)


def _search(engine: AmberHybrid, questions: Sequence[Vectors], count: int) -> list[int]:
    """Nanoseconds of each of `count` searches."""
    samples: list[int] = []
    for number in range(count):
        question = questions[number % len(questions)]
        before = perf_counter_ns()
        engine.nearest(question)
        samples.append(perf_counter_ns() - before)
    return samples


ROWS = (
    Row("vector_memory", "anonymous memory after open and searches", vector_memory),
    Row("vector_burst", "another writer's puts during a burst of vectors", vector_burst),
    Row("vector_building", "searches while a graph is being built", vector_building),
)
