"""Search of one vector index: the rows of a view that are nearest to a query vector.

Invariants:
- Pending rows of the view's own transaction are scored here and never reach the cache: they may be
  rolled back, and their rowids given to other documents.
- A postfilter checks the documents of the nearest rows, then of more and more rows, and is replaced
  by the rowids of all documents that match when too few pass: no hit is missed.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from amberdb._types import Lsn
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.filtered_rows import FilteredRows
from amberdb.engine.search.live_rows import LiveRows, pending_rows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Found
from amberdb.engine.search.vector.cache import CommittedRows, VectorCache
from amberdb.engine.search.vector.file import VectorFile
from amberdb.engine.search.vector.index import VectorIndex
from amberdb.engine.storage.view import View
from amberdb.index.vector.distance import best, prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amberdb.engine.search.searcher import VectorParts
    from amberdb.engine.storage.readable import Readable

    Rowids = NDArray[np.int64]
    Nearest = tuple[Rowids, NDArray[np.float32]]

CHECKED_MAX: Final = 2_000
"""The most ranked rows whose documents a postfilter checks."""
_WIDER: Final = 4
"""How many times more rows are ranked when too few have passed the postfilter."""


@final
class VectorSearcher:
    """Answers queries over one vector index."""

    def __init__(self, index: RowIndex, parts: "VectorParts | None") -> None:
        """Without `parts`, for a dropped index, it has neither graph nor cache file."""
        self._index = index
        self._live_rows = LiveRows()
        if parts is None:
            cache = VectorCache(index.vector)
        else:
            cache = VectorCache(
                index.vector,
                source=_CacheSource(parts.source, index, self._live_rows),
                file=VectorFile(index.vector, index.number, parts.folder),
                builder=parts.builder,
            )
        self._vectors = VectorIndex(cache)

    def search(
        self,
        query: "NDArray[np.float32]",
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> Found:
        """The nearest `limit` rows of the view, nearest first. Raises CorruptionError."""
        alive = self._live_rows.alive(view, schema, self._index)
        pending = pending_rows(view, self._index)
        if len(pending):
            pending = pending[alive[pending]]  # a pending row may have expired already
            alive = alive.copy()
            alive[pending] = False
        vector_query = _VectorQuery(self._index, self._vectors, query, reader, alive, pending)
        (rowids, values), how = vector_query.nearest(limit, candidates, view, schema)
        how = {"kind": "vector", **how}
        return Found(list(zip(rowids.tolist(), values.tolist(), strict=True)), how)

    def take(self, view: View, schema: Schema, first: int) -> None:
        """Takes the committed rows from the rowid `first` on into memory, as far as no earlier call
        has. Raises CorruptionError."""
        alive = self._live_rows.committed(view, self._index)
        fetch = partial(RowReader(view, schema).vectors, index=self._index)
        self._vectors.cache.take(alive, fetch, first)

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """Differences between the cache and the documents of a view. Raises CorruptionError."""
        alive = self._live_rows.alive(view, schema, self._index)
        fetch = partial(RowReader(view, schema).vectors, index=self._index)
        return self._vectors.cache.problems(alive, fetch)

    def stats(self) -> dict[str, Any]:
        return self._vectors.stats()

    def save(self) -> None:
        self._vectors.cache.save()

    def retire(self) -> None:
        self._vectors.cache.retire()

    def forget_dead(self) -> None:
        self._vectors.cache.forget_dead()


@final
class _CacheSource:
    """The committed rows of one index, for its cache."""

    def __init__(self, source: "Readable", index: RowIndex, live_rows: LiveRows) -> None:
        self._source = source
        self._index = index
        self._live_rows = live_rows

    @contextmanager
    def newest(self) -> Generator[CommittedRows]:
        """The newest visible rows while the context is open; none if the index was dropped."""
        with self._source.view() as view:
            schemas = view.catalog.schemas.values()
            schema = next(
                (s for s in schemas if any(i.number == self._index.number for i in s.row_indexes)),
                None,
            )
            if schema is None:  # dropped
                yield CommittedRows(np.empty(0, np.bool_), _no_vectors)
                return
            reader = RowReader(view, schema)
            alive = np.zeros(
                CollectionCounters.unpack(view.get(schema.counters_key)).next_rowid, np.bool_
            )
            committed = self._live_rows.committed(view, self._index)[: len(alive)]
            alive[: len(committed)] = committed
            yield CommittedRows(alive, partial(reader.vectors, index=self._index))

    def sync(self) -> Lsn:
        """Makes all commits durable; the Lsn of the last. Raises AmberError."""
        self._source.log.sync()
        return self._source.log.durable_lsn


def _no_vectors(rowids: "Rowids") -> "tuple[Rowids, NDArray[np.float32]]":
    return rowids[:0], np.empty((0, 0), np.float32)


@final
class _VectorQuery:
    """A query vector and the rows of one view."""

    __slots__ = ("_alive", "_index", "_pending", "_reader", "_vector", "_vectors")

    def __init__(
        self,
        index: RowIndex,
        vectors: VectorIndex,
        vector: "NDArray[np.float32]",
        reader: RowReader,
        alive: "NDArray[np.bool_]",
        pending: "Rowids",
    ) -> None:
        """`alive` marks committed rows; `pending` are the live rows of the view's own
        transaction."""
        self._index = index
        self._vectors = vectors
        self._vector = vector
        self._reader = reader
        self._alive = alive
        self._pending = pending

    def nearest(
        self, limit: int, candidates: Candidates, view: View, schema: Schema
    ) -> "tuple[Nearest, dict[str, Any]]":
        """The nearest rows that pass the candidates' filter."""
        postfilter = candidates.postfilter
        if postfilter is None:
            return self._ranked(limit, candidates.rows)
        checked = 2 * limit
        while checked <= CHECKED_MAX:
            (rowids, values), how = self._ranked(checked, None)
            passed = np.array(
                [postfilter(rowid, self._index) for rowid in rowids.tolist()], np.bool_
            )
            if np.count_nonzero(passed) >= limit or len(rowids) < checked:
                nearest = rowids[passed][:limit], values[passed][:limit]
                return nearest, {**how, "documents checked": len(rowids)}
            checked *= _WIDER
        nearest, how = self._ranked(limit, candidates.all_rows(view, schema))
        return nearest, {**how, "documents checked": "all candidates of the filter"}

    def _ranked(self, limit: int, among: FilteredRows | None) -> "tuple[Nearest, dict[str, Any]]":
        """The nearest rows, of all rows or of those of a filter; committed and pending."""
        rowids, values, how = self._vectors.search(
            self._vector, limit, self._alive, self._fetch, among
        )
        pending = self._pending
        if len(pending) and among is not None:
            pending = np.intersect1d(pending, among.rowids)
        if len(pending):
            metric = self._index.vector.metric
            query = prepared(self._vector, metric)
            pending, pending_values = self._vectors.scored(*self._fetch(pending), query)
            rowids, values = best(
                np.concatenate((rowids, pending)), np.concatenate((values, pending_values)), limit
            )
        return (rowids, values), how

    def _fetch(self, rowids: "Rowids") -> "tuple[Rowids, NDArray[np.float32]]":
        return self._reader.vectors(rowids, self._index)
