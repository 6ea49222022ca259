"""Matrix: the vectors of one index in memory, by rowid; exact search runs over it.

Vectors are stored in the order they were added, in pieces: first those of a base, which may be a
mapped file, then chunks, each as large as all pieces before it, within limits. So there are few
pieces, whatever the size. A vector's place is its number in that order. A row has one vector, or
with `multi` any number of them.

A large matrix has codes (codes.py) of its first vectors, all but at most CODED_STEP - 1.

Invariants:
- Append-only. The arrays of a MatrixView never move and never change, so a view is read without a
  lock while rows are added; only the thread that adds needs a lock.
- A row is added once, with all of its vectors. They lie side by side, and a view has all or none.
- A row up to `base_rowid_max` that is not in the matrix was dead when the matrix was begun; a view
  that still sees the row scores it without the matrix.
"""

from collections.abc import Iterable
from typing import Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.codes import Codes, CodesView
from amberdb.index.vector.coercion import Metric
from amberdb.index.vector.distance import (
    Places,
    Rowids,
    Scores,
    Vectors,
    block_rows,
    prepared,
    row_starts,
    scores,
)

CHUNK_BYTES_MIN: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 64 << 20
"""Pages of a chunk that no row has been written to take no memory."""
CODED_ROWS: Final = 2_048
CODED_DIM: Final = 128
"""A matrix with fewer vectors, or of fewer dimensions, has no codes: its vectors are scored as
fast."""
CODED_STEP: Final = 256
"""Vectors coded at once: one after the other would cost ten times as much."""
_UNKNOWN: Final = -1

_N = TypeVar("_N", np.int32, np.int64)


@final
class MatrixView:
    """The first `count` vectors of a matrix. Immutable."""

    __slots__ = ("_counts", "_ends", "_metric", "_pieces", "_places", "codes", "count", "rowids")

    def __init__(
        self,
        rowids: Rowids,
        places: NDArray[np.int32],
        counts: NDArray[np.int32] | None,
        pieces: tuple[Vectors, ...],
        metric: Metric,
        codes: CodesView,
    ) -> None:
        self.rowids = rowids
        """int64[count], by place: the row of each vector."""
        self.count = len(rowids)
        self._places = places
        self._counts = counts
        self._pieces = pieces
        self._ends: Places = np.cumsum([len(piece) for piece in pieces])
        self._metric: Metric = metric
        self.codes = codes
        """Of the first vectors."""

    def places(self, rowids: Rowids) -> Places:
        """intp[n]: the first place of each row, -1 for a row that is not in the view."""
        known = np.full(len(rowids), _UNKNOWN, np.intp)
        within = rowids < len(self._places)
        known[within] = self._places[rowids[within]]
        known[known >= self.count] = _UNKNOWN  # added later
        return known

    def missing(self, alive: NDArray[np.bool_]) -> Rowids:
        """int64[]: the rows of a mask by rowid that are not in the view, ascending."""
        is_missing = alive.copy()
        places = self._places[: len(alive)]
        is_missing[: len(places)] &= (places < 0) | (places >= self.count)
        return np.flatnonzero(is_missing)

    def expanded(self, first: Places) -> Places:
        """intp[]: the places of all vectors of some rows, row by row, from the first place of
        each."""
        if self._counts is None:
            return first
        counts = self._counts[self.rowids[first]]
        ends = np.cumsum(counts)
        return np.repeat(first - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)

    def row_start(self, place: int) -> int:
        """The first place of the row that has this place, or the end."""
        return place if place >= self.count else int(self._places[self.rowids[place]])

    def alive(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[count] by place, from bool[] by rowid."""
        by_place = np.zeros(self.count, np.bool_)
        within = self.rowids < len(alive)
        by_place[within] = alive[self.rowids[within]]
        return by_place

    def scores(self, query: Vectors, start: int = 0) -> Scores:
        """float32[count - start]: the scores of all vectors from place `start` on."""
        found = np.empty(self.count - start, np.float32)
        for first, piece in self._from(start):
            into = found[first - start : first - start + len(piece)]
            scores(piece, query, self._metric, into)
        return found

    def scores_at(self, places: Places, query: Vectors) -> Scores:
        """float32[n]: the scores of the vectors at these places; fastest when the places ascend."""
        found = np.empty(len(places), np.float32)
        step = block_rows(len(query))
        for start in range(0, len(places), step):
            some = places[start : start + step]
            scores(self.vectors(some), query, self._metric, found[start : start + step])
        return found

    def vectors(self, places: Places) -> Vectors:
        """float32[n, dim]: a copy of the prepared vectors at these places."""
        found = np.empty((len(places), self._pieces[0].shape[1]), np.float32)
        order = None if (places[1:] >= places[:-1]).all() else np.argsort(places)
        if order is not None:
            places = places[order]
        first = low = 0
        for piece, high in zip(self._pieces, places.searchsorted(self._ends).tolist(), strict=True):
            if high > low:
                inside = places[low:high] - first
                if order is None:
                    # The default mode, "raise", would copy through a buffer.
                    np.take(piece, inside, axis=0, out=found[low:high], mode="clip")
                else:
                    found[order[low:high]] = piece[inside]
            first += len(piece)
            low = high
        return found

    def pieces(self) -> list[Vectors]:
        """All vectors in order, without copying them."""
        return [piece for _, piece in self._from(0)]

    def _from(self, start: int) -> list[tuple[int, Vectors]]:
        return _from(self._pieces, start, self.count)


@final
class Matrix:
    """Grows by add(); rows() is a view of the rows so far."""

    def __init__(
        self,
        dim: int,
        metric: Metric,
        base: tuple[Rowids, Vectors] | None = None,
        base_rowid_max: int = 0,
        *,
        multi: bool = False,
        codes: Codes | None = None,
    ) -> None:
        """`base`: prepared vectors and their rowids. `base_rowid_max`: the highest rowid that was
        assigned when the base was made. `multi`: a row may have several vectors. `codes`: of the
        first vectors of the base."""
        self.base_rowid_max = base_rowid_max
        self._metric: Metric = metric
        rowids, vectors = base or (np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._pieces = [vectors]
        self._room = 0
        """The vectors that still fit into the last piece."""
        self._rowids = rowids
        self._count = len(rowids)
        self._places: NDArray[np.int32] = np.full(
            int(rowids.max(initial=0)) + 1, _UNKNOWN, np.int32
        )
        """By rowid, of the first vector."""
        self._counts = np.zeros(len(self._places), np.int32) if multi else None
        """By rowid, of the vectors; None where each row has one."""
        self._note_places(rowids, 0)
        self._codes = codes or Codes(dim, metric)
        self._code()
        self._rows = self._made()

    def rows(self) -> MatrixView:
        return self._rows

    def add(self, rowids: Rowids, vectors: Vectors) -> None:
        """Adds rows that are not in the matrix: vectors float32[n, dim] as documents hold them, and
        the row of each; those of one row side by side. One thread at a time."""
        self.add_prepared(rowids, prepared(vectors, self._metric))

    def add_prepared(self, rowids: Rowids, vectors: Vectors) -> None:
        """add() for vectors that are prepared already."""
        if not len(rowids):
            return
        count = self._count
        self._rowids = _grown(self._rowids, count + len(rowids))
        self._rowids[count : count + len(rowids)] = rowids
        self._note_places(rowids, count)
        done = 0
        while done < len(rowids):
            if not self._room:
                self._room = _chunk_rows(vectors.shape[1], count + done)
                self._pieces.append(np.empty((self._room, vectors.shape[1]), np.float32))
            some = vectors[done : done + self._room]
            last = self._pieces[-1]
            start = len(last) - self._room
            last[start : start + len(some)] = some
            self._room -= len(some)
            done += len(some)
        self._count = count + len(rowids)
        self._code()
        self._rows = self._made()

    @property
    def size_bytes(self) -> int:
        """The memory of all vectors, also of the base, which may be a mapped file."""
        vectors: int = 4 * self._count * self._pieces[0].shape[1]
        counts = 0 if self._counts is None else self._counts.nbytes
        arrays = self._rowids.nbytes + self._places.nbytes + counts
        return vectors + arrays + self._codes.size_bytes

    def _code(self) -> None:
        """Codes the vectors that have none, if they are enough."""
        coded = self._codes.view().count
        if self._pieces[0].shape[1] < CODED_DIM or self._count < max(
            CODED_ROWS, coded + CODED_STEP
        ):
            return
        for _, piece in _from(self._pieces, coded, self._count):
            self._codes.add(piece)

    def _note_places(self, rowids: Rowids, start: int) -> None:
        """Notes the rows of the vectors from place `start` on. Only the first of them may be in the
        matrix already, with the vectors before it."""
        self._places = _grown(self._places, int(rowids.max(initial=0)) + 1, _UNKNOWN)
        if self._counts is None:
            self._places[rowids] = np.arange(start, start + len(rowids), dtype=np.int32)
            return
        self._counts = _grown(self._counts, len(self._places))
        starts = row_starts(rowids)
        rows = rowids[starts]
        is_new = self._places[rows] == _UNKNOWN
        self._places[rows[is_new]] = start + starts[is_new]
        self._counts[rows] += np.diff(starts, append=len(rowids))

    def _made(self) -> MatrixView:
        rowids = self._rowids[: self._count]
        return MatrixView(
            rowids,
            self._places,
            self._counts,
            tuple(self._pieces),
            self._metric,
            self._codes.view(),
        )


def _from(pieces: Iterable[Vectors], start: int, end: int) -> list[tuple[int, Vectors]]:
    """The vectors from one place to another, in pieces, each with the place that it begins at."""
    found: list[tuple[int, Vectors]] = []
    first = 0
    for piece in pieces:
        last = min(first + len(piece), end)
        if last > start:
            skip = max(start - first, 0)
            found.append((first + skip, piece[skip : last - first]))
        first += len(piece)
    return found


def _chunk_rows(dim: int, count: int) -> int:
    """The number of vectors in the chunk after `count` vectors."""
    size = min(max(4 * dim * count, CHUNK_BYTES_MIN), CHUNK_BYTES_MAX)
    return max(size // (4 * dim), 64)


def _grown(array: NDArray[_N], size: int, fill: int = 0) -> NDArray[_N]:
    """The array itself when `size` fits, else a longer copy: readers keep the old array."""
    if size <= len(array):
        return array
    longer = np.full(max(size, 2 * len(array), 1024), fill, array.dtype)
    longer[: len(array)] = array
    return longer
