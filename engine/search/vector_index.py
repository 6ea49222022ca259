"""Search by vector: the rows that are alive at a view, nearest first.

    few rows (in all, or `among`)  -> exact: each is scored
    many                           -> the graph proposes, exact scores decide; rows behind the graph
                                      are scored too; too few alive: wider, at last exact

Vectors of record are in the documents; engine/search/vector_cache.py has what makes this fast.

Invariants:
- What is alive decides what is found: `alive` of the caller's view and nothing else. A cache may
  know rows that are dead or not yet born for a view, and lack some that are alive: those are
  fetched, so the state of a cache never changes an answer of exact search.
- Scores are exact, whatever found the row; higher is closer, equals go by rowid, the newer first.
- As many rows as `limit` asks for, if so many are alive.
- Searches run side by side, and wait for nothing but the fetching of rows that they need too.
"""

from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.jobs import Jobs
from amberdb.engine.search.vector_cache import (
    FETCH_ROWS,
    Alive,
    Built,
    CacheSource,
    Fetch,
    VectorCache,
)
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.index.vector.distance import Places, Rowids, Scores, Vectors, best, prepared, scores
from amberdb.index.vector.hnsw import Graph
from amberdb.index.vector.matrix import Matrix, MatrixView
from amberdb.index.vector.vector import Vector

_Found: TypeAlias = tuple[Rowids, Scores]

EXACT_ROWS: Final = 10_000
"""Up to so many rows are scored one and all."""
VISIT_ROWS: Final = 10
"""What a row that the graph looks at costs, in rows scored."""
GATHERED: Final = 3
"""What scoring one row out of many costs, in rows scored in their order."""
SHORTLIST: Final = 16
"""Rows of the graph's answer past `limit` that are scored exactly: its own order is as good as
exact but for rounding."""
WIDER: Final = 4
"""How much wider the graph is searched when too few of what it found are alive."""


@final
class _VisibleRows:
    """What one `alive` means for the rows of one matrix; kept for the next search."""

    __slots__ = ("_inside", "alive", "apart", "count", "live", "rows", "source")

    def __init__(self, source: Matrix, rows: MatrixView, alive: Alive) -> None:
        self.source = source
        self.rows = rows
        self.alive = alive
        self.live = rows.alive(alive)
        """bool[rows.count], by place."""
        self.count = int(np.count_nonzero(self.live))
        apart = np.flatnonzero(alive)
        self.apart: Rowids = apart[rows.places(apart) < 0]
        """Rowids that are alive and not in the matrix."""
        self._inside = (0, 0)

    def inside(self, covered: int) -> int:
        """How many of the first `covered` rows are alive."""
        if self._inside[0] != covered:
            self._inside = covered, int(np.count_nonzero(self.live[:covered]))
        return self._inside[1]


@final
class VectorIndex:
    """Of one Vector index of an open database. Without a host it searches exactly, and keeps its
    rows in memory only."""

    def __init__(
        self,
        spec: Vector,
        *,
        keyspace: int = 0,
        host: CacheSource | None = None,
        folder: CacheFolder | None = None,
        builder: Jobs | None = None,
    ) -> None:
        self.spec = spec
        self.cache = VectorCache(spec, keyspace, host, folder, builder)
        self._kept: _VisibleRows | None = None

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
        among   only these rows, ascending
        """
        query = prepared(query, self.spec.metric)
        built = self.cache.built
        sight = self._sight(built, alive, fetch)
        rows, wanted, apart, count = sight.rows, sight.live, sight.apart, sight.count
        places: Places | None = None
        if among is not None:
            among = among[among < len(alive)]
            among = among[alive[among]]
            places = rows.places(among)
            apart = among[places < 0]
            places = np.sort(places[places >= 0])
            count = len(places)
        how: dict[str, Any] = {"search": "exact", "rows": count}
        found: _Found | None = None
        uses_graph = built.graph is not None and limit > 0 and count > EXACT_ROWS
        if places is not None and (uses_graph or count * GATHERED > rows.count):
            wanted = np.zeros(rows.count, np.bool_)
            wanted[places] = True
            places = places if count * GATHERED <= rows.count else None
        if built.graph is not None and uses_graph:
            found = self._near(built, built.graph, sight, wanted, query, limit, how)
        if found is None:
            found = _exact(rows, wanted, places, query, limit)
        if len(apart):
            how["fetched"] = len(apart)
            found = self._with_apart(found, apart, query, limit, fetch)
        return *found, how

    def stats(self) -> dict[str, Any]:
        """Rows in memory, in the graph and dead; bytes; and whether something is being built."""
        return self.cache.stats()

    # -- by graph ----------------------------------------------------------------------------

    def _near(
        self,
        built: Built,
        graph: Graph,
        sight: _VisibleRows,
        wanted: NDArray[np.bool_],
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Found | None:
        """None when scoring all rows is cheaper, or the graph does not reach enough of them."""
        rows = sight.rows
        covered = min(built.covered, rows.count)
        if wanted is sight.live:
            inside = sight.inside(covered)
        else:
            inside = int(np.count_nonzero(wanted[:covered]))
        if not inside:
            return None
        k = max(self.spec.ef, limit * built.covered // inside)
        widened = 0
        while k * VISIT_ROWS < inside:
            near = rows.places(graph.search(query, k))
            near = near[near >= 0]
            near = near[wanted[near]]
            if len(near) >= min(limit, inside):
                near = np.sort(near[: limit + SHORTLIST])  # nearest first, as the graph has it
                rowids, found = rows.rowids[near], rows.scores_at(near, query)
                fresh = int(np.count_nonzero(wanted[covered:]))
                if fresh:
                    rowids = np.concatenate((rowids, rows.rowids[covered:]))
                    found = np.concatenate((found, _scored(rows, wanted, query, covered)))
                how.update(search="graph", k=k, fresh=fresh, widened=widened)
                return best(rowids, found, limit)
            k *= WIDER
            widened += 1
        how["widened"] = widened
        return None

    # -- exact -------------------------------------------------------------------------------

    def _with_apart(
        self, found: _Found, rowids: Rowids, query: Vectors, limit: int, fetch: Fetch
    ) -> _Found:
        """Together with rows that no cache holds: a view older than the caches has such."""
        for start in range(0, len(rowids), FETCH_ROWS):
            some = rowids[start : start + FETCH_ROWS]
            vectors, has = fetch(some)
            theirs = np.empty(int(np.count_nonzero(has)), np.float32)
            scores(prepared(vectors[has], self.spec.metric), query, self.spec.metric, theirs)
            joined = np.concatenate((found[0], some[has])), np.concatenate((found[1], theirs))
            found = best(*joined, limit)
        return found

    # -- rows --------------------------------------------------------------------------------

    def _sight(self, built: Built, alive: Alive, fetch: Fetch) -> _VisibleRows:
        """Of this view, after its new rows were added."""
        matrix = built.matrix
        sight = self._kept
        if sight is None or sight.alive is not alive or sight.source is not matrix:
            sight = _VisibleRows(matrix, matrix.rows(), alive)
            new = sight.apart[sight.apart > matrix.base_rowid_max]
            if len(new):
                self.cache.add(matrix, new, fetch)
                sight = _VisibleRows(matrix, matrix.rows(), alive)
            self._kept = sight
        # At each search: what is due may have had to wait for the builder's pause.
        self.cache.note_rows(built, sight.rows.count, sight.rows.count - sight.count)
        return sight


def _exact(
    rows: MatrixView, wanted: NDArray[np.bool_], places: Places | None, query: Vectors, limit: int
) -> _Found:
    """Of some places, or of all that are wanted."""
    if places is not None:
        return best(rows.rowids[places], rows.scores_at(places, query), limit)
    return best(rows.rowids, _scored(rows, wanted, query), limit)


def _scored(rows: MatrixView, wanted: NDArray[np.bool_], query: Vectors, start: int = 0) -> Scores:
    """By place, from one on; -inf where they are not wanted."""
    found = rows.scores(query, start)
    found[~wanted[start:]] = -np.inf
    return found
