"""Vector index: the live rows of a view that are nearest to a query vector.

    few rows   -> exact: every row is scored
    many rows  -> those are scored that their codes (index/vector/codes.py) do not exclude
    most rows  -> the graph proposes rows and exact scores rank them; rows that are not in the graph
                  yet are scored too. If too few of the proposed rows are alive, the graph is
                  searched wider, and in the end the rows are found by codes

A row of an index with several vectors per document has the mean of the scores of its best
`mean_of` vectors. The graph proposes vectors, and all vectors of their rows are scored.

The vectors of record are those in the documents; engine/search/vector/cache.py holds copies of them
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

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.search.filtered_rows import FilteredRows
from amberdb.engine.search.vector.cache import Alive, Built, Fetch, VectorCache
from amberdb.engine.search.vector.gathered import ChosenVectors, GatheredVectors, Gatherer
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
_CountFirst: TypeAlias = Callable[[int], int]

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

    def count_first(self, covered: int) -> int:
        """How many of the first `covered` vectors are of live rows."""
        if covered == self.rows.count:
            return self.count
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
        self._gatherer = Gatherer()
        self._visible_rows: _VisibleRows | None = None
        """Of the last search."""

    def search(
        self,
        query: Vectors,
        limit: int,
        alive: Alive,
        fetch: Fetch,
        among: FilteredRows | None = None,
    ) -> tuple[Rowids, Scores, dict[str, Any]]:
        """Rowids int64[k] and scores float32[k] of the nearest rows, k at most `limit`, and how
        they were found.

        query  float32[dim], as coerce() returns it
        alive  bool[], by rowid: the live rows of the view. It must not change afterwards
        fetch  rowids -> the vectors in the documents, float32[n, dim], and the row of each
        among  only these rows are ranked
        """
        query = prepared(query, self._metric)
        self.cache.is_searched = True
        built = self.cache.built
        if among is None:
            visible = self._visible(built, alive, fetch)
            count, uncached = visible.count, visible.uncached
            how = self._how_exact(count)
            nearest = self._of_mask(
                built, visible.rows, visible.visible, visible.count_first, query, limit, how
            )
        else:
            chosen = self._chosen(built, among, alive, fetch)
            count, uncached = chosen.count, chosen.uncached
            how = self._how_exact(count)
            nearest = self._of_chosen(built, chosen, query, limit, how)
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

    # -- of all rows, or of a filter ---------------------------------------------------------

    def _of_mask(
        self,
        built: Built,
        rows: MatrixView,
        wanted: NDArray[np.bool_],
        count_first: _CountFirst,
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest:
        """The nearest of all wanted rows, a mask by place, and entries in `how`. `count_first`
        counts the wanted vectors among the first ones."""
        count = count_first(rows.count)
        nearest: _Nearest | None = None
        if built.graph is not None and limit > 0 and count > FLAT_ROWS:
            nearest = self._by_graph(
                built, built.graph, rows, wanted, count_first, query, limit, how
            )
        if nearest is None and limit > 0 and count > EXACT_ROWS and rows.codes.count:
            code = CodedQuery(query)
            coded = rows.row_start(rows.codes.count)
            bounds = rows.codes.bounds(code)[:coded]
            uncoded = np.arange(coded, rows.count)
            if count < rows.count:
                bounds[~wanted[:coded]] = -np.inf
                uncoded = uncoded[wanted[coded:]]
            nearest = self._by_codes(rows, code, bounds, None, uncoded, query, limit, how)
        if nearest is None:
            nearest = best(*self._by_row(rows.rowids, _scored(rows, wanted, query)), limit)
        return nearest

    def _of_chosen(
        self,
        built: Built,
        chosen: ChosenVectors,
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest:
        """The nearest of the rows of a filter, and entries in `how`."""
        rows, gathered, count = chosen.rows, chosen.gathered, chosen.count
        nearest: _Nearest | None = None
        if limit > 0 and count > EXACT_ROWS:
            if count * GATHERED > rows.count or (built.graph is not None and count > FLAT_ROWS):
                wanted = np.zeros(rows.count, np.bool_)
                wanted[chosen.places] = True
                count_first = partial(_count_first, wanted)
                return self._of_mask(built, rows, wanted, count_first, query, limit, how)
            if gathered.coded_count:
                code = CodedQuery(query)
                bounds = rows.codes.bounds_of(code, gathered.block(rows))
                bounds[~chosen.wanted[: gathered.coded_count]] = -np.inf
                nearest = self._by_codes(
                    rows, code, bounds, gathered, chosen.uncoded, query, limit, how
                )
        return nearest or self._best_at(rows, chosen.places, query, limit)

    # -- by graph ----------------------------------------------------------------------------

    def _by_graph(
        self,
        built: Built,
        graph: Graph,
        rows: MatrixView,
        wanted: NDArray[np.bool_],
        count_first: _CountFirst,
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest | None:
        """The nearest of the `wanted` rows, a mask by place, and an entry in `how`. None when
        scoring every row is cheaper, or the graph does not reach enough wanted rows."""
        covered = rows.row_start(min(built.covered, rows.count))
        wanted_covered = count_first(covered)
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
        code: CodedQuery,
        bounds: Scores,
        gathered: GatheredVectors | None,
        uncoded: Places,
        query: Vectors,
        limit: int,
        how: dict[str, Any],
    ) -> _Nearest | None:
        """The nearest rows, and entries in `how`. None when scoring every row is cheaper.

        bounds   of the gathered vectors, or of all, that have codes; -inf for those not wanted
        uncoded  the places of other vectors, which ascend
        """
        fresh = self._best_at(rows, uncoded, query, limit) if len(uncoded) else _NONE
        places = None if gathered is None else gathered.places
        most = len(bounds) // (GATHERED if gathered is None else 2)
        step = max(len(bounds) // SAMPLED_ROWS, 1)
        sample = bounds[::step]
        count = max(FIRST_ROWS, FIRST_PER_HIT * limit * self._mean_of)
        while count <= most:
            rank = max(count // step, 1)
            least = np.partition(sample, -rank)[-rank]
            near = np.flatnonzero(bounds >= max(least, _LOWEST))
            if len(near) > most:  # many are alike
                return None
            nearest = self._best_at(rows, _at(places, near), query, limit)
            nearest = _merged(fresh, nearest, limit)
            if least < _LOWEST:  # no other is wanted
                break
            if len(nearest[1]) == limit:
                worst = nearest[1][-1]
                near = np.flatnonzero(bounds >= worst)
                if CLOSER_ROWS < len(near) <= len(bounds) // CLOSER_SHARE:
                    of_near = rows.codes.at(near) if gathered is None else gathered.codes(near)
                    closer = rows.codes.closer_bounds_of(code, of_near, float(worst))
                    near = near[closer >= worst]
                if len(near) > most:
                    return None
                nearest = self._best_at(rows, _at(places, near), query, limit)
                nearest = _merged(fresh, nearest, limit)
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

    # -- scores ------------------------------------------------------------------------------

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

    def _chosen(
        self, built: Built, among: FilteredRows, alive: Alive, fetch: Fetch
    ) -> ChosenVectors:
        """The vectors of the live rows of a filter. While nearly all rows of the index are known,
        no others are looked at."""
        if not self._is_known(built):
            self._visible(built, alive, fetch)
        chosen = self._gatherer.chosen(built.matrix, among, alive)
        if len(chosen.uncached) > UNKNOWN_ROWS:
            self._visible(built, alive, fetch)
            chosen = self._gatherer.chosen(built.matrix, among, alive)
        return chosen

    def _is_known(self, built: Built) -> bool:
        """Whether a search has looked at nearly all rows of the matrix: a search of few rows need
        not look at the others again."""
        known = self._visible_rows
        if known is None or known.matrix is not built.matrix:
            return False
        return built.matrix.rows().count - known.rows.count <= UNKNOWN_ROWS

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


def _count_first(wanted: NDArray[np.bool_], first: int) -> int:
    """How many of the first ones are wanted."""
    return int(np.count_nonzero(wanted[:first]))


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
