"""Rankings put together: reciprocal rank fusion, diversity, recency.

Invariants:
- Pure functions; of equal scores the newer row comes first.
- Fusion looks at places only, never at scores: BM25 and a cosine have no common measure.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.text.bm25 import Ranking, Scores, best

RANK_CONSTANT: Final = 10


def fuse(
    rankings: Sequence[Iterable[int]],
    weights: Sequence[float] | None = None,
    constant: float = RANK_CONSTANT,
) -> Ranking:
    """All rows of the rankings, each a sequence of rowids, best first:

    score(row) = sum over the rankings that have it of  weight / (constant + place)

    with places from 1 on.
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for place, rowid in enumerate(ranking, 1):
            scores[int(rowid)] = scores.get(int(rowid), 0.0) + weight / (constant + place)
    return best(
        np.fromiter(scores, np.int64), np.fromiter(scores.values(), np.float64), len(scores)
    )


def decay(scores: Scores, ages_s: NDArray[np.float64], half_life_s: float) -> Scores:
    """Scores that halve with every half-life of age; what lies in the future has age 0."""
    return scores * np.exp2(np.maximum(ages_s, 0.0) / -half_life_s)


def mmr(
    relevance: Scores, similarity: NDArray[np.floating], limit: int, diversity: float
) -> NDArray[np.int64]:
    """Maximal marginal relevance: indexes of the `limit` chosen ones, in the order of choice.

    relevance    (n,), best first, any scale: put on 0 to 1 here
    similarity   (n, n), how alike two are, up to 1
    diversity    0: by relevance alone; 1: by unlikeness to those chosen alone

    Each choice is the one with the highest (1 - diversity) * relevance - diversity * (similarity to
    the most similar one chosen before); of equal ones the first.
    """
    count = len(relevance)
    if not count:
        return np.empty(0, np.int64)
    low, high = float(relevance.min()), float(relevance.max())
    scaled = (relevance - low) / (high - low) if high > low else np.ones(count)
    nearest = np.zeros(count)
    chosen: list[int] = []
    for _ in range(min(limit, count)):
        gain = (1 - diversity) * scaled - diversity * nearest
        gain[chosen] = -np.inf
        pick = int(np.argmax(gain))
        chosen.append(pick)
        nearest = (
            similarity[pick].astype(np.float64)
            if len(chosen) == 1
            else np.maximum(nearest, similarity[pick])
        )
    return np.array(chosen, np.int64)
