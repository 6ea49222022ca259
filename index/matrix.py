"""Matrix: the vectors of one index in memory, by rowid; exact search runs over it.

Rows lie in the order they were added: first those of a base, which may be a mapped file, then
chunks of one size. A row's place is its number in that order.

Invariants:
- Append-only. What a Rows was made of never moves and never changes, so it is read without a lock
  while rows are added; only the one who adds needs one.
- A row is added once. Rows up to `floor` that are not in it were dead when it was begun; whoever
  still sees one scores it apart.
"""

from typing import Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from amberdb.index.distance import Places, Rowids, Scores, Vectors, block_rows, prepared, scores
from amberdb.index.vector import Metric

CHUNK_BYTES: Final = 4 << 20
_UNKNOWN: Final = -1

_N = TypeVar("_N", np.int32, np.int64)


@final
class Rows:
    """The first `count` rows of a matrix, as they are for good."""

    __slots__ = ("_base", "_chunks", "_metric", "_places", "_shift", "count", "rowids")

    def __init__(
        self,
        rowids: Rowids,
        places: NDArray[np.int32],
        base: Vectors,
        chunks: tuple[Vectors, ...],
        metric: Metric,
    ) -> None:
        self.rowids = rowids
        """int64[count], by place."""
        self.count = len(rowids)
        self._places = places
        self._base = base
        self._chunks = chunks
        self._metric: Metric = metric
        self._shift = _chunk_shift(base.shape[1])

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
        for first, piece in self._pieces(start):
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
        found = np.empty((len(places), self._base.shape[1]), np.float32)
        size = len(self._base)
        in_base = places < size
        if in_base.all():
            # "raise", the default, would go through a buffer.
            np.take(self._base, places, axis=0, out=found, mode="clip")
            return found
        found[in_base] = self._base[places[in_base]]
        numbers = np.where(in_base, -1, (places - size) >> self._shift)
        for number in np.unique(numbers[~in_base]).tolist():
            here = numbers == number
            inside = (places[here] - size) & ((1 << self._shift) - 1)
            found[here] = self._chunks[number][inside]
        return found

    def pieces(self) -> list[Vectors]:
        """All rows in order, not copied."""
        return [piece for _, piece in self._pieces(0)]

    def _pieces(self, start: int) -> list[tuple[int, Vectors]]:
        found: list[tuple[int, Vectors]] = []
        first = 0
        for piece in (self._base, *self._chunks):
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
        floor: int = 0,
    ) -> None:
        """`base`: rowids, and their vectors as prepared() made them."""
        self.floor = floor
        self._metric: Metric = metric
        self._chunks: list[Vectors] = []
        self._shift = _chunk_shift(dim)
        rowids, vectors = base or (np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._base = vectors
        self._rowids = rowids
        self._count = len(rowids)
        self._places: NDArray[np.int32] = np.full(
            int(rowids.max(initial=0)) + 1, _UNKNOWN, np.int32
        )
        self._places[rowids] = np.arange(len(rowids), dtype=np.int32)
        self._rows = self._made()

    def rows(self) -> Rows:
        return self._rows

    def add(self, rowids: Rowids, vectors: Vectors) -> None:
        """Rows that are not in it, float32[n, dim] as they are in documents. One thread at a
        time."""
        self.add_prepared(rowids, prepared(vectors, self._metric))

    def add_prepared(self, rowids: Rowids, vectors: Vectors) -> None:
        """The same, of vectors from another matrix."""
        if not len(rowids):
            return
        count, dim = self._count, self._base.shape[1]
        self._rowids = _grown(self._rowids, count + len(rowids))
        self._rowids[count : count + len(rowids)] = rowids
        self._places = _grown(self._places, int(rowids.max()) + 1, _UNKNOWN)
        self._places[rowids] = np.arange(count, count + len(rowids), dtype=np.int32)
        done = 0
        while done < len(rowids):
            number, inside = divmod(count + done - len(self._base), 1 << self._shift)
            if number == len(self._chunks):
                self._chunks.append(np.empty((1 << self._shift, dim), np.float32))
            room = (1 << self._shift) - inside
            some = vectors[done : done + room]
            self._chunks[number][inside : inside + len(some)] = some
            done += len(some)
        self._count = count + len(rowids)
        self._rows = self._made()

    @property
    def size_bytes(self) -> int:
        """Of memory, the base included, which may be a mapped file."""
        rows = self._base.nbytes + sum(chunk.nbytes for chunk in self._chunks)
        return rows + self._rowids.nbytes + self._places.nbytes

    def _made(self) -> Rows:
        rowids = self._rowids[: self._count]
        return Rows(rowids, self._places, self._base, tuple(self._chunks), self._metric)


def _chunk_shift(dim: int) -> int:
    """log2 of the rows in a chunk."""
    return max((CHUNK_BYTES // (4 * dim)).bit_length() - 1, 6)


def _grown(array: NDArray[_N], size: int, fill: int = 0) -> NDArray[_N]:
    """The array itself where there is room, else a longer copy: readers keep theirs."""
    if size <= len(array):
        return array
    longer = np.full(max(size, 2 * len(array), 1024), fill, array.dtype)
    longer[: len(array)] = array
    return longer
