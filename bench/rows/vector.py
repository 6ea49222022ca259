"""Rows about vector search: the nearest of all, the nearest of one entity, and ingest.

Invariants:
- An approximate engine is timed at a recall of at least RECALL, which the notes state; an exact
  one has to give the true answers, or the row raises.
- Ingest ends with a search that has to find a vector of the last commit.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter_ns

import numpy as np

from bench.engines.amber_search import AmberVectors
from bench.engines.chroma import ChromaPeer
from bench.engines.kinds import VECTOR_ENGINES
from bench.engines.lancedb import LanceVectorPeer
from bench.engines.lmdb_hnswlib import LmdbHnswlibPeer
from bench.engines.search_engine import HITS, VectorEngine, installed
from bench.engines.sqlite_vec import SqliteVecPeer
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.rows.fleet import recall_of
from bench.rows.text import time_batches
from bench.rows.vector_fleet import BY_ENTITY, BY_HAND, EF_DEFAULT, vector_fleet
from bench.workloads import events, texts, vectors
from bench.workloads.events import BATCH_DOCUMENTS, Document, ids
from bench.workloads.vectors import Vectors

_EXACT = 0.999
"""Not 1: floating-point sums in another order may swap two equally near vectors."""
_ENTITY_SHARE = 4
"""One question in four is asked within an entity: some peers take 0.1 s for each."""


def vector(context: Context) -> Iterator[Line]:
    loaded = vector_fleet(context)
    engines = loaded.fleet.engines(
        *(kind.name for kind in VECTOR_ENGINES if kind.name != BY_ENTITY)
    )
    _require_exact({name: loaded.recalls[name] for name, one in engines.items() if one.is_exact})
    turns = {
        name: _turn(engine, [(question, None) for question in loaded.questions])
        for name, engine in engines.items()
    }
    measured = interleave(context.scale.rounds, turns)
    title = f"nearest {HITS} of {_size(context)}, decoded"
    notes = {**loaded.notes(engines), **loaded.fleet.left_out}
    yield Line("vector", title, "us", measured, Budget(0.8, 1, against=BY_HAND), notes)


def _size(context: Context) -> str:
    return f"{context.scale.vectors:,} x {context.scale.dim}"


_Question = tuple[Vectors, str | None]


def _turn(engine: VectorEngine, asked: Sequence[_Question]) -> Callable[[int, Sampler], None]:
    def ask(one: _Question) -> None:
        engine.nearest(one[0], HITS, one[1])

    return lambda number, sampler: sampler.each(ask, asked)


def _require_exact(recalls: Mapping[str, float]) -> None:
    wrong = {name: recall for name, recall in recalls.items() if recall < _EXACT}
    if wrong:
        raise RuntimeError(f"exact search missed true answers: {wrong}")


def vector_entity(context: Context) -> Iterator[Line]:
    loaded = vector_fleet(context)
    stored = vectors.vectors(0, context.scale.vectors, context.scale.dim)
    owners = np.array([texts.entity_of(number) for number in range(context.scale.vectors)])
    questions = loaded.questions[: len(loaded.questions) // _ENTITY_SHARE]
    for kind, budget in (
        ("small", Budget(2, 5, against=BY_ENTITY)),
        ("large", Budget(3, 4.5, against=BY_ENTITY)),
    ):
        engines = loaded.fleet.engines(AMBER, BY_ENTITY, ChromaPeer.name, LanceVectorPeer.name)
        asked = [(one, f"{kind}-{at % texts.LARGE_ENTITIES}") for at, one in enumerate(questions)]
        true: list[list[str]] = []
        for question, entity in asked:
            among = np.flatnonzero(owners == entity)
            numbers = vectors.nearest([question], stored, HITS, among)[0]
            true.append([events.document_id(number) for number in numbers])
        recalls = {
            name: recall_of((ids(one.nearest(q, HITS, entity)) for q, entity in asked), true)
            for name, one in engines.items()
        }
        _require_exact({name: recalls[name] for name in (AMBER, BY_ENTITY) if name in recalls})
        turns = {name: _turn(engine, asked) for name, engine in engines.items()}
        measured = interleave(context.scale.rounds, turns)
        rows = int(np.count_nonzero(owners == f"{kind}-0"))
        title = f"nearest {HITS} within one entity of {rows:,}, decoded"
        notes = {f"recall@{HITS} of {name}": f"{recall:.4f}" for name, recall in recalls.items()}
        yield Line("vector_entity", title, "us", measured, budget, notes)


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
            samples, found, caught_up = _ingest(engine, batches)
            engine.close()
            shutil.rmtree(path)
            sampler.add_round(sum(samples) + found, samples, operations=scale.vectors)
            if kind.name in with_graph:
                spent = sum(samples) + found + caught_up
                with_graph[kind.name].add_round(spent, operations=scale.vectors)

        return run

    measured = interleave(scale.builds, {kind.name: turn(kind) for kind in kinds})
    title = f"commits of {BATCH_DOCUMENTS:,} vectors, durable"
    budget = Budget(0.8, 1.5, against=SqliteVecPeer.name)
    name = f"{title} and searchable at once, per vector"
    yield Line("vector_ingest", name, "us", measured, budget, left_out)
    final = {name: sampler.measured() for name, sampler in with_graph.items()}
    budget = Budget(1, 1.5, against=BY_HAND)
    yield Line("vector_ingest", f"{title}, until the graph has all", "us", final, budget)


def _ingest(engine: VectorEngine, batches: list[list[Document]]) -> tuple[list[int], int, int]:
    """Nanoseconds of each commit, of the first search, and until the graph is whole and on disk."""
    last = batches[-1][-1]
    samples = time_batches(engine, batches)
    before = perf_counter_ns()
    if last["id"] not in ids(engine.nearest(last["embedding"])):
        raise RuntimeError(f"{engine.name} does not find the vector that was put last")
    found = perf_counter_ns()
    if isinstance(engine, AmberVectors):
        engine.catch_up(last["embedding"])
    elif not engine.is_exact:
        engine.settle()
    return samples, found - before, perf_counter_ns() - found


ROWS = (
    Row("vector", "the nearest ten of all vectors, at equal recall", vector),
    Row("vector_entity", "the nearest ten of one entity, small and large", vector_entity),
    Row("vector_ingest", "batches of 1,000 vectors, and until the graph has them", vector_ingest),
)
