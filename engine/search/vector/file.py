"""The cache file of one Vector index: its rows and the links of its graph, for the next open.

    section 0   rowids, int64[n]; equal ones, of a row with several vectors, side by side
    section 1   prepared vectors (distance.py), float32[n, dim]
    section 2   places, int64[k], by node of the graph; empty without one, as the next three
    section 3   the level of each node, int32[k]
    section 4   links of the base level, uint32[k, 2 m + 1]
    section 5   links of the levels above, uint32[., m + 1]
    section 6   codes of the first vectors (index/vector/codes.py): block by block the words,
                uint64[words, rows], scales and lengths; empty when there are few, or in files of
                earlier versions

Invariants:
- The file is never needed: an unusable one is dropped, and its rows are read from the documents.
- Only rows that were durable before the file was written are in it; the caller gives their Lsn.
- A file with other parameters than the declared index has (`configuration`) is not read.
"""

import json
import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, final

import numpy as np

from amberdb._types import Lsn
from amberdb.engine.storage.cache_file import Cached, CacheFolder, Label, Unusable
from amberdb.index.vector.codes import Codes
from amberdb.index.vector.distance import Rowids, Vectors, row_starts
from amberdb.index.vector.hnsw import Graph, Links, library
from amberdb.index.vector.matrix import Matrix, MatrixView
from amberdb.index.vector.vector import Vector

UNSAVED_ROWS: Final = 1_000
UNSAVED_SHARE: Final = 0.05
"""The file is written when more rows, or links of rows, than both are not in it."""
GROWN_ROWS: Final = 4_096
GROWN_SHARE: Final = 0.5
"""While rows are added, the file is written when more than both are not in it, the latter of those
that are: so each row is written three times at most, and a third is read back after a crash."""
_IS_LITTLE_ENDIAN: Final = sys.byteorder == "little"
"""Arrays are written as they are in memory, and only little-endian files are defined."""


@final
class VectorFile:
    """Reads and writes the cache file of one Vector index."""

    def __init__(self, spec: Vector, keyspace: int, folder: CacheFolder) -> None:
        self._spec = spec
        self._keyspace = keyspace
        self._folder = folder
        self._unread: Cached | None = None
        """The open file, until its graph is read or given up."""
        self._saved = (0, 0)
        """Rows, and rows in the graph, that the file holds."""
        self._is_retired = False

    @property
    def is_writable(self) -> bool:
        return _IS_LITTLE_ENDIAN and not self._folder.is_read_only and not self._is_retired

    @property
    def has_unread_graph(self) -> bool:
        """Whether load_matrix() opened a file and load_graph() was not called since."""
        return self._unread is not None

    @property
    def configuration(self) -> bytes:
        """A digest of all parameters that the content depends on."""
        spec = self._spec
        parts = [spec.field, spec.dim, spec.metric, spec.m, spec.ef_construction, spec.multi]
        return blake2b(json.dumps(parts).encode(), digest_size=16).digest()

    def load_matrix(self, next_rowid: Callable[[], int]) -> Matrix | None:
        """The rows of the file; None without a usable one. `next_rowid` reads the first rowid that
        was not given yet, which no row of the file may reach."""
        if not _IS_LITTLE_ENDIAN:
            return None
        cached = self._folder.read(self._keyspace, self.configuration)
        if cached is None:
            return None
        spec = self._spec
        try:
            base = _base(cached, spec, next_rowid())
            codes = Codes.of(cached.section(6), spec.dim, spec.metric)
            if codes.view().count > len(base[0]):
                raise Unusable("it has more codes than vectors")
        except (Unusable, ValueError) as error:
            self._drop(error)
            return None
        self._unread = cached
        self._saved = (len(base[0]), 0)
        return Matrix(
            spec.dim, spec.metric, base, cached.label.floor, multi=spec.multi, codes=codes
        )

    def load_graph(self, rows: MatrixView) -> Graph | None:
        """The graph of the file that load_matrix() opened; None without a usable one. `rows` are
        those of the matrix that it made, which may have grown since."""
        cached, self._unread = self._unread, None
        if cached is None or library() is None:
            return None
        try:
            links = _links(cached, self._spec.m)
            if links is None:
                return None
            places = links.places
            is_of_file = len(places) <= self._saved[0]
            if not (is_of_file and np.array_equal(np.sort(places), np.arange(len(places)))):
                raise Unusable("its graph holds other rows than the file")
        except (Unusable, ValueError) as error:
            self._drop(error)
            return None
        graph = Graph.of_links(self._spec, links, rows.vectors(places))
        self._saved = (self._saved[0], len(places))
        return graph

    @property
    def is_there(self) -> bool:
        """Whether there is a file that was neither read nor written yet."""
        return self._saved == (0, 0) and self._folder.has(self._keyspace)

    def is_behind(self, rows: int) -> bool:
        """Whether so many rows were added to those of the file that it should be written, though
        more are to come."""
        saved_rows, _ = self._saved
        return self.is_writable and rows - saved_rows > max(GROWN_ROWS, GROWN_SHARE * saved_rows)

    def is_outdated(self, rows: int, covered: int) -> bool:
        """Whether enough of so many rows, or rows in the graph, are missing in the file."""
        saved_rows, saved_covered = self._saved
        unsaved = max(rows - saved_rows, covered - saved_covered)
        return unsaved > max(UNSAVED_ROWS, UNSAVED_SHARE * rows)

    def write(
        self,
        rows: MatrixView,
        base_rowid_max: int,
        graph: Graph | None,
        covered: int,
        lsn: Lsn,
    ) -> None:
        """Replaces the file. All rows were committed at or before `lsn`, which is durable. Raises
        OSError."""
        sections: list[list[Any]] = [[rows.rowids], list(rows.pieces()), [], [], [], []]
        if graph is not None:
            links = graph.links()
            sections[2:] = [[links.places], [links.levels], [links.base], [links.upper]]
        sections.append(list(rows.codes.pieces()))
        label = Label(
            keyspace=self._keyspace, configuration=self.configuration, lsn=lsn, floor=base_rowid_max
        )
        self._folder.write(label, [[memoryview(piece) for piece in pieces] for pieces in sections])
        self._saved = (rows.count, covered)

    def forget(self) -> None:
        """Counts nothing as saved: the file was removed, or the rows in memory were replaced."""
        self._unread = None
        self._saved = (0, 0)

    def retire(self) -> None:
        """The index was dropped, and its file is removed: none is written from now on."""
        self._is_retired = True

    def _drop(self, why: object) -> None:
        self._folder.drop(self._keyspace, why)
        self._saved = (0, 0)


def _base(cached: Cached, spec: Vector, next_rowid: int) -> tuple[Rowids, Vectors]:
    """The rows of a file, distinct and with rowids that were given. Raises Unusable, ValueError."""
    rowids = np.frombuffer(cached.section(0), np.int64)
    vectors = np.frombuffer(cached.section(1), np.float32).reshape(-1, spec.dim)
    if len(rowids) != len(vectors):
        raise Unusable(f"it has {len(rowids)} rowids and {len(vectors)} vectors")
    if rowids.min(initial=0) < 0 or rowids.max(initial=0) >= next_rowid:
        raise Unusable("it has rowids that were never given")
    rows = len(row_starts(rowids)) if spec.multi else len(rowids)
    if np.count_nonzero(np.bincount(rowids, minlength=1)) != rows:
        raise Unusable("it has a row twice")
    if cached.label.floor >= next_rowid:
        raise Unusable("its floor is past the last row")
    return rowids, vectors


def _links(cached: Cached, m: int) -> Links | None:
    """The links of the graph in a file; None without a graph. Raises Unusable, ValueError."""
    places = np.frombuffer(cached.section(2), np.int64)
    if not len(places):
        return None
    links = Links(
        places,
        np.frombuffer(cached.section(3), np.int32),
        np.frombuffer(cached.section(4), np.uint32).reshape(-1, 2 * m + 1),
        np.frombuffer(cached.section(5), np.uint32).reshape(-1, m + 1),
    )
    problem = links.problem(m)
    if problem is not None:
        raise Unusable(f"its graph has wrong {problem}")
    return links
