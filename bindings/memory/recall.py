"""Recall: full-text and vector search over several layers.

    convex            one search of each layer  -> one list by score -> the best

    reciprocal_rank   words  -> hits of each layer -> one list by score \\
                                                                        > fused -> the best
                      vector -> hits of each layer -> one list by score /

Invariants:
- Hits of the layers are merged by score: scores of two layers are comparable, but ranks in two
  layers are not.
- A page is the recall of so many memories more as the pages before have shown, without those.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from amberdb import Database, FieldPath, Fusion, Neighbors, QueryError
from amberdb.memory.documents import FIELDS
from amberdb.memory.recall_page import RecallPage, Shown
from amberdb.memory.types import Layer, Recalled

_IN_TIME: Final = Neighbors(group=("memory_type", "entity_id"), order="created_at")
"""The events of one owner, which are told one after the other. Facts have no such order."""


def recall(
    db: Database,
    asked: Mapping[str, str],
    vector: Any,
    *,
    layers: Mapping[Layer, str],
    where: Mapping[str, Any],
    limit: int,
    fusion: Fusion,
    neighbors: bool,
    group_by: FieldPath | None,
    after: str | None,
) -> RecallPage:
    """The best memories first; those with equal scores in the order of the layers, which are given
    with the names of their collections. `asked` is the
    text or the query, and the vector one of the text. Raises QueryError, CursorError."""
    if type(limit) is not int or limit < 0:
        raise QueryError(f"limit must be an int of at least 0, not {limit!r}")
    question = asked, list(layers), where, fusion, neighbors, group_by
    shown = Shown(question, group_by, after)
    search = partial(_hits, db, layers=layers, where=where, neighbors=neighbors, group_by=group_by)
    wanted = limit + len(shown)
    if group_by is not None:
        wanted *= len(layers)  # each of which may have the group
    return shown.page(_ranked(search, asked, vector, wanted, fusion), limit)


def _ranked(
    search: Callable[..., list[Recalled]],
    asked: Mapping[str, str],
    vector: Any,
    limit: int,
    fusion: Fusion,
) -> list[Recalled]:
    """The best memories of all layers."""
    searches: dict[str, Mapping[str, Any]] = {"content": asked}
    if vector is not None:
        searches["embedding"] = {"vector": vector}
    if len(searches) == 1:
        return search(asked, limit=limit)
    if fusion.method == "convex":
        return search({**asked, "vector": vector, "fusion": fusion}, limit=limit)
    depth = max(fusion.depth, limit)
    lists = {field: search(each, limit=depth) for field, each in searches.items()}
    return _fused(lists, fusion)[:limit]


def _hits(
    db: Database,
    search: Mapping[str, Any],
    *,
    layers: Mapping[Layer, str],
    where: Mapping[str, Any],
    neighbors: bool,
    group_by: FieldPath | None,
    limit: int,
) -> list[Recalled]:
    """The hits of one search over all layers."""
    hits = [
        Recalled(layer, hit.id, hit.score, hit.document)
        for layer, name in layers.items()
        for hit in db.collection(name).search(
            **search,
            where=where,
            limit=limit,
            fields=FIELDS,
            neighbors=_IN_TIME if neighbors and layer == "event" else None,
            group_by=group_by,
        )
    ]
    hits.sort(key=lambda hit: hit.score, reverse=True)
    return hits[:limit]


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
