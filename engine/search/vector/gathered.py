"""Gathered vectors: those of the rows of a filter, by their places in a matrix.

A search within a set of rows that was searched before finds their places and codes side by side, as
if the matrix were partitioned by what the filter asks for.

Invariants:
- What is kept of a set depends on it and the matrix alone; which of its rows are alive, and
  what memory changes, each search finds for itself.
- The codes are a copy: the memory of a matrix that was replaced is not held.
"""

from typing import Final, final
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from amberdb.engine.search.filtered_rows import FilteredRows, RowSet, are_in
from amberdb.engine.search.vector.cache import Alive
from amberdb.index.vector.codes import Block
from amberdb.index.vector.distance import Places, Rowids
from amberdb.index.vector.matrix import Matrix, MatrixView

AGAIN_ROWS: Final = 256
"""Rows are gathered again when more than that have no codes among those gathered."""


@final
class GatheredVectors:
    """The vectors of a set of rows that one matrix has."""

    __slots__ = ("_block", "_matrix", "coded_count", "matrix_count", "others", "places", "rowids")

    def __init__(self, matrix: Matrix, rows: MatrixView, base: RowSet) -> None:
        first = rows.places(base.rowids)
        self._matrix = ref(matrix)
        self._block: Block | None = None
        self.matrix_count = rows.count
        self.others: Rowids = base.rowids[first < 0]
        """The rows that are not in the matrix, ascending."""
        self.places: Places = np.sort(rows.expanded(first[first >= 0]))
        """Of the vectors, ascending."""
        self.rowids: Rowids = rows.rowids[self.places]
        """The row of each vector."""
        coded = rows.row_start(rows.codes.count)
        self.coded_count = int(self.places.searchsorted(coded))
        """The vectors that have codes: the first ones."""

    def is_of(self, matrix: Matrix) -> bool:
        return self._matrix() is matrix

    def block(self, rows: MatrixView) -> Block:
        """The codes of the first `coded_count` vectors."""
        if self._block is None:
            self._block = rows.codes.at(self.places[: self.coded_count])
        return self._block

    def codes(self, numbers: Places) -> Block:
        """A copy of the codes of some of the vectors; block() was called before."""
        assert self._block is not None
        return self._block.at(numbers)

    def wanted(self, alive: Alive, removed: Rowids) -> NDArray[np.bool_]:
        """bool[n], by vector: whether its row is alive and not removed."""
        rowids = self.rowids
        wanted = alive.take(rowids, mode="clip") if len(alive) else np.zeros(len(rowids), np.bool_)
        wanted &= rowids < len(alive)
        if len(removed):
            wanted &= ~are_in(rowids, removed)
        return wanted


@final
class ChosenVectors:
    """The vectors of the live rows of a filter, as of one view of a matrix."""

    __slots__ = ("count", "gathered", "more", "rows", "uncached", "wanted")

    def __init__(
        self, gathered: GatheredVectors, rows: MatrixView, among: FilteredRows, alive: Alive
    ) -> None:
        self.gathered = gathered
        self.rows = rows
        self.wanted = gathered.wanted(alive, among.removed)
        """bool[], by gathered vector."""
        others = gathered.others
        if len(among.removed):
            others = others[~are_in(others, among.removed)]
        if len(among.added):
            others = np.concatenate((others, among.added))
        others = others[others < len(alive)]
        others = others[alive[others]]
        places = rows.places(others)
        self.more: Places = np.sort(rows.expanded(places[places >= 0]))
        """The places of vectors that are not among those gathered."""
        self.uncached: Rowids = others[places < 0]
        """Rows that are not in the matrix."""
        self.count = int(np.count_nonzero(self.wanted)) + len(self.more)

    @property
    def places(self) -> Places:
        """Of all vectors, ascending."""
        places = self.gathered.places[self.wanted]
        return np.sort(np.concatenate((places, self.more))) if len(self.more) else places

    @property
    def uncoded(self) -> Places:
        """The places of those whose codes were not gathered, ascending."""
        count = self.gathered.coded_count
        places = self.gathered.places[count:][self.wanted[count:]]
        return np.sort(np.concatenate((places, self.more)))

    def is_outdated(self) -> bool:
        """Whether many of them could be gathered now, and were not then."""
        gathered = self.gathered
        left = len(gathered.places) - gathered.coded_count + len(self.more)
        return left > AGAIN_ROWS and gathered.matrix_count < self.rows.count


@final
class Gatherer:
    """Gathers the vectors of sets of rows, and keeps what was gathered as long as the sets are
    kept."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[RowSet, GatheredVectors] = WeakKeyDictionary()

    def chosen(self, matrix: Matrix, among: FilteredRows, alive: Alive) -> ChosenVectors:
        rows = matrix.rows()
        gathered = self._kept.get(among.base)
        if gathered is not None and gathered.is_of(matrix):
            chosen = ChosenVectors(gathered, rows, among, alive)
            if not chosen.is_outdated():
                return chosen
        gathered = self._kept[among.base] = GatheredVectors(matrix, rows, among.base)
        return ChosenVectors(gathered, rows, among, alive)
