"""Inverted lists over the codes of a matrix, to compare with: vectors are sorted by the nearest of
some centres, and a search looks into the lists of the nearest centres.

Only a measure of what such an index would give: it cannot grow, and the database has none.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.codes import CodedQuery
from amberdb.index.vector.matrix import MatrixView
from bench.workloads.events import SEED
from bench.workloads.vectors import Vectors

_TRAINED = 64
"""Vectors per list that the centres are trained on."""
_ROUNDS = 8
_BLOCK_ROWS = 8_192
_SCORED = 128


@final
class Lists:
    """Inverted lists over the rows of a matrix of unit vectors."""

    def __init__(self, rows: MatrixView) -> None:
        self._rows = rows
        rng = np.random.default_rng(SEED)
        self.count = round(2 * rows.count**0.5)
        sample = rows.vectors(np.sort(rng.permutation(rows.count)[: self.count * _TRAINED]))
        centres = sample[: self.count].copy()
        for _ in range(_ROUNDS):
            nearest = _nearest(sample, centres)
            np.add.at(sums := np.zeros_like(centres), nearest, sample)
            found = np.linalg.norm(sums, axis=1, keepdims=True)
            centres = np.where(found > 0, sums / np.maximum(found, 1e-9), centres)
        self._centres = centres
        parts = [
            _nearest(rows.vectors(np.arange(start, min(start + _BLOCK_ROWS, rows.count))), centres)
            for start in range(0, rows.count, _BLOCK_ROWS)
        ]
        lists = np.concatenate(parts)
        self._places = np.argsort(lists, kind="stable")
        self._ends = np.cumsum(np.bincount(lists, minlength=self.count))

    def search(self, query: Vectors, limit: int, read: int) -> NDArray[np.intp]:
        """The places of the nearest vectors in `read` lists."""
        nearest = np.argpartition(self._centres @ query, -read)[-read:]
        places = np.concatenate(
            [self._places[(self._ends[n - 1] if n else 0) : self._ends[n]] for n in nearest]
        )
        places.sort()
        bounds = self._rows.codes.bounds_of(CodedQuery(query), self._rows.codes.at(places))
        if len(places) > _SCORED:
            places = np.sort(places[np.argpartition(bounds, -_SCORED)[-_SCORED:]])
        scores = self._rows.scores_at(places, query)
        found: NDArray[np.intp] = places[np.argsort(-scores)[:limit]]
        return found


def _nearest(vectors: Vectors, centres: Vectors) -> NDArray[np.intp]:
    nearest: NDArray[np.intp] = np.argmax(vectors @ centres.T, axis=1)
    return nearest
