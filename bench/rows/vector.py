"""Rows about vector search: the nearest of all, with a graph and without one, the nearest of one
entity, text and a vector in one search, and ingest.

Invariants:
- An approximate engine is timed at a recall of at least RECALL, which the notes state; an exact
  one has to give the true answers, or the row raises.
- Ingest ends with a search that has to find a vector of the last commit.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from time import perf_counter_ns, process_time_ns
from typing import Any, TypeAlias

import numpy as np

from bench.engines.amber_search import AmberHybrid, AmberVectors
from bench.engines.chroma import ChromaPeer
from bench.engines.database import installed
from bench.engines.kinds import VECTOR_ENGINES
from bench.engines.lancedb import LanceVectorPeer
from bench.engines.lmdb_hnswlib import LmdbHnswlibPeer
from bench.engines.lmdb_numpy import LmdbNumpyPeer
from bench.engines.search_engine import HITS, VectorEngine
from bench.engines.sqlite_vec import SqliteVecPeer
from bench.engines.zvec import ZvecPeer
from bench.harness.context import Context
from bench.harness.family import Family
from bench.harness.line import AMBER, Budget, Line
from bench.harness.operation import SAMPLE, Draw, Notes, Operation
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.harness.state import FRESH, FULL, KILLED, OPENED, STATES, State
from bench.rows.families import (
    BY_ENTITY,
    BY_HAND,
    EF_DEFAULT,
    FLAT,
    VECTORS,
    recall_of,
    true_answers,
)
from bench.rows.text import time_batches
from bench.workloads import texts, vectors
from bench.workloads.events import BATCH_DOCUMENTS, Document, ids
from bench.workloads.vectors import Vectors

Question: TypeAlias = tuple[Vectors, str | None]

_EXACT = 0.999
"""Not 1: floating-point sums in another order may swap two equally near vectors."""
_RECALL_MIN = 0.9
"""Of an approximate engine, over the few questions of a state."""
_ENTITY_SHARE = 4
"""One question in four is asked within an entity: some peers take 0.1 s for each."""
_BY_SCAN = LmdbNumpyPeer.name
_OF_ALL = tuple(kind.name for kind in VECTOR_ENGINES if kind.name not in (BY_ENTITY, _BY_SCAN))
_EXACT_KINDS = (*(kind.name for kind in VECTOR_ENGINES if kind.is_exact),)
_WITHIN = (AMBER, _BY_SCAN, BY_ENTITY, ChromaPeer.name, LanceVectorPeer.name, ZvecPeer.name)
_CODE_BITS = 64
_SETTLED_SEARCHES = 3


def _questions(draw: Draw) -> list[Question]:
    asked = vectors.questions(draw.count(draw.scale.questions), draw.scale.dim)
    return [(one, None) for one in asked]


def _within(kind: str) -> Callable[[Draw], list[Question]]:
    def items(draw: Draw) -> list[Question]:
        asked = _questions(draw)
        asked = asked[: max(1, len(asked) // _ENTITY_SHARE)]
        return [(one, f"{kind}-{at % texts.LARGE_ENTITIES}") for at, (one, _) in enumerate(asked)]

    return items


def _ask(engine: VectorEngine, question: Question) -> list[Document]:
    return engine.nearest(question[0], HITS, question[1])


def _check(items: Callable[[Draw], list[Question]], exact: Sequence[str]) -> Any:
    """Compares with the true answers; `exact`: the engines that may miss none."""

    def check(answers: Mapping[str, Sequence[list[str]]], draw: Draw) -> Notes:
        asked = items(draw)[:SAMPLE]
        entities = tuple(entity for _, entity in asked if entity is not None)
        true = true_answers(draw.scale, draw.stored, len(asked), entities)
        recalls = {name: recall_of(found, true) for name, found in answers.items()}
        wrong = {
            name: recall
            for name, recall in recalls.items()
            if recall < (_EXACT if name in exact else _RECALL_MIN)
        }
        if any(name == AMBER or name in exact for name in wrong):
            raise RuntimeError(f"a search missed true answers: {wrong}")
        return {f"recall@{HITS} of {name}": f"{recall:.4f}" for name, recall in recalls.items()}

    return check


def _nearest(
    title: str,
    items: Callable[[Draw], list[Question]],
    budget: Budget | None,
    *,
    exact: Sequence[str] = _EXACT_KINDS,
    family: Family[VectorEngine] = VECTORS,
    kinds: tuple[str, ...] = (),
    states: tuple[State, ...] = STATES,
    opens: bool = False,
) -> Operation[VectorEngine, Question]:
    return Operation(
        title=title,
        family=family,
        items=items,
        call=_ask,
        answer=lambda engine, question: ids(_ask(engine, question)),
        check=_check(items, exact),
        budget=budget,
        kinds=kinds,
        states=states,
        opens=opens,
    )


_SIZE = "{scale.vectors:,} x {scale.dim}"
VECTOR = _nearest(
    f"nearest {HITS} of {_SIZE}, decoded",
    _questions,
    Budget(0.8, 1, against=BY_HAND),
    kinds=_OF_ALL,
)
VECTOR_FLAT = _nearest(
    f"nearest {HITS} of {_SIZE} without hnswlib, decoded",
    _questions,
    Budget(6, against=_BY_SCAN),
    exact=(AMBER, _BY_SCAN),
    family=FLAT,
)
ENTITY_SMALL = _nearest(
    f"nearest {HITS} within one entity, a thousandth of {_SIZE}, decoded",
    _within("small"),
    Budget(1, against=_BY_SCAN),
    kinds=_WITHIN,
    exact=(AMBER, BY_ENTITY, _BY_SCAN),
)
ENTITY_LARGE = _nearest(
    f"  within one entity, a twentieth of {_SIZE}",
    _within("large"),
    Budget(1, 2, against=BY_ENTITY),
    kinds=_WITHIN,
    exact=(AMBER, BY_ENTITY, _BY_SCAN),
)
OPEN = _nearest(
    f"open of {_SIZE} with texts and the first answer, after a clean close",
    lambda draw: _questions(draw)[:1],
    Budget(1, 1.4, against=SqliteVecPeer.name),
    kinds=_OF_ALL,
    states=(OPENED,),
    opens=True,
)
OPEN_KILLED = _nearest(
    "  the same after SIGKILL, {scale.killed:,} documents in the log",
    lambda draw: _questions(draw)[:1],
    Budget(0.4, against=SqliteVecPeer.name),
    kinds=_OF_ALL,
    states=(KILLED,),
    opens=True,
)


@cache
def _codes(count: int, dim: int) -> Any:
    """As many codes of one bit for each dimension as there are vectors."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 1 << 63, (count, max(1, dim // _CODE_BITS)), np.uint64)


def _settled_searches(engine: VectorEngine, question: Question) -> None:
    """What the first search may take: later ones, and a pass over the codes of all vectors."""
    for _ in range(_SETTLED_SEARCHES):
        _ask(engine, question)
    codes = _codes(_rows(engine), engine.dim)
    distances = np.bitwise_count(codes ^ codes[0]).sum(axis=1)
    np.argpartition(distances, HITS)


def _rows(engine: VectorEngine) -> int:
    assert isinstance(engine, AmberHybrid)
    return len(engine.memory)


_AS_SETTLED = f"{_SETTLED_SEARCHES} later searches and a pass over the codes"
FIRST: Operation[VectorEngine, Question] = Operation(
    title="first search after {scale.fresh:,} or {scale.full:,} vectors, or an open",
    family=VECTORS,
    items=lambda draw: _questions(draw)[:1],
    call=_ask,
    budget=Budget(1, against=_AS_SETTLED, kind="at most"),
    kinds=(AMBER, SqliteVecPeer.name),
    states=(FRESH, FULL, OPENED, KILLED),
    ways={_AS_SETTLED: _settled_searches},
    restaged=True,
)


def _both(limit: int) -> Operation[VectorEngine, tuple[str, Vectors]]:
    """AmberDB alone; the time per search shows what each returned document costs."""

    def ask(engine: VectorEngine, item: tuple[str, Vectors]) -> list[Document]:
        assert isinstance(engine, AmberHybrid)
        return engine.both(*item, limit)

    return Operation(
        title=f"hybrid top {limit} of {_SIZE}, common words and a vector, decoded",
        family=VECTORS,
        items=_words_and_vectors,
        call=ask,
        answer=lambda engine, item: len(ask(engine, item)),
        check=lambda answers, draw: _as_many(answers, limit),
        kinds=(AMBER,),
    )


def _words_and_vectors(draw: Draw) -> list[tuple[str, Vectors]]:
    asked = [question for question, _ in _questions(draw)]
    return list(zip(texts.questions(texts.COMMON, len(asked)), asked, strict=True))


def _as_many(answers: Mapping[str, Sequence[int]], limit: int) -> Notes:
    if few := [count for count in answers[AMBER] if count != limit]:
        raise RuntimeError(f"hybrid searches of limit {limit} returned {few} documents")
    return {}


def vector_ingest(context: Context) -> Iterator[Line]:
    """Each round fills new databases."""
    scale = context.scale
    batches = list(vectors.batches(0, scale.vectors, scale.dim))
    kinds, left_out = installed((AmberVectors, SqliteVecPeer, LmdbHnswlibPeer))
    with_graph = {kind.name: Sampler() for kind in kinds if not kind.is_exact}

    def turn(kind: type[VectorEngine]) -> Callable[[int, Sampler], None]:
        def run(number: int, sampler: Sampler) -> None:
            path = context.directory / "vector-ingest" / f"{kind.name}-{number}"
            engine = kind(path, dim=scale.dim, ef=EF_DEFAULT)
            samples, found, caught_up, cpu = _ingest(engine, batches)
            engine.close()
            shutil.rmtree(path)
            spent = sum(samples) + found
            sampler.add_round(spent, samples, operations=scale.vectors, cpu_ns=cpu[0])
            if kind.name in with_graph:
                spent += caught_up
                whole = with_graph[kind.name]
                whole.add_round(spent, operations=scale.vectors, cpu_ns=cpu[1])

        return run

    measured = interleave(scale.builds, {kind.name: turn(kind) for kind in kinds})
    title = f"commits of {BATCH_DOCUMENTS:,} vectors, durable"
    budget = Budget(0.8, 1.5, against=SqliteVecPeer.name)
    name = f"{title} and searchable at once, per vector"
    yield Line("vector_ingest", name, "us", measured, budget, left_out)
    final = {name: sampler.measured() for name, sampler in with_graph.items()}
    budget = Budget(1, 1.5, against=BY_HAND)
    yield Line("vector_ingest", f"{title}, until the graph has all", "us", final, budget)


def _ingest(
    engine: VectorEngine, batches: list[list[Document]]
) -> tuple[list[int], int, int, tuple[int, int]]:
    """Nanoseconds of each commit, of the first search, and until the graph is whole and on disk;
    CPU time until the search has ended, and until then."""
    last = batches[-1][-1]
    cpu = process_time_ns()
    samples = time_batches(engine, batches)
    before = perf_counter_ns()
    if last["id"] not in ids(engine.nearest(last["embedding"])):
        raise RuntimeError(f"{engine.name} does not find the vector that was put last")
    found, cpu_found = perf_counter_ns(), process_time_ns()
    if isinstance(engine, AmberVectors):
        engine.catch_up(last["embedding"])
    elif not engine.is_exact:
        engine.settle()
    end, cpu_end = perf_counter_ns(), process_time_ns()
    return samples, found - before, end - found, (cpu_found - cpu, cpu_end - cpu)


ROWS = (
    Row("vector", "the nearest ten of all vectors, at equal recall", operations=(VECTOR,)),
    Row("vector_flat", "the same without a graph", operations=(VECTOR_FLAT,)),
    Row(
        "vector_entity",
        "the nearest ten of one entity, small and large",
        operations=(ENTITY_SMALL, ENTITY_LARGE),
    ),
    Row(
        "hybrid",
        "text and a vector in one search, limit 5, 10 and 50",
        operations=(_both(5), _both(HITS), _both(50)),
    ),
    Row("vector_first", "the first search after a load, an open, a kill", operations=(FIRST,)),
    Row(
        "vector_open",
        "open and the first answer, after a close and after a kill",
        operations=(OPEN, OPEN_KILLED),
    ),
    Row("vector_ingest", "batches of 1,000 vectors, and until the graph has them", vector_ingest),
)
