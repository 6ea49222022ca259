"""Recall: the memories that a question in everyday words leads to, from several layers at once.

    words  -> BM25 hits of each layer   -> one list by score \\
                                                              > reciprocal rank -> the best
    vector -> nearest of each layer     -> one list by score /

Invariants:
- Layers are merged before words and vectors are fused, by scores that are alike: two lists of
  layers have ranks that say nothing of each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from amberdb import Database, Fusion
from amberdb.bindings.memory_documents import FIELDS
from amberdb.bindings.memory_types import Layer, Recalled
from amberdb.bindings.questions import words


def recall(
    db: Database,
    question: str,
    vector: Any,
    *,
    layers: Sequence[Layer],
    where: Mapping[str, Any],
    limit: int,
) -> list[Recalled]:
    """The best first; equal ones in the order of the layers. Raises QueryError."""
    asked: list[dict[str, Any]] = []
    if text := words(question):
        asked.append({"text": text})
    if vector is not None:
        asked.append({"vector": vector})
    fusion = Fusion()
    depth = max(fusion.depth, limit) if len(asked) > 1 else limit
    lists = [_hits(db, each, layers, where, depth) for each in asked]
    found = _fused(lists, fusion.k) if len(lists) > 1 else [each for one in lists for each in one]
    return found[:limit]


def _hits(
    db: Database,
    asked: Mapping[str, Any],
    layers: Sequence[Layer],
    where: Mapping[str, Any],
    depth: int,
) -> list[Recalled]:
    """By words, or by a vector, over all layers."""
    found = [
        Recalled(layer, hit.id, hit.score, hit.document)
        for layer in layers
        for hit in db.collection(layer).search(**asked, where=where, limit=depth, fields=FIELDS)
    ]
    found.sort(key=lambda each: each.score, reverse=True)
    return found[:depth]


def _fused(lists: Sequence[Sequence[Recalled]], k: float) -> list[Recalled]:
    scores: dict[tuple[Layer, str], float] = {}
    documents: dict[tuple[Layer, str], Recalled] = {}
    for ranked in lists:
        for rank, each in enumerate(ranked, 1):
            key = each.memory_layer, each.memory_id
            scores[key] = scores.get(key, 0.0) + 1 / (k + rank)
            documents[key] = each
    return [
        Recalled(*key, score, documents[key].document)
        for key, score in sorted(scores.items(), key=lambda item: item[1], reverse=True)
    ]
