"""Several rankings combined: reciprocal rank fusion, diversity, recency.

Invariants:
- Pure functions. Among equal scores the newer row comes first.
- Fusion uses ranks, or scores on one scale: BM25 and cosine are not.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """The rows of all rankings, best first. A ranking is a sequence of rowids, best first.

    score(row) = sum over the rankings that contain it of  weight / (constant + rank)

    where ranks start at 1.
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, rowid in enumerate(ranking, 1):
            scores[int(rowid)] = scores.get(int(rowid), 0.0) + weight / (constant + rank)
    return best(
        np.fromiter(scores, np.int64), np.fromiter(scores.values(), np.float64), len(scores)
    )


def combine(
    scores: Sequence[Mapping[int, float]], missing: Sequence[float], weights: Sequence[float]
) -> list[tuple[int, float]]:
    """The convex combination of scores of 0 to 1: the weighted mean (Bruch, Gai and Ingber 2023).
    Each map has the scores of its rows by rowid; a row that it lacks gets the value in `missing`.
    Returns (rowid, score), unordered."""
    whole = sum(weights) or 1.0
    rows = dict.fromkeys(rowid for each in scores for rowid in each)
    parts = list(zip(scores, missing, weights, strict=True))
    return [
        (rowid, sum(weight * each.get(rowid, none) for each, none, weight in parts) / whole)
        for rowid in rows
    ]


def decay(scores: Scores, ages_s: NDArray[np.float64], half_life_s: float) -> Scores:
    """Scores that halve with every half-life of age. A negative age counts as 0."""
    return scores * np.exp2(np.maximum(ages_s, 0.0) / -half_life_s)


def mmr(
    relevance: Scores, vectors: NDArray[np.float32], limit: int, diversity: float
) -> NDArray[np.int64]:
    """Maximal marginal relevance: the indexes of the `limit` chosen items, in order of choice.

    relevance    (n,), best first, at least 0: it is scaled here, so that the best is 1
    vectors      (n, dim), of length 1, or 0: the similarity of two items is their product
    diversity    0: by relevance alone; 1: by dissimilarity to the chosen items alone

    Each choice has the highest (1 - diversity) * relevance - diversity * (similarity to the most
    similar item that was chosen before). Among equal ones the first is chosen. Takes `limit` times
    n * dim steps, and memory for n numbers.
    """
    count = len(relevance)
    if not count:
        return np.empty(0, np.int64)
    high = float(relevance.max())
    scaled = relevance / high if high > 0.0 else np.ones(count)
    nearest = np.zeros(count)
    chosen: list[int] = []
    for _ in range(min(limit, count)):
        gain = (1 - diversity) * scaled - diversity * nearest
        gain[chosen] = -np.inf
        pick = int(np.argmax(gain))
        chosen.append(pick)
        similarity = (vectors @ vectors[pick]).astype(np.float64)
        nearest = similarity if len(chosen) == 1 else np.maximum(nearest, similarity)
    return np.array(chosen, np.int64)
