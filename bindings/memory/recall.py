"""Recall: full-text and vector search over several layers.

    words  -> BM25 hits of each layer   -> one list by score \\
                                                              > reciprocal rank fusion -> the best
    vector -> nearest of each layer     -> one list by score /

Invariants:
- Hits of the layers are merged by score before fusion: BM25 scores of two layers are comparable,
  and so are vector scores, but ranks in two layers are not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from amberdb import Database, Fusion
from amberdb.memory.documents import FIELDS
from amberdb.memory.types import Layer, Recalled


def recall(
    db: Database,
    asked: Mapping[str, str],
    vector: Any,
    *,
    layers: Sequence[Layer],
    where: Mapping[str, Any],
    limit: int,
    fusion: Fusion,
) -> list[Recalled]:
    """The best memories first; those with equal scores in the order of the layers. `asked` is the
    text or the query, and the vector one of the text. Raises QueryError."""
    searches: dict[str, Mapping[str, Any]] = {"content": asked}
    if vector is not None:
        searches["embedding"] = {"vector": vector}
    depth = max(fusion.depth, limit) if len(searches) > 1 else limit
    lists = {field: _hits(db, search, layers, where, depth) for field, search in searches.items()}
    if len(lists) > 1:
        return _fused(lists, fusion)[:limit]
    return [memory for hits in lists.values() for memory in hits[:limit]]


def _hits(
    db: Database,
    search: Mapping[str, Any],
    layers: Sequence[Layer],
    where: Mapping[str, Any],
    depth: int,
) -> list[Recalled]:
    """The hits of one search, by text or by vector, over all layers."""
    hits = [
        Recalled(layer, hit.id, hit.score, hit.document)
        for layer in layers
        for hit in db.collection(layer).search(**search, where=where, limit=depth, fields=FIELDS)
    ]
    hits.sort(key=lambda hit: hit.score, reverse=True)
    return hits[:depth]


def _fused(lists: Mapping[str, Sequence[Recalled]], fusion: Fusion) -> list[Recalled]:
    """Reciprocal rank fusion, the best first."""
    scores: dict[tuple[Layer, str], float] = {}
    memories: dict[tuple[Layer, str], Recalled] = {}
    for field, ranked in lists.items():
        weight = fusion.weights.get(field, 1.0)
        for rank, memory in enumerate(ranked, 1):
            key = memory.memory_layer, memory.memory_id
            scores[key] = scores.get(key, 0.0) + weight / (fusion.k + rank)
            memories[key] = memory
    return [
        Recalled(*key, score, memories[key].document)
        for key, score in sorted(scores.items(), key=lambda item: item[1], reverse=True)
    ]
