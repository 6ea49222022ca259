"""Rows of a vector index without a database: their documents, what is alive, and naive search."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amberdb._types import Lsn
from amberdb.engine.search.vector_cache import CommittedRows
from amberdb.index.vector.distance import best, prepared, scores
from amberdb.index.vector.vector import Metric

DIM = 8


class Documents:
    """Rows with their vectors as documents would have them, and what is alive."""

    def __init__(self, count: int, seed: int = 3, dim: int = DIM, centres: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = 2 * self.rng.standard_normal((centres, dim)) if centres else None
        self.vectors = np.zeros((1, dim), np.float32)
        self.alive = np.zeros(1, np.bool_)
        self.fetched: list[int] = []
        self.put(count)

    def put(self, count: int) -> None:
        self.vectors = np.concatenate((self.vectors, self.drawn(count)))
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

    def fetch(self, rowids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self.fetched += rowids.tolist()
        return self.vectors[rowids], np.ones(len(rowids), np.bool_)

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
        out = np.empty(len(rowids), np.float32)
        scores(prepared(self.vectors[rowids], metric), prepared(query, metric), metric, out)
        return pairs(*best(rowids, out, limit))

    @contextmanager
    def newest(self) -> Generator[CommittedRows]:
        yield CommittedRows(self.alive, self.fetch)

    def sync(self) -> Lsn:
        return Lsn(len(self.alive))


def pairs(rowids: Any, found: Any, *_: Any) -> list[tuple[int, float]]:
    return list(zip(rowids.tolist(), found.tolist(), strict=True))
