"""Matrix: the vectors of one index in memory, by rowid; exact search runs over it.

Rows lie in the order they were added, in pieces: first those of a base, which may be a mapped
file, then chunks, each as large as all before it within limits: few pieces, whatever the size. A
row's place is its number in that order.

Invariants:
- Append-only. What a MatrixView was made of never moves and never changes, so it is read without a lock
  while rows are added; only the one who adds needs one.
- A row is added once. Rows up to `base_rowid_max` that are not in it were dead when it was begun; whoever
  still sees one scores it apart.
"""

from typing import Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.vector.distance import (
    Places,
    Rowids,
    Scores,
    Vectors,
    block_rows,
    prepared,
    scores,
)
from amberdb.index.vector.vector import Metric

CHUNK_BYTES_MIN: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 64 << 20
"""What no row has touched yet of a chunk is no memory."""
_UNKNOWN: Final = -1

_N = TypeVar("_N", np.int32, np.int64)


@final
class MatrixView:
    """The first `count` rows of a matrix, as they are for good."""

    __slots__ = ("_ends", "_metric", "_pieces", "_places", "count", "rowids")

    def __init__(
        self,
        rowids: Rowids,
        places: NDArray[np.int32],
        pieces: tuple[Vectors, ...],
        metric: Metric,
    ) -> None:
        self.rowids = rowids
        """int64[count], by place."""
        self.count = len(rowids)
        self._places = places
        self._pieces = pieces
        self._ends: Places = np.cumsum([len(piece) for piece in pieces])
        self._metric: Metric = metric

    def places(self, rowids: Rowids) -> Places:
        """intp[n]: where each row is, -1 for those that are not here."""
        known = np.full(len(rowids), _UNKNOWN, np.intp)
        within = rowids < len(self._places)
        known[within] = self._places[rowids[within]]
        known[known >= self.count] = _UNKNOWN  # added later
        return known

    def alive(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool[count], by place, of a bool[] by rowid."""
        found = np.zeros(self.count, np.bool_)
        within = self.rowids < len(alive)
        found[within] = alive[self.rowids[within]]
        return found

    def scores(self, query: Vectors, start: int = 0) -> Scores:
        """float32[count - start]: of all rows from a place on, by place."""
        found = np.empty(self.count - start, np.float32)
        for first, piece in self._from(start):
            into = found[first - start : first - start + len(piece)]
            scores(piece, query, self._metric, into)
        return found

    def scores_at(self, places: Places, query: Vectors) -> Scores:
        """float32[n]: of some rows, fastest when the places ascend."""
        found = np.empty(len(places), np.float32)
        step = block_rows(len(query))
        for start in range(0, len(places), step):
            some = places[start : start + step]
            scores(self.vectors(some), query, self._metric, found[start : start + step])
        return found

    def vectors(self, places: Places) -> Vectors:
        """float32[n, dim]: a copy of some rows, as prepared."""
        found = np.empty((len(places), self._pieces[0].shape[1]), np.float32)
        order = None if (places[1:] >= places[:-1]).all() else np.argsort(places)
        if order is not None:
            places = places[order]
        first = low = 0
        for piece, high in zip(self._pieces, places.searchsorted(self._ends).tolist(), strict=True):
            if high > low:
                inside = places[low:high] - first
                if order is None:
                    # "raise", the default, would go through a buffer.
                    np.take(piece, inside, axis=0, out=found[low:high], mode="clip")
                else:
                    found[order[low:high]] = piece[inside]
            first += len(piece)
            low = high
        return found

    def pieces(self) -> list[Vectors]:
        """All rows in order, not copied."""
        return [piece for _, piece in self._from(0)]

    def _from(self, start: int) -> list[tuple[int, Vectors]]:
        """The rows from a place on, in pieces, and where each begins."""
        found: list[tuple[int, Vectors]] = []
        first = 0
        for piece in self._pieces:
            end = min(first + len(piece), self.count)
            if end > start:
                skip = max(start - first, 0)
                found.append((first + skip, piece[skip : end - first]))
            first += len(piece)
        return found


@final
class Matrix:
    """Grows by add(); rows() is what there is."""

    def __init__(
        self,
        dim: int,
        metric: Metric,
        base: tuple[Rowids, Vectors] | None = None,
        base_rowid_max: int = 0,
    ) -> None:
        """`base`: rowids, and their vectors as prepared() made them."""
        self.base_rowid_max = base_rowid_max
        self._metric: Metric = metric
        rowids, vectors = base or (np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._pieces = [vectors]
        self._room = 0
        """Rows that the last piece still takes."""
        self._rowids = rowids
        self._count = len(rowids)
        self._places: NDArray[np.int32] = np.full(
            int(rowids.max(initial=0)) + 1, _UNKNOWN, np.int32
        )
        self._places[rowids] = np.arange(len(rowids), dtype=np.int32)
        self._rows = self._made()

    def rows(self) -> MatrixView:
        return self._rows

    def add(self, rowids: Rowids, vectors: Vectors) -> None:
        """Rows that are not in it, float32[n, dim] as they are in documents. One thread at a
        time."""
        self.add_prepared(rowids, prepared(vectors, self._metric))

    def add_prepared(self, rowids: Rowids, vectors: Vectors) -> None:
        """The same, of vectors from another matrix."""
        if not len(rowids):
            return
        count = self._count
        self._rowids = _grown(self._rowids, count + len(rowids))
        self._rowids[count : count + len(rowids)] = rowids
        self._places = _grown(self._places, int(rowids.max()) + 1, _UNKNOWN)
        self._places[rowids] = np.arange(count, count + len(rowids), dtype=np.int32)
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
        self._rows = self._made()

    @property
    def size_bytes(self) -> int:
        """Of memory that rows have, those of the base included, which may be a mapped file."""
        rows: int = 4 * self._count * self._pieces[0].shape[1]
        return rows + self._rowids.nbytes + self._places.nbytes

    def _made(self) -> MatrixView:
        rowids = self._rowids[: self._count]
        return MatrixView(rowids, self._places, tuple(self._pieces), self._metric)


def _chunk_rows(dim: int, count: int) -> int:
    """Of the chunk that follows `count` rows."""
    size = min(max(4 * dim * count, CHUNK_BYTES_MIN), CHUNK_BYTES_MAX)
    return max(size // (4 * dim), 64)


def _grown(array: NDArray[_N], size: int, fill: int = 0) -> NDArray[_N]:
    """The array itself where there is room, else a longer copy: readers keep theirs."""
    if size <= len(array):
        return array
    longer = np.full(max(size, 2 * len(array), 1024), fill, array.dtype)
    longer[: len(array)] = array
    return longer
