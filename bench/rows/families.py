"""The families of the rows: which engines hold which documents.

Invariants:
- An approximate engine gets the smallest ef of EFS with which it finds RECALL of the true answers;
  AmberDB gets the ef of the hand-made graph, which has the same parameters.
- Documents of EXPIRING expire on one of DAYS days, far in the future, so that nothing removes them
  but the calls that are timed, which give the time.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from bench.engines.amber_search import AmberVectors
from bench.engines.kinds import ENGINES, FLAT_ENGINES, TEXT_ENGINES, VECTOR_ENGINES
from bench.engines.lmdb_hnswlib import LmdbHnswlibPeer
from bench.engines.search_engine import HITS, VectorEngine
from bench.engines.sqlite_vec import SqliteVecByEntityPeer
from bench.harness.family import Family, Options
from bench.harness.line import AMBER
from bench.harness.scale import Scale
from bench.workloads import events, texts, vectors
from bench.workloads.events import Document, document_id, ids
from bench.workloads.vectors import Vectors

RECALL = 0.98
EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
EF_DEFAULT = 128
BY_HAND = LmdbHnswlibPeer.name
BY_ENTITY = SqliteVecByEntityPeer.name
DAYS = 1_000
_FIRST_DAY = datetime(2100, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    """The end of a day on which documents of EXPIRING expire."""
    return _FIRST_DAY + timedelta(days=number, hours=1)


def _expiring(scale: Scale, start: int, count: int) -> Iterator[Document]:
    del scale
    for number, document in enumerate(events.documents(start, count), start):
        yield {**document, "expiry_date": _FIRST_DAY + timedelta(days=number % DAYS)}


EVENTS = Family(
    name="events",
    kinds=ENGINES,
    count=lambda scale: scale.base,
    documents=lambda scale, start, count: events.documents(start, count),
    rounds=lambda scale: scale.rounds,
)
EXPIRING = Family(
    name="expiring",
    kinds=ENGINES,
    count=lambda scale: scale.base,
    documents=_expiring,
    rounds=lambda scale: scale.rounds,
    initial=lambda kind, scale, chosen: {"expiring": True},
)
TEXTS = Family(
    name="texts",
    kinds=TEXT_ENGINES,
    count=lambda scale: scale.texts,
    documents=lambda scale, start, count: texts.documents(start, count),
    rounds=lambda scale: scale.search_rounds,
    has_first_row=True,
)


def _vector_options(
    kind: type[VectorEngine], scale: Scale, chosen: Mapping[str, Options]
) -> Options:
    ef = chosen.get(BY_HAND, {}).get("ef", EF_DEFAULT) if kind.name == AMBER else EF_DEFAULT
    return {"dim": scale.dim, "ef": ef}


def _finish_vectors(engine: VectorEngine, scale: Scale, options: Options) -> Options:
    """Builds the graph of AmberDB; chooses the ef of a peer."""
    questions = vectors.questions(scale.recall_questions, scale.dim)
    if isinstance(engine, AmberVectors):
        engine.catch_up(questions[0])
    engine.settle()
    if engine.is_exact or engine.name == AMBER:
        return options
    true = true_answers(scale, (range(scale.vectors),), len(questions))
    for ef in EFS:
        engine.ef = ef
        if recall_of((ids(engine.nearest(one)) for one in questions), true) >= RECALL:
            break
    return {**options, "ef": engine.ef}


VECTORS = Family(
    name="vectors",
    kinds=VECTOR_ENGINES,
    count=lambda scale: scale.vectors,
    documents=lambda scale, start, count: vectors.documents(start, count, scale.dim),
    rounds=lambda scale: scale.search_rounds,
    has_first_row=True,
    initial=_vector_options,
    finish=_finish_vectors,
)
FLAT = Family(
    name="flat",
    kinds=FLAT_ENGINES,
    count=lambda scale: scale.vectors,
    documents=lambda scale, start, count: vectors.documents(start, count, scale.dim),
    rounds=lambda scale: scale.search_rounds,
    has_first_row=True,
    initial=_vector_options,
)


def true_answers(
    scale: Scale, stored: tuple[range, ...], count: int, entities: tuple[str, ...] = ()
) -> list[list[str]]:
    """The ids of the nearest documents to the first `count` questions, nearest first; with
    entities, within the one at the question's place."""
    numbers, rows = _rows(scale.dim, stored)
    asked = vectors.questions(count, scale.dim)
    if not entities:
        found = vectors.nearest(asked, rows, HITS)
        return [[document_id(int(numbers[at])) for at in one] for one in found]
    answers: list[list[str]] = []
    owners = np.array([texts.entity_of(int(number)) for number in numbers])
    for question, entity in zip(asked, entities, strict=True):
        among = np.flatnonzero(owners == entity)
        nearest = vectors.nearest([question], rows, HITS, among)[0]
        answers.append([document_id(int(numbers[at])) for at in nearest])
    return answers


@lru_cache(maxsize=1)
def _rows(dim: int, stored: tuple[range, ...]) -> tuple[Any, Vectors]:
    """The numbers of the stored documents, and their vectors."""
    numbers = np.concatenate([np.arange(one.start, one.stop) for one in stored])
    parts = [vectors.vectors(one.start, len(one), dim) for one in stored]
    return numbers, np.concatenate(parts)


def entity_rows(scale: Scale, entity: str) -> int:
    """Settled documents of an entity."""
    return sum(texts.entity_of(number) == entity for number in range(scale.vectors))


def recall_of(found: Iterable[list[str]], answers: Iterable[list[str]]) -> float:
    """The share of all true answers that were found; both by question."""
    pairs = list(zip(found, answers, strict=True))
    return sum(len(set(a) & set(b)) for a, b in pairs) / sum(len(b) for _, b in pairs)
