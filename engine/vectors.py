"""Search by vector: the rows that are alive at a view, nearest first.

Vectors of record are in the documents. Here is what makes search fast: a matrix of rows in memory,
which every search brings up to its own view.

Invariants:
- What is alive decides what is found: `alive` of the caller's view and nothing else. A cache may
  know rows that are dead or not yet born for a view, and lack some that are alive: those are
  fetched, so the state of a cache never changes an answer of exact search.
- Scores are exact, whatever found the row; higher is closer, equals go by rowid, the newer first.
- As many rows as `limit` asks for, if so many are alive.
- Searches run side by side and wait for nothing but the fetching of rows that they need too.
"""

import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.distance import Places, Rowids, Scores, Vectors, best, prepared, scores
from amberdb.index.matrix import Matrix, Rows
from amberdb.index.vector import Vector

Alive: TypeAlias = NDArray[np.bool_]
Fetch: TypeAlias = Callable[[Rowids], tuple[Vectors, NDArray[np.bool_]]]

FETCH_ROWS: Final = 1024
"""Rows that are fetched at once."""


@final
class _Sight:
    """What one `alive` means for the rows of one matrix; kept for the next search."""

    __slots__ = ("alive", "apart", "live", "rows", "source")

    def __init__(self, source: Matrix, rows: Rows, alive: Alive) -> None:
        self.source = source
        self.rows = rows
        self.alive = alive
        self.live = rows.alive(alive)
        """bool[rows.count], by place."""
        self.apart = np.flatnonzero(alive)
        """Rowids that are alive and not in the matrix."""
        self.apart = self.apart[rows.places(self.apart) < 0]


@final
class VectorSearcher:
    """Of one Vector index of an open database."""

    def __init__(self, spec: Vector) -> None:
        self.spec = spec
        self._matrix = Matrix(spec.dim, spec.metric)
        self._adding = threading.Lock()
        self._kept: _Sight | None = None

    def search(
        self,
        query: Vectors,
        limit: int,
        alive: Alive,
        fetch: Fetch,
        among: Rowids | None = None,
    ) -> tuple[Rowids, Scores, dict[str, Any]]:
        """Rowids int64[k] and scores float32[k] of the nearest rows, k at most `limit`, and how
        they were found.

        query   float32[dim], as coerce() makes it
        alive   bool[], by rowid: the rows of the view. It must not change any more
        fetch   rowids -> float32[n, dim] and bool[n]: the vectors in the documents, and which
                have one
        among   only these rows, in any order
        """
        query = prepared(query, self.spec.metric)
        sight = self._sight(alive, fetch)
        if among is None:
            found = self._all(sight, query, limit)
            apart = sight.apart
        else:
            among = np.unique(among[among < len(alive)])
            among = among[alive[among]]
            places = sight.rows.places(among)
            inside = places >= 0
            found = self._some(sight.rows, np.sort(places[inside]), query, limit)
            apart = among[~inside]
        how: dict[str, Any] = {"search": "exact"}
        if len(apart):
            how["fetched"] = len(apart)
            found = self._with_apart(found, apart, query, limit, fetch)
        return *found, how

    def stats(self) -> dict[str, Any]:
        """Rows in memory, and the bytes they take."""
        rows = self._matrix.rows()
        return {"rows": rows.count, "matrix_bytes": self._matrix.size_bytes}

    # -- exact -------------------------------------------------------------------------------

    def _all(self, sight: _Sight, query: Vectors, limit: int) -> tuple[Rowids, Scores]:
        found = sight.rows.scores(query)
        found[~sight.live] = -np.inf
        return best(sight.rows.rowids, found, limit)

    def _some(
        self, rows: Rows, places: Places, query: Vectors, limit: int
    ) -> tuple[Rowids, Scores]:
        return best(rows.rowids[places], rows.scores_at(places, query), limit)

    def _with_apart(
        self,
        found: tuple[Rowids, Scores],
        rowids: Rowids,
        query: Vectors,
        limit: int,
        fetch: Fetch,
    ) -> tuple[Rowids, Scores]:
        """Together with rows that no cache holds: a view older than the caches has such."""
        for start in range(0, len(rowids), FETCH_ROWS):
            some, vectors = _fetched(rowids[start : start + FETCH_ROWS], fetch)
            theirs = np.empty(len(some), np.float32)
            scores(prepared(vectors, self.spec.metric), query, self.spec.metric, theirs)
            joined = np.concatenate((found[0], some)), np.concatenate((found[1], theirs))
            found = best(*joined, limit)
        return found

    # -- rows --------------------------------------------------------------------------------

    def _sight(self, alive: Alive, fetch: Fetch) -> _Sight:
        """Of this view, after its new rows were added."""
        sight = self._kept
        if sight is not None and sight.alive is alive and sight.source is self._matrix:
            return sight
        matrix = self._matrix
        sight = _Sight(matrix, matrix.rows(), alive)
        if np.any(sight.apart > matrix.floor):
            with self._adding:
                matrix = self._matrix
                rows = matrix.rows()
                missing = sight.apart[rows.places(sight.apart) < 0]
                self._add(matrix, missing[missing > matrix.floor], fetch)
            sight = _Sight(matrix, matrix.rows(), alive)
        self._kept = sight
        return sight

    def _add(self, matrix: Matrix, rowids: Rowids, fetch: Fetch) -> None:
        for start in range(0, len(rowids), FETCH_ROWS):
            matrix.add(*_fetched(rowids[start : start + FETCH_ROWS], fetch))


def _fetched(rowids: Rowids, fetch: Fetch) -> tuple[Rowids, Vectors]:
    vectors, has = fetch(rowids)
    return rowids[has], vectors[has]
