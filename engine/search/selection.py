"""Selection: which of the ranked rows may be hits: those that no page has shown, and of each group
the best one.

Invariants:
- The order is that of the ranking.
- A group is a single value: 1 and 1.0 are one, and so are x and [x]. A document whose field is
  missing, None, a map, or a list of several values is in no group, and a hit of its own.
- A document is read for its group only, and only as far as the ranking is looked through.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.cursor import Shown
from amberdb.engine.search.ranking import sorted_rows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Ranked
from amberdb.index.ordered.keys import SCALAR_ENCODERS, encode
from amberdb.index.paths import Path


class Selected(NamedTuple):
    """The rows of a ranking that count."""

    hits: Ranked
    """That may be hits."""
    shown: Ranked
    """That pages before have shown, one of each group: a diverse hit is unlike them."""

    @property
    def rows(self) -> Ranked:
        """Both, in the order of the ranking."""
        return sorted_rows([*self.hits, *self.shown]) if self.shown else self.hits


@final
class Selection:
    """Selects rows in one search."""

    def __init__(self, reader: RowReader, shown: Shown, group_by: Path | None) -> None:
        self._reader = reader
        self.shown = shown
        self._group_by = group_by
        self._keys: dict[int, bytes | None] = {}
        """By rowid, of the rows that were looked at: the key of the group."""

    @property
    def rows(self) -> int:
        """How many rows were looked at for their groups."""
        return len(self._keys)

    def key(self, rowid: int) -> bytes | None:
        """The key of the group of a selected row; None where it is in none."""
        return self._keys.get(rowid)

    def of(self, ranked: Ranked, limit: int | None, origin: Mapping[int, RowIndex]) -> Selected:
        """The first `limit` rows that may be hits, and the shown ones before them. Raises
        CorruptionError.

        origin  the index that ranked each row
        """
        shown = self.shown
        if self._group_by is None and not shown.count:
            return Selected(ranked, [])
        selected = Selected([], [])
        taken: set[bytes] = set()
        for row in ranked:
            if len(selected.hits) == limit:
                break
            rowid, index = row[0], origin[row[0]]
            key = self._key(rowid, index)
            if key in taken:
                continue
            is_of_shown_group = key is not None and shown.has_group(key)
            if is_of_shown_group or shown.has_id(self._reader.id(rowid, index)):
                selected.shown.append(row)
                if not is_of_shown_group:  # its document has changed groups
                    continue
            else:
                selected.hits.append(row)
            if key is not None:
                taken.add(key)
        return selected

    def _key(self, rowid: int, index: RowIndex) -> bytes | None:
        if self._group_by is None:
            return None
        if rowid not in self._keys:
            document = self._reader.known(rowid, index)
            self._keys[rowid] = _group_key(self._group_by.find(document))
        return self._keys[rowid]


def _group_key(value: Any) -> bytes | None:
    """Equal for equal groups; None for none."""
    values: list[Any] = [value]
    if type(value) is list:
        values = value  # pyright: ignore[reportUnknownVariableType]
    if not all(type(each) in SCALAR_ENCODERS for each in values):
        return None
    keys = set(map(encode, values))
    return keys.pop() if len(keys) == 1 and keys != _NO_GROUP else None


_NO_GROUP: Final = {encode(None)}
