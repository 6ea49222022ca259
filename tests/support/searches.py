"""What searches of a whole database must find, and limits so small that few rows do what many do.

Invariants:
- Every search index that is ready is asked, and compared with its definition over the documents
  that can be read (support/ranking.py).
- Under small_limits() the graph's own answers are exact: it looks at every row that it reaches.
"""

import random
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from amberdb import Database, Text, Vector
from amberdb._types import Document
from amberdb.engine.maintenance import auto_compaction
from amberdb.engine.search import flush, searchers
from amberdb.engine.search.vector import cache as vector_cache
from amberdb.engine.search.vector import file as vector_file
from amberdb.engine.search.vector import index as vector_index
from amberdb.index.text.text import TextExtractor
from amberdb.index.vector import matrix
from support.ranking import agree, bm25, nearest

DIM: Final = 3
LIMITS: Final = (4, 1000)
WORDS: Final = ("umbrella", "meeting", "car", "rain", "late", "下午", "会议", "猫")
_FEW: Final = (
    (vector_cache, "GRAPH_ROWS", 8),
    (vector_cache, "FRESH_ROWS", 2),
    (vector_cache, "DEAD_ROWS", 3),
    (vector_file, "UNSAVED_ROWS", 0),
    (vector_file, "GROWN_ROWS", 2),
    (searchers, "TAKEN_ROWS", 2),
    (matrix, "CODED_DIM", 1),
    (matrix, "CODED_ROWS", 4),
    (matrix, "CODED_STEP", 2),
    (vector_index, "FIRST_ROWS", 1),
    (vector_index, "FIRST_PER_HIT", 1),
    (vector_index, "CLOSER_ROWS", 1),
    (vector_index, "GATHERED", 1),
    (vector_cache, "_PAUSE_S", 0.0),
    (vector_cache, "_PAUSE_FAILED_S", 0.0),
    (vector_index, "EXACT_ROWS", 6),
    (vector_index, "FLAT_ROWS", 8),
    (vector_index, "VISIT_ROWS", 1e-3),
    (flush, "MERGE_WIDTH", 2),
    (auto_compaction, "BYTES_MIN", 1 << 16),
    (auto_compaction, "PAUSE_S", 0.0),
)


@contextmanager
def small_limits() -> Generator[None]:
    """A dozen rows have codes, a graph and a file in cache/, as ten thousand have, two segments are
    merged, and a small file is compacted when half of it is free."""
    with ExitStack() as patches:
        for module, name, value in _FEW:
            patches.enter_context(patch.object(module, name, value))
        yield


def drawn_vector(rng: random.Random) -> NDArray[np.float32]:
    return np.array([rng.uniform(-1, 1) for _ in range(DIM)], np.float32)


def drawn_vectors(rng: random.Random) -> NDArray[np.float32]:
    """Of one document: none to three."""
    vectors = [drawn_vector(rng) for _ in range(rng.randrange(4))]
    return np.array(vectors, np.float32).reshape(-1, DIM)


def drawn_text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(1, 7)))


def put_on_top(db: Database, rng: random.Random) -> None:
    """New rows in each collection that searches."""
    for name in db.collections():
        if any(isinstance(i.spec, Text | Vector) for i in db.definition(name).indexes):
            db.collection(name).put_many(
                {"id": f"top{n}", "text": drawn_text(rng), "v": drawn_vector(rng).tolist()}
                for n in range(4)
            )


def compare_searches(db: Database, rng: random.Random) -> Counter[str]:
    """Asserts that each ready search index finds what its definition says; how often by each way
    ("text", "exact", "graph")."""
    ways: Counter[str] = Counter()
    for name in db.collections():
        specs = [index.spec for index in db.definition(name).indexes]
        if not any(isinstance(spec, Text | Vector) for spec in specs):
            continue
        states = db.stats()["collections"][name]["indexes"]
        documents = list(db.collection(name).documents())
        for spec in specs:
            if states[spec.name] != "ready":
                continue
            if isinstance(spec, Text):
                ways["text"] += _by_words(db, name, spec, documents, rng)
            elif isinstance(spec, Vector):
                ways.update(_by_vector(db, name, spec, documents, rng))
    return ways


def _by_words(
    db: Database, name: str, spec: Text, documents: Sequence[Document], rng: random.Random
) -> int:
    texts = [document["text"] for document in documents if "text" in document]
    question = " ".join((*rng.sample(texts, min(2, len(texts))), rng.choice(WORDS)))
    analyzer = TextExtractor(spec).analyzer
    scores = bm25(documents, question, ("text",), analyzer)
    for limit in LIMITS:
        agree(db.collection(name).search(question, limit=limit), scores, limit)
    return len(LIMITS)


def _by_vector(
    db: Database, name: str, spec: Vector, documents: Sequence[Document], rng: random.Random
) -> list[str]:
    question: Any = drawn_vector(rng)
    ways: list[str] = []
    scores = nearest(documents, question.tolist(), spec.field, spec.metric, spec.mean_of)
    for limit in LIMITS:
        hits = db.collection(name).search(vector={spec.field: question}, limit=limit)
        agree(hits, scores, limit)
        ways.append(hits.how["indexes"][spec.name]["search"])
    return ways
