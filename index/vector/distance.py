"""Scores of vectors: cosine, inner product, Euclidean distance, and the best of them.

Invariants:
- A score depends on the two vectors alone: not on the rows beside it, their order, or how many are
  scored at once. So two ways to the same row give the same score, to the last bit.
- Higher is closer. Among equal scores the row with the higher rowid, the newer one, comes first.
- Vectors are stored as prepared() makes them: of length one under cosine. Scores are of these.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.vector import Metric

Vectors: TypeAlias = NDArray[np.float32]
Rowids: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]
Scores: TypeAlias = NDArray[np.float32]

BLOCK_BYTES: Final = 512 << 10
"""Of rows that are scored at once: they stay in the cache of one core."""


_SORTED_ROWS: Final = 64
"""So many are sorted in the time of finding the best of them first."""


def prepared(vectors: Vectors, metric: Metric) -> Vectors:
    """float32[..., dim] as it is scored; lengths are taken in float64, so none over- or
    underflows."""
    if metric != "cosine":
        return vectors
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.vecdot(wide, wide))
    scaled: NDArray[np.float64] = wide / lengths[..., None]
    return scaled.astype(np.float32)


def block_rows(dim: int) -> int:
    """How many rows make a block."""
    return max(BLOCK_BYTES // (4 * dim), 16)


def scores(vectors: Vectors, query: Vectors, metric: Metric, out: Scores) -> None:
    """Of prepared float32[n, dim] and a prepared query, into out float32[n].

    np.vecdot takes one dot product per row, where a matrix product would add up in an order that
    depends on the shape.
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


def best(rowids: Rowids, found: Scores, limit: int) -> tuple[Rowids, Scores]:
    """The `limit` best, in order. Rows scored -inf are none."""
    if len(found) > max(_SORTED_ROWS, limit):
        least = np.partition(found, len(found) - limit)[len(found) - limit]
        keep = np.flatnonzero(found >= least)  # more than limit where the last place is shared
        rowids, found = rowids[keep], found[keep]
    order = np.lexsort((rowids, found))[::-1][:limit]
    order = order[found[order] > -np.inf]
    return rowids[order], found[order]
