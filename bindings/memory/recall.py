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
from amberdb._shared.questions import words
from amberdb.memory.documents import FIELDS
from amberdb.memory.types import Layer, Recalled


def recall(
    db: Database,
    question: str,
    vector: Any,
    *,
    layers: Sequence[Layer],
    where: Mapping[str, Any],
    limit: int,
    fusion: Fusion,
) -> list[Recalled]:
    """The best first; equal ones in the order of the layers. Raises QueryError."""
    asked: dict[str, Mapping[str, Any]] = {}
    if text := words(question):
        asked["content"] = {"text": text}
    if vector is not None:
        asked["embedding"] = {"vector": vector}
    depth = max(fusion.depth, limit) if len(asked) > 1 else limit
    lists = {field: _hits(db, each, layers, where, depth) for field, each in asked.items()}
    if len(lists) > 1:
        return _fused(lists, fusion)[:limit]
    return [each for found in lists.values() for each in found[:limit]]


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


def _fused(lists: Mapping[str, Sequence[Recalled]], fusion: Fusion) -> list[Recalled]:
    scores: dict[tuple[Layer, str], float] = {}
    documents: dict[tuple[Layer, str], Recalled] = {}
    for field, ranked in lists.items():
        weight = fusion.weights.get(field, 1.0)
        for rank, each in enumerate(ranked, 1):
            key = each.memory_layer, each.memory_id
            scores[key] = scores.get(key, 0.0) + weight / (fusion.k + rank)
            documents[key] = each
    return [
        Recalled(*key, score, documents[key].document)
        for key, score in sorted(scores.items(), key=lambda item: item[1], reverse=True)
    ]
