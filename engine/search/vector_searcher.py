"""Asking a vector index: from a view and a vector to the nearest rows.

Invariants:
- Rows of the view's own transaction are scored here, and never shown to what is kept in memory:
  they may be rolled back, and their rowids be given to other documents.
- A filter that no index answers is asked of the nearest rows first, then of twice as many, and at
  last all that match are listed: never fewer hits than there are.
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
from amberdb.engine.search.live_rows import Rows, pending_rows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.vector_cache import CommittedRows
from amberdb.engine.search.vector_index import VectorIndex
from amberdb.engine.storage.view import View
from amberdb.index.vector.distance import best, prepared, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amberdb.engine.search.searcher import VectorParts
    from amberdb.engine.storage.readable import Readable

    Rowids = NDArray[np.int64]
    Found = tuple[Rowids, NDArray[np.float32]]

ASKED_MAX: Final = 2_000
"""Nearest rows whose documents are asked before all that match the filter are listed."""


@final
class VectorSearcher:
    """Of one vector index."""

    def __init__(self, index: RowIndex, parts: "VectorParts") -> None:
        self._index = index
        self._rows = Rows()
        self._vectors = VectorIndex(
            index.vector,
            keyspace=index.number,
            host=_CacheSource(parts.source, index, self._rows),
            folder=parts.folder,
            builder=parts.builder,
        )

    def search(
        self,
        question: "NDArray[np.float32]",
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> tuple[list[tuple[int, float]], dict[str, Any]]:
        """Raises CorruptionError."""
        alive = self._rows.alive(view, schema, self._index)
        own = pending_rows(view, self._index)
        if len(own):
            own = own[alive[own]]  # one may have expired already
            alive = alive.copy()
            alive[own] = False
        asking = _VectorQuery(self._index, self._vectors, question, reader, alive, own)
        found, how = asking.nearest(limit, candidates, view, schema)
        how = {"kind": "vector", **how}
        return list(zip(found[0].tolist(), found[1].tolist(), strict=True)), how

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """Raises CorruptionError."""
        alive = self._rows.alive(view, schema, self._index)
        fetch = partial(RowReader(view, schema).vectors, index=self._index)
        return self._vectors.cache.problems(alive, fetch)

    def stats(self) -> dict[str, Any]:
        return self._vectors.stats()

    def save(self) -> None:
        self._vectors.cache.save()

    def forget_dead(self) -> None:
        self._vectors.cache.forget_dead()


@final
class _CacheSource:
    """What the cache of an index sees of the database."""

    def __init__(self, source: "Readable", index: RowIndex, rows: Rows) -> None:
        self._source = source
        self._index = index
        self._rows = rows

    @contextmanager
    def newest(self) -> Generator[CommittedRows]:
        with self._source.view() as view:
            schemas = view.catalog.schemas.values()
            schema = next(
                (s for s in schemas if any(i.number == self._index.number for i in s.row_indexes)),
                None,
            )
            if schema is None:  # dropped
                yield CommittedRows(np.empty(0, np.bool_), _nothing)
                return
            reader = RowReader(view, schema)
            alive = np.zeros(
                CollectionCounters.unpack(view.get(schema.counters_key)).next_rowid, np.bool_
            )
            known = self._rows.committed(view, self._index)[: len(alive)]
            alive[: len(known)] = known
            yield CommittedRows(alive, partial(reader.vectors, index=self._index))

    def sync(self) -> Lsn:
        self._source.log.sync()
        return self._source.log.durable_lsn


def _nothing(rowids: "Rowids") -> "tuple[NDArray[np.float32], NDArray[np.bool_]]":
    return np.empty((len(rowids), 0), np.float32), np.zeros(len(rowids), np.bool_)


@final
class _VectorQuery:
    """One vector, asked at one view."""

    __slots__ = ("_alive", "_index", "_own", "_reader", "_vector", "_vectors")

    def __init__(
        self,
        index: RowIndex,
        vectors: VectorIndex,
        vector: "NDArray[np.float32]",
        reader: RowReader,
        alive: "NDArray[np.bool_]",
        own: "Rowids",
    ) -> None:
        """`alive` are committed rows; those of the view's own transaction are in `own`."""
        self._index = index
        self._vectors = vectors
        self._vector = vector
        self._reader = reader
        self._alive = alive
        self._own = own

    def nearest(
        self, limit: int, candidates: Candidates, view: View, schema: Schema
    ) -> "tuple[Found, dict[str, Any]]":
        """Those that the candidates let through."""
        accepts = candidates.accepts
        if accepts is None:
            return self._ranked(limit, candidates.among)
        asked = 2 * limit
        while asked <= ASKED_MAX:
            (rowids, values), how = self._ranked(asked, None)
            passed = np.array([accepts(rowid, self._index) for rowid in rowids.tolist()], np.bool_)
            if np.count_nonzero(passed) >= limit or len(rowids) < asked:
                found = rowids[passed][:limit], values[passed][:limit]
                return found, {**how, "documents asked": len(rowids)}
            asked *= 4
        among = candidates.all_rows(view, schema)
        found, how = self._ranked(limit, among)
        return found, {**how, "documents asked": "all that the filter had to read"}

    def _ranked(self, limit: int, among: "Rowids | None") -> "tuple[Found, dict[str, Any]]":
        """The nearest rows, of all or among some."""
        rowids, values, how = self._vectors.search(
            self._vector, limit, self._alive, self._fetch, among
        )
        own = self._own
        if len(own) and among is not None:
            own = np.intersect1d(own, among)
        if len(own):
            metric = self._index.vector.metric
            vectors = prepared(self._fetch(own)[0], metric)
            theirs = np.empty(len(own), np.float32)
            scores(vectors, prepared(self._vector, metric), metric, theirs)
            joined = np.concatenate((rowids, own)), np.concatenate((values, theirs))
            rowids, values = best(*joined, limit)
        return (rowids, values), how

    def _fetch(self, rowids: "Rowids") -> "tuple[NDArray[np.float32], NDArray[np.bool_]]":
        return self._reader.vectors(rowids, self._index)
