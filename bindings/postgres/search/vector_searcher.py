"""Search of one Vector index: the server says which rows may be the nearest, and the engine's own
arithmetic scores them.

    few rows, or few that pass a filter     every vector is read and scored
    more                                    the server compares every vector, and its best are read
    more than FLAT_ROWS, without a filter   the server's graph proposes vectors, and those are read

A filter that no index answers is decided by the documents of the nearest rows, then of more and
more rows, and in the end by all documents.

Invariants:
- A score is that of a directory to the last bit, whatever proposed the row.
- There are `limit` rows if that many pass: a graph that ends before is not the last to be asked.
- In a transaction the documents of the rows are locked, and a row whose document another
  transaction has written meanwhile is none.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Found
from amberdb.engine.search.vector import index as vector_index
from amberdb.engine.search.vector.index import SHORTLIST, WIDER
from amberdb.engine.search.vector.searcher import CHECKED_MAX
from amberdb.engine.storage.view import View
from amberdb.index.vector.distance import Rowids, Scores, Vectors, best, by_row, prepared, scores
from amberdb.postgres.narrowing import condition_of
from amberdb.postgres.search.vector_table import VectorTable, text_of
from amberdb.postgres.view import PostgresView, of_server

READ_BYTES: Final = 4 << 20
"""The most bytes of vectors that are read to score every one."""
PROPOSED_MAX: Final = 4_000
"""The most vectors that a graph is asked for: to compare all of them takes no longer then."""
EF_SEARCH_MAX: Final = 1_000
_MEMORY: Final = 16
"""What a search of a graph may take, in work_mem of the server."""

_Nearest: TypeAlias = tuple[Rowids, Scores]


@final
class VectorSearcher:
    """Answers queries over one Vector index."""

    def __init__(self, index: RowIndex) -> None:
        self._index = index

    def search(
        self,
        query: Vectors,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> Found:
        """The nearest `limit` rows of the view, nearest first. Raises QueryError."""
        server = of_server(view)
        rows = _Rows(server, schema, self._index, query)
        if candidates.postfilter is None and not server.locks:
            nearest, how = rows.nearest(limit, candidates.prefilter)
        else:
            nearest, how = self._passing(rows, server, schema, limit, candidates)
        rowids, values = nearest
        server.prefetch_rows(schema, rowids.tolist())
        how = {"kind": "vector", **how}
        return Found(list(zip(rowids.tolist(), values.tolist(), strict=True)), how)

    def _passing(
        self,
        rows: "_Rows",
        view: PostgresView,
        schema: Schema,
        limit: int,
        candidates: Candidates,
    ) -> tuple[_Nearest, dict[str, Any]]:
        """The nearest rows whose documents are there, and pass the filter."""
        passes, among = candidates.postfilter, candidates.prefilter
        narrow = None if passes is None else condition_of(candidates.filter)
        checked = 2 * limit
        while checked <= CHECKED_MAX:
            (rowids, values), how = rows.nearest(checked, among)
            there = view.prefetch_rows(schema, rowids.tolist(), narrow)
            passed = np.array(
                [
                    rowid in there and (passes is None or passes(rowid, self._index))
                    for rowid in rowids.tolist()
                ],
                np.bool_,
            )
            if np.count_nonzero(passed) >= limit or len(rowids) < checked:
                nearest = rowids[passed][:limit], values[passed][:limit]
                return nearest, {**how, "documents checked": len(rowids)}
            checked *= WIDER
        if passes is not None:
            among = candidates.all_rows(view.narrowed(candidates.filter, None), schema).rowids
        nearest, how = rows.nearest(limit, among)
        return nearest, {**how, "documents checked": "all candidates of the filter"}


class _Sent(NamedTuple):
    """Vectors that the server has sent."""

    rowids: Rowids
    """The row of each, equal ones side by side."""
    scores: Scores


@final
class _Rows:
    """The rows of a view, and a query vector."""

    def __init__(self, view: PostgresView, schema: Schema, index: RowIndex, query: Vectors) -> None:
        self._view = view
        self._table: VectorTable = view.catalogue.table(schema).vectors[index.vector.field]
        self._spec = index.vector
        self._query = query
        self._live, self._bound = view.live_rows(schema)

    def nearest(self, limit: int, among: Rowids | None) -> tuple[_Nearest, dict[str, Any]]:
        """The nearest rows, of those in `among` if it is given, and how they were found."""
        if not limit or (among is not None and not len(among)):
            return _NONE, self._how_exact(0)
        count = self._count(among)
        if count <= min(vector_index.EXACT_ROWS, READ_BYTES // (4 * self._spec.dim)):
            sent = self._sent(self._table.all(self._where(among)), self._values(among))
            return self._best(sent, limit), self._how_exact(len(sent.scores))
        if among is None and count > vector_index.FLAT_ROWS and self._table.has_graph:
            nearest = self._by_graph(limit)
            if nearest is not None:
                return nearest, {"search": "graph"}
        values = self._values(among)
        sql = self._table.nearest(self._where(among), limit + SHORTLIST)
        sent = self._sent(sql, [*self._asked(), *values])
        return self._best(sent, limit), self._how_exact(count)

    # -- inside ------------------------------------------------------------------------------

    def _how_exact(self, count: int) -> dict[str, Any]:
        return {"search": "exact", "vectors" if self._spec.multi else "rows": count}

    def _by_graph(self, limit: int) -> _Nearest | None:
        """The nearest rows by the graph; None when it does not find enough of them."""
        count = limit * self._spec.mean_of + SHORTLIST
        while count <= PROPOSED_MAX:
            self._view.query(_SETTINGS, [str(min(max(self._spec.ef, count), EF_SEARCH_MAX))])
            sql = self._table.proposed(self._where(None), count)
            sent = self._sent(sql, [*self._values(None), *self._asked()])
            rowids = np.unique(sent.rowids)
            if len(rowids) >= limit:
                if self._spec.mean_of == 1:
                    return self._best(sent, limit)
                whole = self._sent(self._table.all(self._where(rowids)), self._values(rowids))
                nearest = self._best(whole, limit)
                # A row that was not proposed has no vector, and so no mean, above this score.
                if nearest[1][-1] >= sent.scores.min():
                    return nearest
            if len(sent.scores) < count:
                break
            count *= WIDER
        return None

    def _count(self, among: Rowids | None) -> int:
        """The number of vectors, as far as it matters."""
        if among is not None and not self._spec.multi:
            return len(among)
        sql = self._table.counted(self._where(among), vector_index.FLAT_ROWS + 1)
        ((count,),) = self._view.query(sql, self._values(among))
        return int(count)

    def _best(self, sent: _Sent, limit: int) -> _Nearest:
        return best(*by_row(sent.rowids, sent.scores, self._spec.mean_of), limit)

    def _where(self, among: Rowids | None) -> str:
        return self._live if among is None else f"{self._live} AND rowid = ANY(%s::bigint[])"

    def _values(self, among: Rowids | None) -> list[Any]:
        return self._bound if among is None else [*self._bound, among.tolist()]

    def _asked(self) -> list[Any]:
        return [text_of(self._query)]

    def _sent(self, sql: str, values: Sequence[Any]) -> _Sent:
        """The vectors of a statement, scored."""
        rows = self._view.query(sql, list(values))
        rowids = np.array([rowid for rowid, _ in rows], np.int64)
        metric = self._spec.metric
        vectors = prepared(self._table.numbers(b"".join([sent for _, sent in rows])), metric)
        found: NDArray[np.float32] = np.empty(len(rows), np.float32)
        scores(vectors, prepared(self._query, metric), metric, found)
        return _Sent(rowids, found)


_NONE: Final[_Nearest] = (np.empty(0, np.int64), np.empty(0, np.float32))
_SETTINGS: Final = (
    "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), "
    "set_config('hnsw.max_scan_tuples', '2147483647', true), "
    f"set_config('hnsw.scan_mem_multiplier', '{_MEMORY}', true), "
    "set_config('hnsw.ef_search', %s, true)"
)
"""Of the transaction: a graph is searched until there are enough rows."""
