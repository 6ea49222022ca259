"""What makes vector search fast: the rows of one index in memory, a graph over the first of them,
and a file that has both for the next open.

    documents -> matrix, appended by the searches that need rows -> graph, built aside -> cache file

Invariants:
- `built` is replaced by one assignment and never changed: a search takes it once.
- The graph has exactly the first `covered` rows of the matrix, dead ones too; both drop the dead
  ones at once, when they are more than a fifth.
- A graph that can be searched is never added to. While one is built there are two of it in memory,
  and while the dead are dropped two of the matrix.
- The file has only rows that were durable before it was written. It is never needed.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from amberdb import _failpoints as failpoints
from amberdb._errors import AmberError
from amberdb._types import Lsn
from amberdb.engine.jobs import YIELD_S, Jobs, Stop
from amberdb.engine.storage.cache_file import Cached, CacheFolder, Label, Unusable
from amberdb.index.vector.distance import Rowids, Vectors, prepared
from amberdb.index.vector.hnsw import Graph, Links, library
from amberdb.index.vector.matrix import Matrix, MatrixView
from amberdb.index.vector.vector import Vector

logger = logging.getLogger("amberdb.engine")

Alive: TypeAlias = NDArray[np.bool_]
Fetch: TypeAlias = Callable[[Rowids], tuple[Vectors, NDArray[np.bool_]]]

FETCH_ROWS: Final = 1024
"""Rows that are fetched at once."""
GRAPH_ROWS: Final = 10_000
"""From so many rows on there is a graph."""
FRESH_ROWS: Final = 2_000
FRESH_SHARE: Final = 0.05
"""A graph is extended when more rows than both are behind it; until then they are scored."""
DEAD_ROWS: Final = 1_000
DEAD_SHARE: Final = 0.2
"""Dead rows are dropped when they are more than both."""
UNSAVED_ROWS: Final = 1_000
UNSAVED_SHARE: Final = 0.05
"""The file is written when more rows, or links of rows, than both are not in it."""
_BATCH_ROWS: Final = 128
_YIELD_ROWS: Final = 64
_PAUSE_S: Final = 1.0
_PAUSE_FAILED_S: Final = 60.0
_THREADS: Final = max(1, (os.cpu_count() or 1) // 2)
"""Of a build: the rest is left to those who search and write."""


@final
@dataclass(frozen=True, slots=True)
class CommittedRows:
    """The newest visible state of an index's rows, without pending effects."""

    alive: Alive
    fetch: Fetch


class CacheSource(Protocol):
    """What a cache needs of its database."""

    def newest(self) -> AbstractContextManager[CommittedRows]: ...

    def sync(self) -> Lsn:
        """Makes what is committed durable, and tells the Lsn. Raises AmberError."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Built:
    """What searches use."""

    matrix: Matrix
    graph: Graph | None
    covered: int
    """How many rows the graph has."""


@final
class VectorCache:
    """Of one Vector index. Without a host it only grows, in memory."""

    def __init__(
        self,
        spec: Vector,
        keyspace: int = 0,
        host: CacheSource | None = None,
        folder: CacheFolder | None = None,
        builder: Jobs | None = None,
    ) -> None:
        self.spec = spec
        self._tree = keyspace
        self._host = host
        self._folder = folder if sys.byteorder == "little" else None
        self._builder = builder
        self._adding = threading.Lock()
        self._built: Built | None = None
        self._cached: Cached | None = None
        """A file whose graph is not loaded yet."""
        self._saved = (0, 0)
        """Rows and covered rows in the file."""
        self._dead = 0
        self._is_building = False
        self._pause_until = 0.0

    # -- for searches ------------------------------------------------------------------------

    @property
    def built(self) -> Built:
        built = self._built
        if built is None:
            with self._adding:
                built = self._built
                if built is None:
                    built = self._built = Built(self._load_matrix(), None, 0)
        return built

    def add(self, matrix: Matrix, rowids: Rowids, fetch: Fetch) -> None:
        """Fetches and adds those that are not in it by now."""
        with self._adding:
            missing = rowids[matrix.rows().places(rowids) < 0]
            for start in range(0, len(missing), FETCH_ROWS):
                some = missing[start : start + FETCH_ROWS]
                vectors, has = fetch(some)
                matrix.add(some[has], vectors[has])

    def note_rows(self, built: Built, rows: int, dead: int) -> None:
        """What a search saw of the matrix: is there something to build?"""
        self._dead = dead
        if self._cached is not None or self._is_due(built, rows, dead):
            self._want()

    def stats(self) -> dict[str, Any]:
        """Rows in memory, in the graph and dead; bytes; and whether something is being built."""
        built = self.built
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
        """What differs from the documents of a view, whose `alive` this is; a graph is compared
        with the matrix. No job of the builder runs meanwhile."""
        self._load_graph()
        built = self.built
        rows = built.matrix.rows()
        places = np.flatnonzero(rows.alive(alive))
        for start in range(0, len(places), FETCH_ROWS):
            some = places[start : start + FETCH_ROWS]
            vectors, has = fetch(rows.rowids[some])
            same = (rows.vectors(some) == prepared(vectors, self.spec.metric)).all(axis=1) & has
            if not same.all():
                yield f"row {rows.rowids[some][~same][0]} has another vector in cache/"
        if built.graph is not None:
            problem = built.graph.problem(rows, built.covered)
            if problem is not None:
                yield f"the graph in cache/ has wrong {problem}"

    # -- building ----------------------------------------------------------------------------

    def build(self, stop: Stop) -> None:
        """The job of the builder: everything that is due. What is unfinished when it is to stop is
        kept where it can be used. Raises AmberError."""
        self._is_building = True
        pause_s = _PAUSE_FAILED_S
        try:
            self._load_graph()
            while not stop() and self._step(stop):
                pass
            if not stop():
                self.save()
            pause_s = _PAUSE_S  # what a view sees of dead rows may be more than was committed
        finally:
            self._is_building = False
            self._pause_until = time.monotonic() + pause_s

    def save(self) -> None:
        """Writes the file, if enough has changed; also called when the database is closed."""
        built = self._built
        if built is None or self._folder is None or self._host is None:
            return
        if self._folder.is_read_only:
            return
        rows = built.matrix.rows()
        if not self._is_unsaved(rows.count, built.covered):
            return
        try:
            lsn = self._host.sync()  # after rows(): all of them were visible, so committed before
            if failpoints.on:
                failpoints.reach("vectors.saving")
            self._write(self._folder, built, rows, lsn)
            if failpoints.on:
                failpoints.reach("vectors.saved")
        except (AmberError, OSError) as error:
            logger.warning("the cache of %s was not written: %s", self.spec.name, error)

    def forget_dead(self) -> None:
        """After the file was removed: matrix and graph go too if they have a dead row, and are made
        of the documents at the next search. No job of the builder runs meanwhile."""
        with self._adding:
            self._cached = None
            self._saved = (0, 0)
            built = self._built
            if built is not None and self._host is not None:
                with self._host.newest() as committed:
                    if not built.matrix.rows().alive(committed.alive).all():
                        self._built = None

    def _want(self) -> None:
        if self._builder is None or self._host is None or self._is_building:
            return
        if time.monotonic() >= self._pause_until:
            self._builder.want(self.build)

    def _step(self, stop: Stop) -> bool:
        """Brings the rows up to date, and then does one thing; False when nothing was due."""
        assert self._host is not None
        with self._host.newest() as committed:
            built = self.built
            rows = built.matrix.rows()
            missing = np.flatnonzero(committed.alive)
            missing = missing[missing > built.matrix.base_rowid_max]
            missing = missing[rows.places(missing) < 0]
            if len(missing):
                for start in range(0, min(len(missing), 8 * FETCH_ROWS), _YIELD_ROWS):
                    some = missing[start : start + _YIELD_ROWS]
                    self.add(built.matrix, some, committed.fetch)
                    time.sleep(YIELD_S)
                return True  # with another view: this one has been held long enough
        live = rows.alive(committed.alive)
        dead = rows.count - int(np.count_nonzero(live))
        self._dead = dead
        if _is_dead(rows.count, dead):
            return self._drop_dead(built, rows, live, len(committed.alive), stop)
        if self._is_due(built, rows.count, dead):
            return self._extend(built, stop)
        return False

    def _extend(self, built: Built, stop: Stop) -> bool:
        """A copy of the graph, with the rows behind it, in place of it."""
        rows = built.matrix.rows()
        capacity = rows.count + rows.count // 4
        graph = Graph(self.spec, capacity) if built.graph is None else built.graph.copy(capacity)
        covered = built.covered
        while covered < rows.count and not stop():
            end = min(covered + _BATCH_ROWS, rows.count)
            _add(graph, rows, covered, end)
            covered = end
            if end == rows.count < 2 * max(built.covered, GRAPH_ROWS):
                rows = built.matrix.rows()  # goes on to what came meanwhile
        if failpoints.on:
            failpoints.reach("vectors.extended")
        with self._adding:
            if self._built is built and covered > built.covered:
                self._built = Built(built.matrix, graph, covered)
        return True

    def _drop_dead(
        self, built: Built, rows: MatrixView, live: NDArray[np.bool_], next_rowid: int, stop: Stop
    ) -> bool:
        """A matrix and a graph of the rows that are alive, in place of those."""
        places = np.flatnonzero(live)
        matrix = Matrix(self.spec.dim, self.spec.metric, base_rowid_max=next_rowid - 1)
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
            self._saved = (0, 0)
        return True

    def _is_due(self, built: Built, rows: int, dead: int) -> bool:
        if _is_dead(rows, dead):
            return True
        if self._wants_graph(rows - dead):
            return rows - built.covered > max(FRESH_ROWS, FRESH_SHARE * rows)
        return False

    def _wants_graph(self, rows: int) -> bool:
        return rows >= GRAPH_ROWS and library() is not None

    # -- the file ----------------------------------------------------------------------------

    @property
    def _configuration(self) -> bytes:
        """Of all that the bytes depend on."""
        spec = self.spec
        parts = [spec.field, spec.dim, spec.metric, spec.m, spec.ef_construction]
        return blake2b(json.dumps(parts).encode(), digest_size=16).digest()

    def _is_unsaved(self, rows: int, covered: int) -> bool:
        saved_rows, saved_covered = self._saved
        behind = max(rows - saved_rows, covered - saved_covered)
        return behind > max(UNSAVED_ROWS, UNSAVED_SHARE * rows)

    def _write(self, folder: CacheFolder, built: Built, rows: MatrixView, lsn: Lsn) -> None:
        sections: list[list[Any]] = [[rows.rowids], list(rows.pieces())]
        if built.graph is not None:
            links = built.graph.links()
            sections += [[links.rowids], [links.levels], [links.base], [links.upper]]
        label = Label(
            keyspace=self._tree,
            configuration=self._configuration,
            lsn=lsn,
            floor=built.matrix.base_rowid_max,
        )
        folder.write(label, [[memoryview(piece) for piece in pieces] for pieces in sections])
        self._saved = (rows.count, built.covered)

    def _load_matrix(self) -> Matrix:
        spec = self.spec
        cached = None
        if self._folder is not None:
            cached = self._folder.read(self._tree, self._configuration)
        if cached is not None:
            try:
                base = _base(cached, spec.dim, self._next_rowid())
            except (Unusable, ValueError) as error:
                self._drop_file(error)
            else:
                self._cached = cached
                self._saved = (len(base[0]), 0)
                return Matrix(spec.dim, spec.metric, base, cached.label.floor)
        return Matrix(spec.dim, spec.metric)

    def _next_rowid(self) -> int:
        assert self._host is not None
        with self._host.newest() as committed:
            return len(committed.alive)

    def _load_graph(self) -> None:
        """The graph of the file, if its matrix is still the one in use."""
        built = self.built
        cached, self._cached = self._cached, None
        if cached is None or built.graph is not None or library() is None:
            return
        try:
            links = _links(cached, self.spec.m)
            if links is None:
                return
            rows = built.matrix.rows()
            places = rows.places(links.rowids)
            if not np.array_equal(np.sort(places), np.arange(len(places))):
                raise Unusable("its graph is not one of its rows")
        except (Unusable, ValueError) as error:
            self._drop_file(error)
            return
        graph = Graph.of_links(self.spec, links, rows.vectors(places))
        with self._adding:
            self._built = Built(built.matrix, graph, len(places))
        self._saved = (self._saved[0], len(places))

    def _drop_file(self, why: object) -> None:
        assert self._folder is not None
        self._folder.drop(self._tree, why)
        self._saved = (0, 0)


def _is_dead(rows: int, dead: int) -> bool:
    return dead > max(DEAD_ROWS, DEAD_SHARE * rows)


def _add(graph: Graph, rows: MatrixView, start: int, end: int) -> None:
    places = np.arange(start, end)
    graph.add(rows.rowids[start:end], rows.vectors(places), _THREADS)


def _base(cached: Cached, dim: int, next_rowid: int) -> tuple[Rowids, Vectors]:
    """The rows of a file, each once and of rowids that were given. Raises Unusable, ValueError."""
    rowids = np.frombuffer(cached.section(0), np.int64)
    vectors = np.frombuffer(cached.section(1), np.float32).reshape(-1, dim)
    if len(rowids) != len(vectors):
        raise Unusable(f"it has {len(rowids)} rowids and {len(vectors)} vectors")
    if rowids.min(initial=0) < 0 or rowids.max(initial=0) >= next_rowid:
        raise Unusable("it has rows that never were")
    if np.count_nonzero(np.bincount(rowids, minlength=1)) != len(rowids):
        raise Unusable("it has a row twice")
    if cached.label.floor >= next_rowid:
        raise Unusable("it begins behind the last row")
    return rowids, vectors


def _links(cached: Cached, m: int) -> Links | None:
    """None where there was no graph. Raises Unusable, ValueError."""
    rowids = np.frombuffer(cached.section(2), np.int64)
    if not len(rowids):
        return None
    links = Links(
        rowids,
        np.frombuffer(cached.section(3), np.int32),
        np.frombuffer(cached.section(4), np.uint32).reshape(-1, 2 * m + 1),
        np.frombuffer(cached.section(5), np.uint32).reshape(-1, m + 1),
    )
    problem = links.problem(m)
    if problem is not None:
        raise Unusable(f"its graph has wrong {problem}")
    return links
