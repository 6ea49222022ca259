"""Scores of vectors by cosine, inner product or Euclidean distance, and the best of them.

Invariants:
- A score depends on the two vectors alone: not on the rows beside it, their order, or how many are
  scored at once. So exact and approximate search give a row the same score, to the last bit.
- Higher is closer. Among equal scores the row with the higher rowid, the newer one, comes first.
- A matrix holds vectors as prepared() returns them: of length one under cosine. Those are scored.
"""

from math import atan, pi
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.coercion import Metric

Vectors: TypeAlias = NDArray[np.float32]
Rowids: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]
Scores: TypeAlias = NDArray[np.float32]

BLOCK_BYTES: Final = 512 << 10
"""The size of the rows that are scored at once: they stay in the cache of one core."""

_SORTED_ROWS: Final = 64
"""Up to this many rows are sorted whole: selecting the best first would not be faster."""


def prepared(vectors: Vectors, metric: Metric) -> Vectors:
    """float32[..., dim] in the form that is scored. Lengths are computed in float64, so none
    overflows or underflows."""
    if metric != "cosine":
        return vectors
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))
    scaled: NDArray[np.float64] = wide / lengths[..., None]
    return scaled.astype(np.float32)


def block_rows(dim: int) -> int:
    """The number of rows in a block."""
    return max(BLOCK_BYTES // (4 * dim), 16)


def scores(vectors: Vectors, query: Vectors, metric: Metric, out: Scores) -> None:
    """Writes the scores of prepared float32[n, dim] for a prepared query into out, float32[n].

    np.vecdot computes one dot product per row; a matrix product would sum in an order that depends
    on the shape.
    """
    step = block_rows(len(query))
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        into = out[start : start + step]
        if metric == "l2":
            apart = block - query
            np.vecdot(apart, apart, out=into)
            np.sqrt(into, out=into)
            np.subtract(0.0, into, out=into)  # not -0.0
        else:
            np.vecdot(block, query, out=into)


def similarity(score: float, metric: Metric) -> float:
    """A score on a scale from 0 to 1, the same for all queries: 1 for a vector in the direction of
    the query's (cosine), of no distance (l2), of a product without end (ip)."""
    if metric == "cosine":
        return (1.0 + score) / 2.0
    if metric == "l2":
        return 1.0 / (1.0 - score)
    return 0.5 + atan(score) / pi


def by_row(rowids: Rowids, scores: Scores, mean_of: int) -> tuple[Rowids, Scores]:
    """Each row once, with the mean of its `mean_of` best scores, of all if it has fewer. `rowids`,
    those of the scores, has equal ones side by side."""
    if not len(rowids):
        return rowids, scores
    starts = row_starts(rowids)
    if mean_of == 1:
        return rowids[starts], np.maximum.reduceat(scores, starts)
    counts = np.diff(starts, append=len(rowids))
    row = np.repeat(np.arange(len(starts)), counts)
    descending = scores[np.lexsort((-scores, row))].astype(np.float64)
    rank = np.arange(len(rowids)) - np.repeat(starts, counts)
    descending[rank >= mean_of] = 0.0
    sums = np.add.reduceat(descending, starts)
    return rowids[starts], (sums / np.minimum(counts, mean_of)).astype(np.float32)


def row_starts(rowids: Rowids) -> Places:
    """The place of the first of each run of equal rowids."""
    return np.flatnonzero(np.diff(rowids, prepend=-1))


def best(rowids: Rowids, scores: Scores, limit: int) -> tuple[Rowids, Scores]:
    """The `limit` best rows, in order, without rows that score -inf."""
    if len(scores) > max(_SORTED_ROWS, limit):
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        keep = np.flatnonzero(scores >= least)  # more than `limit` when the last rank is shared
        rowids, scores = rowids[keep], scores[keep]
    order = np.lexsort((rowids, scores))[::-1][:limit]
    order = order[scores[order] > -np.inf]
    return rowids[order], scores[order]
