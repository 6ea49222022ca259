"""Vector index: the live rows of a view that are nearest to a query vector.

    few rows   -> exact: every row is scored
    many rows  -> those are scored that their codes (index/vector/codes.py) do not exclude
    most rows  -> the graph proposes rows and exact scores rank them; rows that are not in the graph
                  yet are scored too. If too few of the proposed rows are alive, the graph is
                  searched wider, and in the end the rows are found by codes

A row of an index with several vectors per document has the mean of the scores of its best
`mean_of` vectors. The graph proposes vectors, and all vectors of their rows are scored.

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

from amberdb.engine.search.vector_cache import Alive, Built, Fetch, VectorCache
from amberdb.index.vector.codes import CodedQuery
from amberdb.index.vector.coercion import Metric
from amberdb.index.vector.distance import (
    Places,
    Rowids,
    Scores,
    Vectors,
    best,
    by_row,
    prepared,
    scores,
)
from amberdb.index.vector.hnsw import Graph
from amberdb.index.vector.matrix import Matrix, MatrixView

_Nearest: TypeAlias = tuple[Rowids, Scores]

EXACT_ROWS: Final = 2_000
"""Up to this many vectors every one is scored."""
UNKNOWN_ROWS: Final = 256
"""A search of few rows looks at all rows of the index when more than that were added since, or when
more of its own are not in memory."""
FLAT_ROWS: Final = 10_000
"""Up to this many vectors the graph is not asked: by codes few of them are scored."""
FIRST_ROWS: Final = 128
FIRST_PER_HIT: Final = 4
"""Vectors with the best codes that are scored first, the larger of both: their scores tell which
others are needed."""
SAMPLED_ROWS: Final = 8_192
"""About how many bounds tell which are the best ones: sorting out all of them took as long as to
score what a less precise limit lets through."""
CLOSER_ROWS: Final = 400
CLOSER_SHARE: Final = 2
"""When more vectors than that are needed, and no larger share than half, their codes are compared
again, more closely."""
VISIT_ROWS: Final = 10
"""The cost of one vector visited in the graph, in vectors scored sequentially: a visit is a random
access and compares the links of the vector."""
GATHERED: Final = 3
"""The cost of scoring one vector gathered by its place, in vectors scored sequentially: it is
copied first."""
SHORTLIST: Final = 16
"""Rows past `limit` of the graph's result that are scored exactly: the graph's order differs from
the exact order by rounding only."""
_LOWEST: Final = np.finfo(np.float32).min
"""Below it only bounds of rows that are not wanted."""
WIDER: Final = 4
"""How many times more vectors the graph proposes when too few of those proposed are alive."""


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
        """bool[rows.count], by place in the matrix: the vectors of live rows."""
        self.count = int(np.count_nonzero(self.visible))
        self.uncached = rows.missing(alive)
        """Live rows that are not in the matrix."""
        self._visible_covered = (0, 0)

    def count_covered(self, covered: int) -> int:
        """How many of the first `covered` vectors are of live rows."""
        if self._visible_covered[0] != covered:
            self._visible_covered = covered, int(np.count_nonzero(self.visible[:covered]))
        return self._visible_covered[1]


@final
class VectorIndex:
    """Nearest-neighbour search over one Vector index of an open database."""

    def __init__(self, cache: VectorCache) -> None:
        self.cache = cache
        self._metric: Metric = cache.spec.metric
        self._is_multi = cache.spec.multi
        self._mean_of = cache.spec.mean_of
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
        fetch      rowids -> the vectors in the documents, float32[n, dim], and the row of each
        prefilter  only these rows are ranked, ascending
        """
        query = prepared(query, self._metric)
        self.cache.is_searched = True
        built = self.cache.built
        if prefilter is not None:
            prefilter = prefilter[prefilter < len(alive)]
            prefilter = prefilter[alive[prefilter]]
            if len(prefilter) <= EXACT_ROWS and self._is_known(built):
                found = self._of_few(built.matrix.rows(), prefilter, query, limit, fetch)
                if found is not None:
                    return found
        visible_rows = self._visible(built, alive, fetch)
        rows, wanted, count = visible_rows.rows, visible_rows.visible, visible_rows.count
        uncached = visible_rows.uncached
        places: Places | None = None
        if prefilter is not None:
            places = rows.places(prefilter)
            uncached = prefilter[places < 0]
            places = np.sort(rows.expanded(places[places >= 0]))
            count = len(places)
        how = self._how_exact(count)
        nearest: _Nearest | None = None
        are_many = limit > 0 and count > EXACT_ROWS
        uses_graph = built.graph is not None and limit > 0 and count > FLAT_ROWS
        if places is not None and (uses_graph or count * GATHERED > rows.count):
            wanted = np.zeros(rows.count, np.bool_)
            wanted[places] = True
            places = places if count * GATHERED <= rows.count else None
        if built.graph is not None and uses_graph:
            nearest = self._by_graph(built, built.graph, visible_rows, wanted, query, limit, how)
        if nearest is None and are_many and rows.codes.count:
            mask = None if places is None and count == rows.count else wanted
            nearest = self._by_codes(rows, mask, places, query, limit, how)
        if nearest is None:
            nearest = self._exact(rows, wanted, places, query, limit)
        if len(uncached):
            how["fetched"] = len(uncached)
            nearest = self._merge_uncached(nearest, uncached, query, limit, fetch)
        return *nearest, how

    def scored(self, rowids: Rowids, vectors: Vectors, query: Vectors) -> _Nearest:
        """The scores of rows by their vectors, float32[n, dim] as documents hold them, for a
        prepared query; `rowids` has the row of each vector."""
        vectors = prepared(vectors, self._metric)
        values = np.empty(len(vectors), np.float32)
        scores(vectors, query, self._metric, values)
        return self._by_row(rowids, values)

    def stats(self) -> dict[str, Any]:
        """The counts of vectors in memory, in the graph and of dead rows; bytes; whether a build
        runs."""
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
        covered = rows.row_start(min(built.covered, rows.count))
        if wanted is visible_rows.visible:
            wanted_covered = visible_rows.count_covered(covered)
        else:
            wanted_covered = int(np.count_nonzero(wanted[:covered]))
        if not wanted_covered:
            return None
        fresh = int(np.count_nonzero(wanted[covered:]))
        k = max(self.cache.spec.ef, limit * self._mean_of * built.covered // wanted_covered)
        widened = 0
        while k * VISIT_ROWS < wanted_covered:
            near = graph.search(query, k)
            near = near[near < covered]
            near = near[wanted[near]]
            has_all = len(near) >= wanted_covered
            of_rows = near if not self._is_multi else _first_of_each_row(rows, near)
            if len(of_rows) >= limit or has_all:
                rowids, values = self._shortlisted(rows, of_rows, query, limit)
                if fresh:
                    enough = len(values) >= limit
                    worst = np.partition(values, -limit)[-limit] if enough else _LOWEST
                    more = self._uncovered(rows, wanted, covered, fresh, query, worst)
                    rowids = np.concatenate((rowids, more[0]))
                    values = np.concatenate((values, more[1]))
                rowids, values = best(rowids, values, limit)
                # A row that was not proposed has no vector, and so no mean, above this score.
                last = rows.scores_at(near[-1:], query)[0]
                if self._mean_of == 1 or has_all or values[-1] >= last:
                    how.update(search="graph", k=k, fresh=fresh, widened=widened)
                    return rowids, values
            k *= WIDER
            widened += 1
        how["widened"] = widened
        return None

    def _uncovered(
        self,
        rows: MatrixView,
        wanted: NDArray[np.bool_],
        covered: int,
        fresh: int,
        query: Vectors,
        worst: np.float32,
    ) -> _Nearest:
        """The scores of the `fresh` wanted rows that are not in the graph, or of those alone whose
        codes do not exclude a score of `worst`."""
        coded = rows.row_start(rows.codes.count)
        if fresh > EXACT_ROWS and coded > covered:
            bounds = rows.codes.bounds(CodedQuery(query), covered)[: coded - covered]
            near = np.flatnonzero((bounds >= worst) & wanted[covered:coded]) + covered
            if len(near) * GATHERED <= len(bounds):
                near = np.concatenate((near, np.flatnonzero(wanted[coded:]) + coded))
                if self._is_multi:
                    near = rows.expanded(np.unique(rows.places(rows.rowids[near])))
                return self._by_row(rows.rowids[near], rows.scores_at(near, query))
        return self._by_row(rows.rowids[covered:], _scored(rows, wanted, query, covered))

    def _shortlisted(self, rows: MatrixView, near: Places, query: Vectors, limit: int) -> _Nearest:
        """The scores of proposed rows, given by a place of each, the nearest first."""
        if self._mean_of == 1:
            near = near[: limit + SHORTLIST]
        if self._is_multi:
            near = rows.expanded(rows.places(rows.rowids[near]))
        near = np.sort(near)
        return self._by_row(rows.rowids[near], rows.scores_at(near, query))

    # -- by codes ----------------------------------------------------------------------------

    def _by_codes(
        self,
        rows: MatrixView,
        wanted: NDArray[np.bool_] | None,
        places: Places | None,
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest | None:
        """The nearest rows at some places, or of all wanted rows, a mask by place or None for all;
        and entries in `how`. None when scoring every row is cheaper."""
        code = CodedQuery(query)
        coded = rows.row_start(rows.codes.count)
        if places is None:
            bounds = rows.codes.bounds(code)[:coded]
            uncoded = np.arange(coded, rows.count)
            if wanted is not None:
                bounds[~wanted[:coded]] = -np.inf
                uncoded = uncoded[wanted[coded:]]
            most = len(bounds) // GATHERED
        else:
            split = int(places.searchsorted(coded))
            places, uncoded = places[:split], places[split:]
            bounds = rows.codes.bounds_at(code, places)
            most = len(bounds) // 2
        fresh = self._best_at(rows, uncoded, query, limit) if len(uncoded) else _NONE
        step = max(len(bounds) // SAMPLED_ROWS, 1)
        sample = bounds[::step]
        count = max(FIRST_ROWS, FIRST_PER_HIT * limit * self._mean_of)
        while count <= most:
            rank = max(count // step, 1)
            least = np.partition(sample, -rank)[-rank]
            near = np.flatnonzero(bounds >= max(least, _LOWEST))
            if len(near) > most:  # many are alike
                return None
            near = _at(places, near)
            nearest = _merged(fresh, self._best_at(rows, near, query, limit), limit)
            if least < _LOWEST:  # no other is wanted
                break
            if len(nearest[1]) == limit:
                worst = nearest[1][-1]
                near = _at(places, np.flatnonzero(bounds >= worst))
                if CLOSER_ROWS < len(near) <= len(bounds) // CLOSER_SHARE:
                    near = near[rows.codes.closer_bounds_at(code, near, float(worst)) >= worst]
                if len(near) > most:
                    return None
                nearest = _merged(fresh, self._best_at(rows, near, query, limit), limit)
                break
            count *= WIDER
        else:
            return None
        how.update(search="codes", scored=len(near) + len(uncoded))
        return nearest

    def _best_at(self, rows: MatrixView, places: Places, query: Vectors, limit: int) -> _Nearest:
        """The nearest of the rows that have vectors at these places, which ascend."""
        if self._is_multi:
            places = rows.expanded(np.unique(rows.places(rows.rowids[places])))
        return best(*self._by_row(rows.rowids[places], rows.scores_at(places, query)), limit)

    # -- exact -------------------------------------------------------------------------------

    def _is_known(self, built: Built) -> bool:
        """Whether a search has looked at nearly all rows of the matrix: a search of few rows need
        not look at the others again."""
        known = self._visible_rows
        if known is None or known.matrix is not built.matrix:
            return False
        return built.matrix.rows().count - known.rows.count <= UNKNOWN_ROWS

    def _of_few(
        self, rows: MatrixView, rowids: Rowids, query: Vectors, limit: int, fetch: Fetch
    ) -> tuple[Rowids, Scores, dict[str, Any]] | None:
        """The nearest of few live rows; None when many of them are not in the matrix, or when they
        have many vectors."""
        places = rows.places(rowids)
        uncached = rowids[places < 0]
        places = np.sort(rows.expanded(places[places >= 0]))
        if len(uncached) > UNKNOWN_ROWS or len(places) > EXACT_ROWS:
            return None
        nearest = self._best_at(rows, places, query, limit)
        how = self._how_exact(len(places))
        if len(uncached):
            how["fetched"] = len(uncached)
            nearest = self._merge_uncached(nearest, uncached, query, limit, fetch)
        return *nearest, how

    def _exact(
        self,
        rows: MatrixView,
        wanted: NDArray[np.bool_],
        places: Places | None,
        query: Vectors,
        limit: int,
    ) -> _Nearest:
        """The nearest rows at some places, or of all wanted rows, a mask by place."""
        if places is not None:
            return self._best_at(rows, places, query, limit)
        return best(*self._by_row(rows.rowids, _scored(rows, wanted, query)), limit)

    def _how_exact(self, count: int) -> dict[str, Any]:
        """How an exact search of so many vectors is reported."""
        return {"search": "exact", "vectors" if self._is_multi else "rows": count}

    def _by_row(self, rowids: Rowids, values: Scores) -> _Nearest:
        """Each row once, with its score, from the scores of its vectors."""
        return by_row(rowids, values, self._mean_of) if self._is_multi else (rowids, values)

    def _merge_uncached(
        self, nearest: _Nearest, uncached: Rowids, query: Vectors, limit: int, fetch: Fetch
    ) -> _Nearest:
        """The nearest of the given rows and of live rows that the cache lacks, which are fetched.
        A view older than the cache sees such rows."""
        step = self.cache.fetch_rows
        for start in range(0, len(uncached), step):
            fetched = self.scored(*fetch(uncached[start : start + step]), query)
            nearest = _merged(nearest, fetched, limit)
        return nearest

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


_NONE: Final[_Nearest] = np.empty(0, np.int64), np.empty(0, np.float32)


def _merged(some: _Nearest, others: _Nearest, limit: int) -> _Nearest:
    """The nearest of two disjoint sets of rows."""
    return best(np.concatenate((some[0], others[0])), np.concatenate((some[1], others[1])), limit)


def _at(places: Places | None, numbers: Places) -> Places:
    """The places with these numbers; the numbers themselves where all places are meant."""
    return numbers if places is None else places[numbers]


def _first_of_each_row(rows: MatrixView, places: Places) -> Places:
    """The first of the places of each row, in the given order."""
    _, first = np.unique(rows.rowids[places], return_index=True)
    return places[np.sort(first)]


def _scored(rows: MatrixView, wanted: NDArray[np.bool_], query: Vectors, start: int = 0) -> Scores:
    """The scores of all vectors from a place on, by place; -inf for rows that are not wanted."""
    values = rows.scores(query, start)
    values[~wanted[start:]] = -np.inf
    return values
