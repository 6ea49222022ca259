"""Neighbors: a document is ranked with the documents beside it in its group, as a turn of a
conversation is.

    one group, by the order     ... a  b  HIT  c  d ...
    decay 0.5, window 2             +1/4 +1/2  +1/2 +1/4      of the hit's score

Invariants:
- Only documents that the view sees, that have not expired and that pass the filter of the search
  have a place: the others are skipped, as if they were not stored. Past SKIPPED_MAX of them on one
  side there is no neighbor.
- A document has a place where its group and its order are single values: none of them missing,
  None, a map, or a list of several. Documents of equal order are in the order of their rowids.
- A neighbor never lowers a score.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, final

from amberdb._errors import QueryError
from amberdb._types import Document
from amberdb.engine.schema.ordered_index import MULTI, CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.live_rows import expired_rows
from amberdb.engine.search.ranking import Neighbors, sorted_rows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Ranked
from amberdb.engine.storage.index_scan import Entry, entries, is_cut, places
from amberdb.engine.storage.source import Place, Range
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import (
    ROWID_BYTES,
    class_range,
    encode,
    encode_desc,
    encode_rowid,
    encode_rowid_desc,
)
from amberdb.index.paths import Path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rowids = NDArray[np.int64]

GIVERS: Final = 20
"""How many of the best rows add to the scores of their neighbors."""
SKIPPED_MAX: Final = 100
"""The most documents in a row that are skipped in search of the next neighbor."""
GROUP_MAX: Final = 256
"""Where documents are skipped, a group of up to this many is read whole: one scan in place of two
for each hit."""
_ROWID_MAX: Final = (1 << 64) - 1


def index_of(schema: Schema, neighbors: Neighbors) -> CompiledIndex:
    """The shortest index whose first fields are the group and the order. Raises QueryError."""
    usable = [
        index
        for index in schema.indexes
        if neighbors.are_ordered_by(index.encoder.paths) and index not in schema.queues
    ]
    if not usable:
        fields = ", ".join(map(repr, neighbors.paths))
        raise QueryError(
            f"neighbors are found by an index over group and order, and collection "
            f"{schema.name!r} has none: declare Ordered({fields})"
        )
    return min(usable, key=lambda index: len(index.spec.fields))


@final
class Neighborhood:
    """The neighbors of documents in one view, as one search sees them."""

    def __init__(
        self,
        view: View,
        schema: Schema,
        neighbors: Neighbors,
        candidates: Candidates,
        reader: RowReader,
    ) -> None:
        self._index = index = index_of(schema, neighbors)
        if not view.is_built(index):
            raise QueryError(
                f"{index.spec.name} is still being built over the existing documents: wait with "
                "db.build_indexes(), and take a new snapshot if this is one"
            )
        self._view = view
        self._window = neighbors.window
        self._factors = [neighbors.decay**k for k in range(1, neighbors.window + 1)]
        self.joined = 0
        """The documents that no index ranked, and that are hits by their neighbors."""
        encoder = index.encoder
        self._fields = [
            (Path.of(path).find, encode, _single_values(descends))
            for path, encode, descends in zip(
                neighbors.paths, encoder.encoders, encoder.descending, strict=False
            )
        ]
        self._reader = reader
        self._postfilter = candidates.postfilter
        self._prefilter = None if candidates.prefilter is None else _marked(candidates.prefilter)
        self._expired = frozenset(expired_rows(view, schema).tolist())
        self._is_multi = view.get(MULTI + index.prefix) is not None
        self._all_take_part = not (
            self._expired or self._is_multi or self._prefilter is not None or self._postfilter
        )
        self._groups: dict[Range, list[Place]] = {}
        """The places of each small group, ascending; [] for a large one."""

    @property
    def how(self) -> dict[str, Any]:
        """How neighbors counted, for the user."""
        return {
            "index": self._index.spec.name,
            "window": self._window,
            "decay": self._factors[0],
            "joined": self.joined,
        }

    def spread(self, ranked: Ranked, origin: Mapping[int, RowIndex], zero: float) -> Ranked:
        """The ranking after each of the best GIVERS rows has added its score, decayed, to its
        neighbors. Their own score is `zero` or more, whether they are ranked or not: so a longer
        ranking has the same scores.

        origin  the index that ranked each row
        zero    the score from which scores are counted

        Raises CorruptionError."""
        scores = dict(ranked)
        for rowid, score in ranked[:GIVERS]:
            added = score - zero
            if added <= 0.0:
                break
            for side in self._sides(rowid, origin[rowid]):
                for factor, neighbor in zip(self._factors, side, strict=False):
                    scores[neighbor] = max(scores.get(neighbor, zero), zero) + factor * added
        self.joined = len(scores) - len(ranked)
        return sorted_rows(scores.items())

    # -- inside ------------------------------------------------------------------------------

    def _sides(self, rowid: int, origin: RowIndex) -> Iterator[list[int]]:
        """The rowids before and after a document, the nearest first, at most `window` each."""
        located = self._located(self._reader.document(rowid, origin), rowid)
        if located is not None:
            sides = self._all_beside(*located) if self._all_take_part else None
            for side in sides or self._beside(*located):
                yield self._nearest(side, origin)

    def _all_beside(self, place: Place, group: Range) -> tuple[list[Entry], list[Entry]] | None:
        """As many of _beside() as count where no document is skipped; None where the keys alone do
        not tell."""
        keys = self._view.keys_beside(place, *group, self._window)
        if keys is None or is_cut(place) or any(map(is_cut, chain(*keys))):
            return None
        before, after = keys
        return [(key, b"") for key in before], [(key, b"") for key in after]

    def _beside(self, place: Place, group: Range) -> tuple[Iterable[Entry], Iterable[Entry]]:
        """The entries of a group before a place, the last one first, and those after it. Those of a
        small group are without the id, which is read when it is needed."""
        of_group = self._groups.get(group)
        if of_group is None:
            of_group = places(self._view, (group,), GROUP_MAX + 1)
            if len(of_group) > GROUP_MAX or is_cut(max(of_group, key=len, default=b"")):
                of_group = []
            self._groups[group] = of_group
        if of_group:
            at = bisect_left(of_group, place)
            after = of_group[at + 1 :]
            return ((each, b"") for each in reversed(of_group[:at])), (
                (each, b"") for each in after
            )
        return (
            entries(self._view, (group,), reverse=True, after=place),
            entries(self._view, (group,), after=place),
        )

    def _nearest(self, side: Iterable[Entry], origin: RowIndex) -> list[int]:
        """The rowids of the first documents of one side that take part in this search."""
        nearest: list[int] = []
        skipped = 0
        inverted = _ROWID_MAX if self._index.descends else 0
        for entry in side:
            rowid = int.from_bytes(entry[0][-ROWID_BYTES:]) ^ inverted
            self._reader.know(rowid, entry)
            if self._all_take_part or self._takes_part(rowid, origin):
                nearest.append(rowid)
                if len(nearest) == self._window:
                    break
                skipped = 0
            else:
                skipped += 1
                if skipped > SKIPPED_MAX:
                    break
        return nearest

    def _takes_part(self, rowid: int, origin: RowIndex) -> bool:
        if rowid in self._expired:
            return False
        marked = self._prefilter
        if marked is not None and (rowid >= len(marked) or not marked[rowid]):
            return False
        if self._postfilter is not None and not self._postfilter(rowid, origin):
            return False
        return not self._is_multi or self._is_single(self._reader.document(rowid, origin))

    def _is_single(self, document: Document) -> bool:
        return len(self._index.encoder.keys(document)) == 1

    def _located(self, document: Document, rowid: int) -> tuple[Place, Range] | None:
        """The place of a document in the index, and the range of its group; None without one."""
        index = self._index
        key = group = index.prefix
        low = high = b""
        is_whole = len(self._fields) == len(index.encoder.paths)
        for find, encode_value, (low, high) in self._fields:
            value: Any = find(document)
            if type(value) is list:
                is_whole = False
                value = value[0] if value else None  # pyright: ignore[reportUnknownVariableType]
            part = encode_value(value)
            if not low <= part < high:
                return None
            group, key = key, key + part
        if not is_whole:
            keys = index.encoder.keys(document)
            if len(keys) != 1:
                return None
            key = index.prefix + keys[0]
        tail = encode_rowid_desc(rowid) if index.descends else encode_rowid(rowid)
        return key + tail, (group + low, group + high)


def _marked(rowids: "Rowids") -> "memoryview[int]":
    """By rowid, whether it is among the given ones, which ascend. Faster to make than a set, and to
    ask than an array."""
    import numpy as np

    marked = np.zeros(int(rowids[-1]) + 1 if len(rowids) else 0, np.bool_)
    marked[rowids] = True
    return marked.data


def _single_values(descends: bool) -> Range:
    """Bounds of the keys of values that are neither None, list nor map."""
    if descends:
        return class_range(encode_desc([]))[1], class_range(encode_desc(None))[0]
    return class_range(encode(None))[1], class_range(encode([]))[0]
