"""Vector index: the live rows of a view that are nearest to a query vector.

    few rows   -> exact: every row is scored
    many rows  -> the graph proposes rows and exact scores rank them; rows that are not in the graph
                  yet are scored too. If too few of the proposed rows are alive, the graph is
                  searched wider, and in the end every row is scored

The vectors of record are those in the documents; engine/search/vector_cache.py holds copies of them
in memory, and the graph.

Invariants:
- The result depends on `alive`, the mask of the caller's view, alone. The cache may hold rows that
  are dead, or not added yet, as of the view, and may lack live rows: those are fetched, so the
  state of the cache never changes the result of an exact search.
- Scores are exact, whatever proposed the row; higher is nearer, and of equal scores the newer row
  comes first.
- There are `limit` rows if that many are alive.
- Searches run concurrently; a search waits only while another one fetches rows that it needs too.
"""

from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.search.vector_cache import FETCH_ROWS, Alive, Built, Fetch, VectorCache
from amberdb.index.vector.distance import Places, Rowids, Scores, Vectors, best, prepared, scores
from amberdb.index.vector.hnsw import Graph
from amberdb.index.vector.matrix import Matrix, MatrixView
from amberdb.index.vector.vector import Metric

_Nearest: TypeAlias = tuple[Rowids, Scores]

EXACT_ROWS: Final = 10_000
"""Up to this many rows every row is scored; with more, the graph is searched."""
VISIT_ROWS: Final = 10
"""The cost of one row visited in the graph, in rows scored sequentially: a visit is a random access
and compares the links of the row."""
GATHERED: Final = 3
"""The cost of scoring one row gathered by its place, in rows scored sequentially: the row is copied
first."""
SHORTLIST: Final = 16
"""Rows past `limit` of the graph's result that are scored exactly: the graph's order differs from
the exact order by rounding only."""
WIDER: Final = 4
"""How many times more rows the graph proposes when too few of those proposed are alive."""


@final
class _VisibleRows:
    """The rows of one matrix that are alive by one mask; computed once for searches of equal
    views."""

    __slots__ = ("_visible_covered", "alive", "count", "matrix", "rows", "uncached", "visible")

    def __init__(self, matrix: Matrix, rows: MatrixView, alive: Alive) -> None:
        self.matrix = matrix
        self.rows = rows
        self.alive = alive
        self.visible = rows.alive(alive)
        """bool[rows.count], by place in the matrix."""
        self.count = int(np.count_nonzero(self.visible))
        rowids = np.flatnonzero(alive)
        self.uncached: Rowids = rowids[rows.places(rowids) < 0]
        """Live rows that are not in the matrix."""
        self._visible_covered = (0, 0)

    def count_covered(self, covered: int) -> int:
        """How many of the first `covered` rows are alive."""
        if self._visible_covered[0] != covered:
            self._visible_covered = covered, int(np.count_nonzero(self.visible[:covered]))
        return self._visible_covered[1]


@final
class VectorIndex:
    """Nearest-neighbour search over one Vector index of an open database."""

    def __init__(self, cache: VectorCache) -> None:
        self.cache = cache
        self._metric: Metric = cache.spec.metric
        self._visible_rows: _VisibleRows | None = None
        """Of the last search."""

    def search(
        self,
        query: Vectors,
        limit: int,
        alive: Alive,
        fetch: Fetch,
        prefilter: Rowids | None = None,
    ) -> tuple[Rowids, Scores, dict[str, Any]]:
        """Rowids int64[k] and scores float32[k] of the nearest rows, k at most `limit`, and how
        they were found.

        query      float32[dim], as coerce() returns it
        alive      bool[], by rowid: the live rows of the view. It must not change afterwards
        fetch      rowids -> float32[n, dim] and bool[n]: the vectors in the documents, and which
                   documents have one
        prefilter  only these rows are ranked, ascending
        """
        query = prepared(query, self._metric)
        built = self.cache.built
        visible_rows = self._visible(built, alive, fetch)
        rows, wanted, count = visible_rows.rows, visible_rows.visible, visible_rows.count
        uncached = visible_rows.uncached
        places: Places | None = None
        if prefilter is not None:
            prefilter = prefilter[prefilter < len(alive)]
            prefilter = prefilter[alive[prefilter]]
            places = rows.places(prefilter)
            uncached = prefilter[places < 0]
            places = np.sort(places[places >= 0])
            count = len(places)
        how: dict[str, Any] = {"search": "exact", "rows": count}
        nearest: _Nearest | None = None
        uses_graph = built.graph is not None and limit > 0 and count > EXACT_ROWS
        if places is not None and (uses_graph or count * GATHERED > rows.count):
            wanted = np.zeros(rows.count, np.bool_)
            wanted[places] = True
            places = places if count * GATHERED <= rows.count else None
        if built.graph is not None and uses_graph:
            nearest = self._by_graph(built, built.graph, visible_rows, wanted, query, limit, how)
        if nearest is None:
            nearest = _exact(rows, wanted, places, query, limit)
        if len(uncached):
            how["fetched"] = len(uncached)
            nearest = self._merge_uncached(nearest, uncached, query, limit, fetch)
        return *nearest, how

    def stats(self) -> dict[str, Any]:
        """The counts of rows in memory, in the graph and dead; bytes; whether a build runs."""
        return self.cache.stats()

    # -- by graph ----------------------------------------------------------------------------

    def _by_graph(
        self,
        built: Built,
        graph: Graph,
        visible_rows: _VisibleRows,
        wanted: NDArray[np.bool_],
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest | None:
        """The nearest of the `wanted` rows, a mask by place, and an entry in `how`. None when
        scoring every row is cheaper, or the graph does not reach enough wanted rows."""
        rows = visible_rows.rows
        covered = min(built.covered, rows.count)
        if wanted is visible_rows.visible:
            wanted_covered = visible_rows.count_covered(covered)
        else:
            wanted_covered = int(np.count_nonzero(wanted[:covered]))
        if not wanted_covered:
            return None
        k = max(self.cache.spec.ef, limit * built.covered // wanted_covered)
        widened = 0
        while k * VISIT_ROWS < wanted_covered:
            near = rows.places(graph.search(query, k))
            near = near[near >= 0]
            near = near[wanted[near]]
            if len(near) >= min(limit, wanted_covered):
                near = np.sort(near[: limit + SHORTLIST])  # the graph returns the nearest first
                rowids, values = rows.rowids[near], rows.scores_at(near, query)
                fresh = int(np.count_nonzero(wanted[covered:]))
                if fresh:
                    rowids = np.concatenate((rowids, rows.rowids[covered:]))
                    values = np.concatenate((values, _scored(rows, wanted, query, covered)))
                how.update(search="graph", k=k, fresh=fresh, widened=widened)
                return best(rowids, values, limit)
            k *= WIDER
            widened += 1
        how["widened"] = widened
        return None

    # -- exact -------------------------------------------------------------------------------

    def _merge_uncached(
        self, nearest: _Nearest, uncached: Rowids, query: Vectors, limit: int, fetch: Fetch
    ) -> _Nearest:
        """The nearest of the given rows and of live rows that the cache lacks, which are fetched.
        A view older than the cache sees such rows."""
        rowids, values = nearest
        for start in range(0, len(uncached), FETCH_ROWS):
            fetched = uncached[start : start + FETCH_ROWS]
            vectors, has_vector = fetch(fetched)
            fetched, vectors = fetched[has_vector], prepared(vectors[has_vector], self._metric)
            fetched_values = np.empty(len(fetched), np.float32)
            scores(vectors, query, self._metric, fetched_values)
            rowids, values = best(
                np.concatenate((rowids, fetched)), np.concatenate((values, fetched_values)), limit
            )
        return rowids, values

    # -- rows --------------------------------------------------------------------------------

    def _visible(self, built: Built, alive: Alive, fetch: Fetch) -> _VisibleRows:
        """The visible rows of a view; its new rows are added to the matrix first."""
        matrix = built.matrix
        visible_rows = self._visible_rows
        if (
            visible_rows is None
            or visible_rows.alive is not alive
            or visible_rows.matrix is not matrix
        ):
            visible_rows = _VisibleRows(matrix, matrix.rows(), alive)
            new = visible_rows.uncached[visible_rows.uncached > matrix.base_rowid_max]
            if len(new):
                self.cache.add(matrix, new, fetch)
                visible_rows = _VisibleRows(matrix, matrix.rows(), alive)
            self._visible_rows = visible_rows
        # At every search: a build that was due during the builder's pause starts with a later one.
        count = visible_rows.rows.count
        self.cache.note_rows(built, count, count - visible_rows.count)
        return visible_rows


def _exact(
    rows: MatrixView, wanted: NDArray[np.bool_], places: Places | None, query: Vectors, limit: int
) -> _Nearest:
    """The nearest rows at some places, or of all wanted rows, a mask by place."""
    if places is not None:
        return best(rows.rowids[places], rows.scores_at(places, query), limit)
    return best(rows.rowids, _scored(rows, wanted, query), limit)


def _scored(rows: MatrixView, wanted: NDArray[np.bool_], query: Vectors, start: int = 0) -> Scores:
    """The scores of all rows from a place on, by place; -inf for rows that are not wanted."""
    values = rows.scores(query, start)
    values[~wanted[start:]] = -np.inf
    return values
