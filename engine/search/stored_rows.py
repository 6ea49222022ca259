"""Stored rows: the rowids of the entries in ranges of an Ordered index, as LMDB has them. Those of
recent searches are kept: searches within one user or session come again and again.

    rows of a filter = stored rows, without those that memory removes, and with those that it adds

Invariants:
- Stored rows never change. They are kept with the LMDB commit that they were read from, so a view
  is given those of its own commit alone.
- Memory is the memtables and the pending effects of the view: what they change is read at each
  search.
- Rowids ascend and are distinct: an index that may hold several entries for one document is not
  read here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

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


@final
class StoredRows:
    """The rowids in ranges of an index, ascending. A key for what is derived of them."""

    __slots__ = ("__weakref__", "rowids")

    def __init__(self, rowids: "Rowids") -> None:
        self.rowids = rowids


@final
class FilteredRows:
    """The rows that pass a filter: stored ones without some, and others."""

    __slots__ = ("_rowids", "added", "removed", "stored")

    def __init__(
        self,
        stored: StoredRows,
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
            removed = removed[are_in(removed, stored.rowids) & ~are_in(removed, added)]
            added = added[~are_in(added, stored.rowids)]
        self.stored = stored
        self.added: Rowids = added
        self.removed: Rowids = removed
        self._rowids: Rowids | None = None

    @property
    def count(self) -> int:
        return len(self.stored.rowids) + len(self.added) - len(self.removed)

    @property
    def rowids(self) -> "Rowids":
        """All of them, ascending."""
        if self._rowids is None:
            import numpy as np

            rowids = self.stored.rowids
            if len(self.removed):
                rowids = rowids[~are_in(rowids, self.removed)]
            if len(self.added):
                rowids = np.sort(np.concatenate((rowids, self.added)))
            self._rowids = rowids
        return self._rowids


@final
class KeptRows:
    """The stored rows of recent searches of one database."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._kept: dict[tuple[Range, ...], tuple[tuple[str, int], StoredRows | None]] = {}
        """By ranges, those used last at the end: the LMDB commit, and None for too many rows."""

    def of(
        self, view: View, ranges: Sequence[Range], limit: int, *, descends: bool
    ) -> FilteredRows | None:
        """The rows in ranges of an index, none of them bound within a cut key; None when there are
        more than `limit`."""
        stored = self._stored(view, tuple(ranges), limit, descends)
        if stored is None:
            return None
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
        return None if rows.count > limit else rows

    def clear(self) -> None:
        self._kept.clear()

    def _stored(
        self, view: View, ranges: tuple[Range, ...], limit: int, descends: bool
    ) -> StoredRows | None:
        commit, stored = self._kept.get(ranges, (None, None))
        if commit != view.store_id:
            keys: list[Place] = []
            for low, high in ranges:
                keys += view.stored_keys(low, high, limit + 1 - len(keys))
            stored = None
            if len(keys) <= limit:
                rowids = rowids_of_places(keys, descends)
                rowids.sort()
                stored = StoredRows(rowids)
        self._keep(ranges, view.store_id, stored)
        return stored

    def _keep(
        self, ranges: tuple[Range, ...], commit: tuple[str, int], stored: StoredRows | None
    ) -> None:
        with self._mutex:
            kept = self._kept
            is_new = kept.pop(ranges, None) is None
            kept[ranges] = commit, stored
            if not is_new:
                return
            count = sum(len(rows.rowids) for _, rows in kept.values() if rows is not None)
            while kept and (count > KEPT_ROWS or len(kept) > KEPT_RANGES):
                _, rows = kept.pop(next(iter(kept)))
                count -= 0 if rows is None else len(rows.rowids)


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
