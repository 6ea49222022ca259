"""Vector cache: the rows of one Vector index in memory, and an HNSW graph over the first of them.

    documents -> matrix: commits append their rows, many at once, and searches those that they miss
              -> graph: a background job builds it over the matrix
              -> cache file: both, for the next open (file.py)

Invariants:
- `built` is replaced by one assignment and never modified: a search reads it once.
- The graph holds exactly the first `covered` vectors of the matrix, those of dead rows included.
  Both are built again without the dead rows when these are more than a fifth.
- No row is added to a graph that is searched: it is copied and extended. So a build holds two
  graphs in memory, and dropping dead rows holds two matrices.
- The cache file is written after all of its rows are durable. It has no row that was dead when
  dead rows were forgotten, though a view from before that brings one back into memory.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import AmberError
from amberdb._types import Lsn
from amberdb.engine.jobs import YIELD_S, Jobs, Stop
from amberdb.engine.search.vector.file import VectorFile
from amberdb.index.vector.distance import Rowids, Vectors, prepared, row_starts
from amberdb.index.vector.hnsw import Graph, library
from amberdb.index.vector.matrix import Matrix, MatrixView
from amberdb.index.vector.vector import Vector

logger = logging.getLogger("amberdb.engine")

Alive: TypeAlias = NDArray[np.bool_]
Fetch: TypeAlias = Callable[[Rowids], tuple[Rowids, Vectors]]
"""Rowids to the vectors in their documents, float32[n, dim], and the row of each: rows in the given
order, and none for a document without a vector."""

FETCH_ROWS: Final = 1024
"""Rows fetched in one call."""
FETCH_ROWS_MULTI: Final = 64
"""The same of an index with several vectors per document."""
GRAPH_ROWS: Final = 50_000
"""The number of live vectors from which on a graph is built. By codes a search of 40,000 took about
2 ms, a few times as long as by a graph; the graph takes 1 ms of a processor for each vector, and a
second copy of all."""
TAKEN_BYTES_MAX: Final = 256 << 20
"""The size of a matrix up to which the rows of commits are taken before the first search: a process
that only writes needs none of it."""
FRESH_ROWS: Final = 2_000
FRESH_SHARE: Final = 0.05
"""The graph is extended when more vectors than both are not in it; until then searches score
them."""
DEAD_ROWS: Final = 1_000
DEAD_SHARE: Final = 0.2
"""Dead rows are dropped when there are more vectors of them than both."""
_BATCH_ROWS: Final = 128
_YIELD_ROWS: Final = 64
_PAUSE_S: Final = 1.0
_PAUSE_FAILED_S: Final = 60.0
_THREADS: Final = max(1, (os.cpu_count() or 1) // 2)
"""Threads of one build: the other processors are left to searches and writes."""


@final
@dataclass(frozen=True, slots=True)
class CommittedRows:
    """The rows of an index as of the newest visible commit; no transaction's pending rows."""

    alive: Alive
    fetch: Fetch


class CacheSource(Protocol):
    """The database, as its vector caches use it."""

    def newest(self) -> AbstractContextManager[CommittedRows]:
        """The newest visible rows; they can be fetched while the context is open."""
        ...

    def sync(self) -> Lsn:
        """Makes all commits durable; the Lsn of the last. Raises AmberError."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Built:
    """A matrix and the graph over its first rows, as one search uses them."""

    matrix: Matrix
    graph: Graph | None
    covered: int
    """The number of vectors in the graph."""


@final
class VectorCache:
    """The cache of one Vector index. Without a source there is no graph and no file: rows are kept
    in memory and never dropped."""

    def __init__(
        self,
        spec: Vector,
        *,
        source: CacheSource | None = None,
        file: VectorFile | None = None,
        builder: Jobs | None = None,
    ) -> None:
        self.spec = spec
        self.fetch_rows = FETCH_ROWS_MULTI if spec.multi else FETCH_ROWS
        self._source = source
        self._file = file
        self._builder = builder
        self.is_searched = False
        self._adding = CallLock()
        self._built: Built | None = None
        self._dead = 0
        self._next_taken = 0
        """The first rowid that was not taken yet."""
        self._is_building = False
        self._pause_until = 0.0
        self._kept: Alive | None = None
        """The rows that were live when dead ones were last forgotten."""

    # -- for searches ------------------------------------------------------------------------

    @property
    def built(self) -> Built:
        """The matrix and graph in use; at the first call the matrix of the file, or an empty
        one."""
        built = self._built
        if built is None:
            with self._adding:
                built = self._built
                if built is None:
                    built = self._built = Built(self._load_matrix(), None, 0)
        return built

    def add(self, matrix: Matrix, rowids: Rowids, fetch: Fetch) -> None:
        """Fetches the rows that are not in the matrix yet, and adds them."""
        with self._adding:
            missing = rowids[matrix.rows().places(rowids) < 0]
            for start in range(0, len(missing), self.fetch_rows):
                matrix.add(*fetch(missing[start : start + self.fetch_rows]))

    def take(self, alive: Alive, fetch: Fetch, first: int) -> None:
        """Adds committed rows from the rowid `first` on, as far as no earlier call has. A file is
        read first, in the background, and with it the rows up to then."""
        built = self._built
        if built is None and self._file is not None and self._file.is_there:
            self._request_load()
            return
        matrix = (built or self.built).matrix
        if not self.is_searched and matrix.size_bytes > TAKEN_BYTES_MAX:
            return
        first = max(first, self._next_taken)
        rowids = np.flatnonzero(alive[first:]) + first
        if len(rowids):
            self.add(matrix, rowids, fetch)
            self._next_taken = max(self._next_taken, int(rowids[-1]) + 1)
        if self._file is not None and self._file.is_behind(matrix.rows().count):
            self._request_save()

    def note_rows(self, built: Built, rows: int, dead: int) -> None:
        """Takes the number of vectors, and of those of dead rows, that a search saw, and starts a
        build if one is due."""
        self._dead = dead
        has_unread_graph = self._file is not None and self._file.has_unread_graph
        if has_unread_graph or self._is_due(built, rows, dead):
            self._request_build()
        elif self._file is not None and self._file.is_behind(rows):
            self._request_save()

    def stats(self) -> dict[str, Any]:
        """The counts of vectors in memory, in the graph and of dead rows; bytes; whether a build
        runs."""
        built = self._built or Built(self._empty_matrix(), None, 0)  # no file is read for this
        rows = built.matrix.rows().count
        return {
            "rows": rows,
            "dead": self._dead,
            "matrix_bytes": built.matrix.size_bytes,
            "graph_rows": built.covered,
            "graph_bytes": built.graph.size_bytes if built.graph is not None else 0,
            "lag": rows - built.covered if self._wants_graph(rows) else 0,
            "building": self._is_building,
        }

    def problems(self, alive: Alive, fetch: Fetch) -> Iterator[str]:
        """Differences between the matrix and the documents of a view whose live rows are `alive`,
        and between the graph and the matrix. No job of the builder may run meanwhile."""
        self._load_graph()
        built = self.built
        rows = built.matrix.rows()
        held = rows.rowids[rows.alive(alive)]
        held = held[row_starts(held)]
        are_right = True
        for start in range(0, len(held), self.fetch_rows):
            some = held[start : start + self.fetch_rows]
            wrong = self._first_wrong(rows, some, *fetch(some))
            if wrong is not None:
                are_right = False
                yield f"row {wrong} has another vector in cache/"
        if are_right:
            yield from _code_problems(rows)
        if built.graph is not None:
            problem = built.graph.problem(rows, built.covered)
            if problem is not None:
                yield f"the graph in cache/ has wrong {problem}"

    def _first_wrong(
        self, rows: MatrixView, some: Rowids, rowids: Rowids, vectors: Vectors
    ) -> int | None:
        """The first of some rows whose vectors in the matrix are not the given ones."""
        vectors = prepared(vectors, self.spec.metric)
        if np.array_equal(rows.vectors(rows.expanded(rows.places(some))), vectors):
            return None
        for rowid in map(int, some):
            places = rows.expanded(rows.places(np.array([rowid])))
            if not np.array_equal(rows.vectors(places), vectors[rowids == rowid]):
                return rowid
        return None

    # -- building ----------------------------------------------------------------------------

    def build(self, stop: Stop) -> None:
        """The builder's job: does all that is due, then saves the file. When it is stopped, the
        rows that a graph was extended by so far stay in use. Raises AmberError."""
        self._is_building = True
        pause_s = _PAUSE_FAILED_S
        try:
            self._load_graph()
            if self._file is not None and self._file.is_behind(self.built.matrix.rows().count):
                self.save()  # before the graph, which takes a hundred times as long
            while not stop() and self._step(stop):
                pass
            if not stop():
                self.save()
            pause_s = _PAUSE_S  # a view with expired rows sees more dead rows than a build drops
        finally:
            self._is_building = False
            self._pause_until = time.monotonic() + pause_s

    def save(self) -> None:
        """Writes the file if enough of the rows or of the graph is not in it; also called when the
        database is closed. A failure is logged."""
        built, file = self._built, self._file
        if built is None or file is None or self._source is None or not file.is_writable:
            return
        rows = built.matrix.rows()
        if not file.is_outdated(rows.count, built.covered):
            return
        if self._has_forgotten(rows):
            self._drop(built)
            return
        try:
            lsn = self._source.sync()  # after rows(): they were visible, so committed before
            if failpoints.on:
                failpoints.reach("vectors.saving")
            file.write(rows, built.matrix.base_rowid_max, built.graph, built.covered, lsn)
            if failpoints.on:
                failpoints.reach("vectors.saved")
        except (AmberError, OSError) as error:
            logger.warning("the cache of %s was not written: %s", self.spec.name, error)

    def retire(self) -> None:
        """The index was dropped: no file is written from now on, not by a running build either."""
        if self._file is not None:
            self._file.retire()

    def forget_dead(self) -> None:
        """Drops matrix and graph if they hold a dead row; the next search reads the documents. The
        file was removed before the call. No job of the builder may run meanwhile."""
        if self._source is None:
            return
        with self._source.newest() as committed:
            self._kept = committed.alive
        with self._adding:  # no other thread is reading the file
            if self._file is not None:
                self._file.forget()
        built = self._built
        if built is not None and self._has_forgotten(built.matrix.rows()):
            self._drop(built)

    def _has_forgotten(self, rows: MatrixView) -> bool:
        """Whether the matrix has a row that was dead when dead rows were last forgotten: a search
        at an older view adds it again."""
        kept = self._kept
        if kept is None:
            return False
        old = rows.rowids[rows.rowids < len(kept)]
        return not kept[old].all()

    def _drop(self, built: Built) -> None:
        """Drops matrix and graph; the next search reads the documents."""
        with self._adding:
            if self._built is built:
                self._built = None
                if self._file is not None:
                    self._file.forget()

    # -- building, inside ----------------------------------------------------------------------

    def _request_build(self) -> None:
        if self._builder is None or self._source is None or self._is_building:
            return
        if time.monotonic() >= self._pause_until:
            self._builder.want(self.build, f"the graph of {self.spec.name}")

    def _request_save(self) -> None:
        if self._builder is not None and self._source is not None:
            self._builder.want(self._save, f"the cache file of {self.spec.name}")

    def _request_load(self) -> None:
        if self._builder is not None and self._source is not None:
            self._builder.want(self._load, f"the cache file of {self.spec.name}")

    def _load(self, stop: Stop) -> None:
        """The builder's job: reads the file, and adds the rows that were committed since, if they
        may be in memory before the first search."""
        while not stop() and self.built.matrix.size_bytes <= TAKEN_BYTES_MAX and self._catch_up():
            pass

    def _save(self, stop: Stop) -> None:
        """The builder's job: writes the file."""
        if not stop():
            self.save()

    def _step(self, stop: Stop) -> bool:
        """One step of a build: adds missing rows, or drops dead rows, or extends the graph. False
        when nothing was due."""
        assert self._source is not None
        if self._catch_up():
            return True
        with self._source.newest() as committed:
            if not len(committed.alive):  # no document was ever put, or the index was dropped
                return False
        built = self.built
        rows = built.matrix.rows()
        live = rows.alive(committed.alive)
        dead = rows.count - int(np.count_nonzero(live))
        self._dead = dead
        if _are_many_dead(rows.count, dead):
            return self._drop_dead(built, rows, live, len(committed.alive), stop)
        if self._is_due(built, rows.count, dead):
            return self._extend(built, stop)
        return False

    def _catch_up(self) -> bool:
        """Adds some of the committed rows that are missing; False when none is. The next call takes
        a new view: one that is held keeps pages from reuse."""
        assert self._source is not None
        with self._source.newest() as committed:
            matrix = self.built.matrix
            missing = np.flatnonzero(committed.alive)
            missing = missing[missing > matrix.base_rowid_max]
            missing = missing[matrix.rows().places(missing) < 0]
            for start in range(0, min(len(missing), 8 * self.fetch_rows), _YIELD_ROWS):
                self.add(matrix, missing[start : start + _YIELD_ROWS], committed.fetch)
                time.sleep(YIELD_S)
        return len(missing) > 0

    def _extend(self, built: Built, stop: Stop) -> bool:
        """Replaces the graph by a copy that also holds the rows added since. True: the caller goes
        on with the next step."""
        rows = built.matrix.rows()
        capacity = rows.count + rows.count // 4
        graph = Graph(self.spec, capacity) if built.graph is None else built.graph.copy(capacity)
        covered = built.covered
        while covered < rows.count and not stop():
            end = min(covered + _BATCH_ROWS, rows.count)
            _add(graph, rows, covered, end)
            covered = end
            if end == rows.count < 2 * max(built.covered, GRAPH_ROWS):
                rows = built.matrix.rows()  # rows added meanwhile
        if failpoints.on:
            failpoints.reach("vectors.extended")
        with self._adding:
            if self._built is built and covered > built.covered:
                self._built = Built(built.matrix, graph, covered)
        return True

    def _drop_dead(
        self, built: Built, rows: MatrixView, live: NDArray[np.bool_], next_rowid: int, stop: Stop
    ) -> bool:
        """Replaces matrix and graph by others of the live rows alone, `live` by place; rows added
        meanwhile are kept. False when it was stopped before."""
        places = np.flatnonzero(live)
        matrix = self._empty_matrix(next_rowid - 1)
        graph = Graph(self.spec, len(places) * 5 // 4) if self._wants_graph(len(places)) else None
        for start in range(0, len(places), _BATCH_ROWS):
            if stop():
                return False
            some = places[start : start + _BATCH_ROWS]
            matrix.add_prepared(rows.rowids[some], rows.vectors(some))
            if graph is not None:
                _add(graph, matrix.rows(), start, start + len(some))
        if failpoints.on:
            failpoints.reach("vectors.compacted")
        with self._adding:
            fresh = built.matrix.rows()
            late = np.arange(rows.count, fresh.count)
            late = late[fresh.rowids[late] > matrix.base_rowid_max]
            matrix.add_prepared(fresh.rowids[late], fresh.vectors(late))
            self._built = Built(matrix, graph, graph.count if graph is not None else 0)
            if self._file is not None:
                self._file.forget()
        return True

    def _is_due(self, built: Built, rows: int, dead: int) -> bool:
        if _are_many_dead(rows, dead):
            return True
        if self._wants_graph(rows - dead):
            return rows - built.covered > max(FRESH_ROWS, FRESH_SHARE * rows)
        return False

    def _wants_graph(self, rows: int) -> bool:
        return rows >= GRAPH_ROWS and library() is not None

    def _load_matrix(self) -> Matrix:
        matrix = None if self._file is None else self._file.load_matrix(self._next_rowid)
        return self._empty_matrix() if matrix is None else matrix

    def _empty_matrix(self, base_rowid_max: int = 0) -> Matrix:
        spec = self.spec
        return Matrix(spec.dim, spec.metric, base_rowid_max=base_rowid_max, multi=spec.multi)

    def _next_rowid(self) -> int:
        assert self._source is not None
        with self._source.newest() as committed:
            return len(committed.alive)

    def _load_graph(self) -> None:
        """Takes the graph of the file into use, if its rows are those of the matrix in use."""
        built = self.built
        if self._file is None or built.graph is not None:
            return
        graph = self._file.load_graph(built.matrix.rows())
        if graph is not None:
            with self._adding:
                self._built = Built(built.matrix, graph, graph.count)


def _code_problems(rows: MatrixView) -> Iterator[str]:
    """The first vector whose code is not its own."""
    for start in range(0, rows.codes.count, FETCH_ROWS):
        places = np.arange(start, min(start + FETCH_ROWS, rows.codes.count))
        place = rows.codes.first_wrong(start, rows.vectors(places))
        if place is not None:
            yield f"row {rows.rowids[place]} has another code in cache/"
            return


def _are_many_dead(rows: int, dead: int) -> bool:
    return dead > max(DEAD_ROWS, DEAD_SHARE * rows)


def _add(graph: Graph, rows: MatrixView, start: int, end: int) -> None:
    """Adds the vectors from one place to another to a graph."""
    places = np.arange(start, end)
    graph.add(places, rows.vectors(places), _THREADS)
