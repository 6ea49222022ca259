"""Search as its definition says it, over plain lists of documents: slow, and nothing shared with
the engine but the analyzer and the form of a vector.

Invariants:
- Scores are those of docs/search.md, computed one document at a time in Python's floats.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt
from statistics import fmean
from typing import Any

import numpy as np

from amberdb._types import Document
from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.words import STOP

K1, B = 0.9, 0.4

Rated = list[tuple[str, float]]
"""(id, score), best first."""


WEIGHTS = (1, 1 / 2, 1)
"""Of words, variants and stop words."""

Bag = dict[str, float]
"""term -> how often a document has it."""


def words_of(document: Document, fields: Sequence[str], analyzer: Analyzer) -> Bag:
    """Of fields that hold a str, each of weight 1."""
    found: Bag = {}
    for field in fields:
        if isinstance(document.get(field), str):
            analyzed = analyzer.terms(document[field])
            for terms, weight in zip(analyzed, WEIGHTS, strict=True):
                for term in terms:
                    found[term] = found.get(term, 0) + weight
    return found


def bm25(
    documents: Sequence[Document], query: str, fields: Sequence[str], analyzer: Analyzer
) -> dict[str, float]:
    """The score of each document that has one of the query's words, by id."""
    bags = {
        document["id"]: words_of(document, fields, analyzer)
        for document in documents
        if any(isinstance(document.get(field), str) for field in fields)
    }
    lengths = {id: _length(bag) for id, bag in bags.items()}
    mean = sum(lengths.values()) / len(bags) if bags else 0.0
    scores: dict[str, float] = {}
    for term in dict.fromkeys(analyzer.query_terms(query)):
        having = [id for id, bag in bags.items() if term in bag]
        idf = log(1 + (len(bags) - len(having) + 0.5) / (len(having) + 0.5))
        for id in having:
            tf = bags[id][term]
            norm = 1 - B + B * (lengths[id] / mean if mean else 0.0)
            scores[id] = scores.get(id, 0.0) + idf * tf * (K1 + 1) / (tf + K1 * norm)
    return scores


def _length(bag: Bag) -> float:
    """Without stop words."""
    return sum(count for term, count in bag.items() if not term.startswith(STOP))


def nearest(
    documents: Sequence[Document],
    query: Sequence[float],
    field: str,
    metric: str,
    mean_of: int = 1,
) -> dict[str, float]:
    """The score of each document that has a vector, by id; of one with several, the mean of the
    best `mean_of` scores."""
    scores: dict[str, float] = {}
    for document in documents:
        value = document.get(field)
        if value is None or not len(value):
            continue
        vectors = value if np.ndim(value) == 2 else [value]
        each = sorted(_closeness([float(x) for x in v], query, metric) for v in vectors)
        scores[document["id"]] = fmean(each[-mean_of:])
    return scores


def _closeness(vector: Sequence[float], query: Sequence[float], metric: str) -> float:
    product = sum(a * b for a, b in zip(vector, query, strict=True))
    if metric == "ip":
        return product
    if metric == "cosine":
        return product / sqrt(sum(a * a for a in vector)) / sqrt(sum(b * b for b in query))
    return -sqrt(sum((a - b) ** 2 for a, b in zip(vector, query, strict=True)))


def agree(hits: Any, scores: dict[str, float], limit: int) -> None:
    """Asserts that hits are the best of `scores`: as many, each with its score, in order. Which of
    documents with scores nearer than float32 tells is found, and in which order, is left open."""
    found = [(hit.id, hit.score) for hit in hits]
    assert len(found) == min(limit, len(scores)), (found, scores)
    assert len({id for id, _ in found}) == len(found)
    best = sorted(scores.values(), reverse=True)
    for (id, score), wanted in zip(found, best, strict=False):
        assert id in scores, (id, scores)
        assert _close(score, scores[id]), (id, score, scores[id])
        assert _close(score, wanted), (found, scores)
    assert all(a[1] >= b[1] for a, b in pairwise(found))


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-4 * max(1.0, abs(a), abs(b))
