"""Filtered rows: the rowids of the entries in ranges of an Ordered index. Those of recent searches
are kept: searches within one user or session come again and again.

    rows of a filter = those in LMDB, without those that memory removes, and with those that it adds

Invariants:
- The rows in LMDB are kept with the LMDB commit that they were read from, so a view is given those
  of its own commit alone. Memory is the memtables and the pending effects of the view: what it
  changes is read anew for another Lsn, and for each search of a transaction.
- Rowids ascend and are distinct: an index that may hold several entries for one document is not
  read here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from amberdb._call_lock import CallLock
from amberdb.engine.storage.source import Place, Range
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import ROWID_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rowids: TypeAlias = NDArray[np.int64]

KEPT_ROWS: Final = 1 << 17
"""Rows that are kept, of all ranges together: 1 MiB, and what vector indexes gather for them."""
KEPT_RANGES: Final = 1024
ADDED_ROWS: Final = 256
"""When memory has more rows than that, they are made one set with the stored ones, which serves
until the next commit."""


@final
class RowSet:
    """Rowids, ascending, that never change: a key for what is derived of them."""

    __slots__ = ("__weakref__", "rowids")

    def __init__(self, rowids: "Rowids") -> None:
        self.rowids = rowids


@final
class FilteredRows:
    """The rows that pass a filter: those of a set without some, and others."""

    __slots__ = ("_rowids", "added", "base", "removed")

    def __init__(
        self,
        base: RowSet,
        added: "Rowids | None" = None,
        removed: "Rowids | None" = None,
    ) -> None:
        """`added` and `removed`, in any order, are rows that memory has in the filter, and rows of
        which it has deleted an entry."""
        import numpy as np

        if added is None or removed is None:
            added = removed = np.empty(0, np.int64)
        else:
            added, removed = np.sort(added), np.sort(removed)
            removed = removed[are_in(removed, base.rowids) & ~are_in(removed, added)]
            added = added[~are_in(added, base.rowids)]
        self.base = base
        self.added: Rowids = added
        self.removed: Rowids = removed
        self._rowids: Rowids | None = None

    @property
    def count(self) -> int:
        return len(self.base.rowids) + len(self.added) - len(self.removed)

    @property
    def rowids(self) -> "Rowids":
        """All of them, ascending."""
        if self._rowids is None:
            import numpy as np

            rowids = self.base.rowids
            if len(self.removed):
                rowids = rowids[~are_in(rowids, self.removed)]
            if len(self.added):
                rowids = np.sort(np.concatenate((rowids, self.added)))
            self._rowids = rowids
        return self._rowids


class _Kept(NamedTuple):
    """The rows in some ranges."""

    commit: tuple[str, int]
    """Of LMDB."""
    stored: RowSet | None
    """As of that commit; None for too many."""
    lsn: int | None
    """Of the view that found `rows`; None for a view of a writer."""
    rows: FilteredRows | None
    """With what memory had changed; None for too many."""

    @property
    def size(self) -> int:
        sets = {self.stored, None if self.rows is None else self.rows.base}
        return sum(len(each.rowids) for each in sets if each is not None)


@final
class KeptRows:
    """The rows of recent filters of one database."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._kept: dict[tuple[Range, ...], _Kept] = {}
        """By ranges, those used last at the end."""
        self._count = 0
        """Of the rows in it; an interrupted call may leave it wrong by its own."""

    def of(
        self, view: View, ranges: Sequence[Range], limit: int, *, descends: bool
    ) -> FilteredRows | None:
        """The rows in ranges of an index, none of them bound within a cut key; None when there are
        more than `limit`."""
        ranges = tuple(ranges)
        commit = view.store_id
        lsn = view.lsn if view.pending is None else None
        kept = self._kept.get(ranges)
        if kept is None or kept.commit != commit:
            stored = _stored(view, ranges, limit, descends)
        else:
            stored = kept.stored
        if kept is None or kept.commit != commit or lsn is None or kept.lsn != lsn:
            rows = None if stored is None else _with_memory(view, ranges, stored, descends)
            if rows is not None and rows.count > limit:
                rows = None
            kept = _Kept(commit, stored, lsn, rows)
        self._keep(ranges, kept)
        return kept.rows

    def clear(self) -> None:
        with self._mutex:
            self._kept.clear()
            self._count = 0

    def _keep(self, ranges: tuple[Range, ...], new: _Kept) -> None:
        with self._mutex:
            kept = self._kept
            old = kept.pop(ranges, None)
            kept[ranges] = new
            if old is new:
                return
            self._count += new.size - (0 if old is None else old.size)
            while self._count > KEPT_ROWS or len(kept) > KEPT_RANGES:
                if not kept:
                    self._count = 0
                    break
                self._count -= kept.pop(next(iter(kept))).size


def _stored(view: View, ranges: Sequence[Range], limit: int, descends: bool) -> RowSet | None:
    """The rows as LMDB has them; None for more than `limit`."""
    keys: list[Place] = []
    for low, high in ranges:
        keys += view.stored_keys(low, high, limit + 1 - len(keys))
    if len(keys) > limit:
        return None
    rowids = rowids_of_places(keys, descends)
    rowids.sort()
    return RowSet(rowids)


def _with_memory(
    view: View, ranges: Sequence[Range], stored: RowSet, descends: bool
) -> FilteredRows:
    """The stored rows with what memory has changed of them."""
    added: list[Place] = []
    removed: list[Place] = []
    for low, high in ranges:
        more, fewer = view.memory_keys(low, high)
        added += more
        removed += fewer
    if not added and not removed:
        return FilteredRows(stored)
    rows = FilteredRows(
        stored, rowids_of_places(added, descends), rowids_of_places(removed, descends)
    )
    return rows if len(rows.added) <= ADDED_ROWS else FilteredRows(RowSet(rows.rowids))


def are_in(rowids: "Rowids", others: "Rowids") -> "NDArray[np.bool_]":
    """Whether each of the rows is one of others, which ascend. np.isin() sorts, or hashes, all."""
    import numpy as np

    if not len(others):
        return np.zeros(len(rowids), np.bool_)
    places = others.searchsorted(rowids)
    found: NDArray[np.bool_] = others.take(places, mode="clip") == rowids
    return found


def rowids_of_places(places: Sequence[Place], descends: bool) -> "Rowids":
    """The rowids at the end of places, in their order; inverted where the index descends."""
    import numpy as np

    sizes = set(map(len, places))
    if len(sizes) == 1:  # the common case, without a loop
        table = np.frombuffer(b"".join(places), np.uint8).reshape(-1, sizes.pop())
        data = table[:, -ROWID_BYTES:].tobytes()
    else:
        data = b"".join([place[-ROWID_BYTES:] for place in places])
    rowids = np.frombuffer(data, ">u8")
    return (~rowids if descends else rowids).astype(np.int64)
