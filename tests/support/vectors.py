"""Rows of a vector index without a database: their documents, what is alive, and naive search."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amberdb._types import Lsn
from amberdb.engine.search.filtered_rows import FilteredRows, RowSet
from amberdb.engine.search.vector.cache import CommittedRows
from amberdb.index.vector.coercion import Metric
from amberdb.index.vector.distance import best, prepared, scores

DIM = 8


class Documents:
    """Rows with their vectors as documents would have them, and what is alive.

    Row n has the vector n; with `several` it has 1 to so many, and those of a row are near each
    other. `mean_of` is that of the declaration."""

    def __init__(
        self,
        count: int,
        seed: int = 3,
        dim: int = DIM,
        centres: int = 0,
        several: int = 1,
        mean_of: int = 1,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = 2 * self.rng.standard_normal((centres, dim)) if centres else None
        self.several = several
        self.mean_of = mean_of
        self.vectors = np.zeros((1, dim), np.float32)
        self.rows = np.zeros(1, np.int64)
        """The row of each vector."""
        self.alive = np.zeros(1, np.bool_)
        self.fetched: list[int] = []
        self.put(count)

    def put(self, count: int) -> None:
        vectors = self.drawn(count)
        rows = np.arange(len(self.alive), len(self.alive) + count)
        if self.several > 1:
            counts = self.rng.integers(1, self.several + 1, count)
            rows, vectors = np.repeat(rows, counts), np.repeat(vectors, counts, axis=0)
            vectors += self.rng.standard_normal(vectors.shape).astype(np.float32) / 2
        self.vectors = np.concatenate((self.vectors, vectors))
        self.rows = np.concatenate((self.rows, rows))
        self.alive = np.concatenate((self.alive, np.ones(count, np.bool_)))

    def drawn(self, count: int) -> NDArray[np.float32]:
        """More vectors of the same kind: random, or around some centres."""
        more = self.rng.standard_normal((count, self.vectors.shape[1]))
        if self.centres is not None:
            more += self.centres[self.rng.integers(0, len(self.centres), count)]
        return more.astype(np.float32)

    def delete(self, *rowids: int) -> None:
        self.alive = self.alive.copy()
        self.alive[list(rowids)] = False

    def fetch(self, rowids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self.fetched += rowids.tolist()
        of_rows = self._places(rowids)
        return self.rows[of_rows], self.vectors[of_rows]

    def _places(self, rowids: NDArray[np.int64]) -> NDArray[np.intp]:
        """Of all vectors of these rows, row by row."""
        if self.several == 1:
            return rowids
        starts = np.searchsorted(self.rows, rowids)
        ends = np.searchsorted(self.rows, rowids, "right")
        places: list[int] = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            places += range(start, end)
        return np.array(places, np.intp)

    def naive(
        self,
        query: NDArray[np.float32],
        limit: int,
        metric: Metric,
        alive: NDArray[np.bool_] | None = None,
        prefilter: NDArray[np.int64] | None = None,
    ) -> list[tuple[int, float]]:
        rowids = np.flatnonzero(self.alive if alive is None else alive)
        if prefilter is not None:
            rowids = np.intersect1d(rowids, prefilter)
        places = self._places(rowids)
        out = np.empty(len(places), np.float32)
        scores(prepared(self.vectors[places], metric), prepared(query, metric), metric, out)
        if self.several > 1:
            of_row = self.rows[places]
            best_of = [np.sort(out[of_row == rowid])[-self.mean_of :] for rowid in rowids.tolist()]
            means = [each.mean(dtype=np.float64) for each in best_of]
            out = np.array(means, np.float64).astype(np.float32)
        return pairs(*best(rowids, out, limit))

    @contextmanager
    def newest(self) -> Generator[CommittedRows]:
        yield CommittedRows(self.alive, self.fetch)

    def sync(self) -> Lsn:
        return Lsn(len(self.alive))


def filtered(rowids: NDArray[np.int64], of: RowSet | None = None) -> FilteredRows:
    """Rows as a filter finds them; with `of` as stored rows and what memory has changed of them."""
    if of is None:
        return FilteredRows(RowSet(rowids))
    added = np.setdiff1d(rowids, of.rowids)
    return FilteredRows(of, added, np.setdiff1d(of.rowids, rowids))


def pairs(rowids: Any, found: Any, *_: Any) -> list[tuple[int, float]]:
    return list(zip(rowids.tolist(), found.tolist(), strict=True))
