"""Candidates: which rows a filter lets through, for a search that ranks rows.

    few rows by an index  -> `among`: their rowids, read off the index entries; exactly these
                             are ranked
    anything else         -> `accepts`: rows are ranked first, and their documents asked from the
                             best downwards until enough have passed

Invariants:
- Either way the answer is that of ranking all rows that match: only how many documents are read
  differs.
- Rowids ascend, each once: an index whose documents may have several entries is not read this way.
"""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, final

from amberdb._types import Document
from amberdb.engine.query.filter import Filter
from amberdb.engine.query.planner import Plan, choose
from amberdb.engine.query.scan import documents
from amberdb.engine.schema.document_format import rowid_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.storage.index_scan import places
from amberdb.engine.storage.source import Place
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import ROWID_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENTRIES_MAX: Final = 20_000
"""Rows that are read off an index before ranking; past it, ranking comes first."""
DOCUMENTS_MAX: Final = 2_000
"""The same where each row's document has to be read to know."""


@final
class Candidates:
    """Of one search: `among` is None when there is no filter, or when `accepts` has to be asked."""

    def __init__(self, view: View, schema: Schema, where: Filter, reader: RowReader) -> None:
        self.among: NDArray[np.int64] | None = None
        self.accepts: Callable[[int, RowIndex], bool] | None = None
        self.how: dict[str, Any] = {"filter": where.shape}
        self._reader = reader
        self._where = where
        if where.is_empty:
            return
        plan = choose(view, schema, where, (), False)
        self.how["index"] = plan.explain(())["index"]
        self.among = None if plan.is_full_scan else _rows(view, schema, plan)
        if self.among is None:
            self.accepts = self._accepts
        self.how["rows"] = "asked one by one" if self.among is None else len(self.among)

    def all_rows(self, view: View, schema: Schema) -> "NDArray[np.int64]":
        """The rows that match, however many: the last resort of a ranking that found too few."""
        plan = choose(view, schema, self._where, (), False)
        return _array([rowid_of(value) for _, value, _ in documents(view, schema, plan)])

    def _accepts(self, rowid: int, index: RowIndex) -> bool:
        document: Document = self._reader.document(rowid, index)
        return self._where.matches(document)


def _rows(view: View, schema: Schema, plan: Plan) -> "NDArray[np.int64] | None":
    """None when there are too many."""
    if plan.index is None or plan.is_multi or not plan.residual.is_empty:
        found = documents(view, schema, plan)
        rowids = [rowid_of(value) for _, value, _ in islice(found, DOCUMENTS_MAX + 1)]
        return None if len(rowids) > DOCUMENTS_MAX else _array(rowids)
    ends = places(view, plan.ranges, ENTRIES_MAX + 1)
    return None if len(ends) > ENTRIES_MAX else _array_of(ends, plan.index.descends)


def _array(rowids: list[int]) -> "NDArray[np.int64]":
    import numpy as np

    return np.sort(np.array(rowids, np.int64))


def _array_of(places: list[Place], inverted: bool) -> "NDArray[np.int64]":
    """The rowids that places end in."""
    import numpy as np

    sizes = set(map(len, places))
    if len(sizes) == 1:  # as a rule: cut off all at once
        table = np.frombuffer(b"".join(places), np.uint8).reshape(-1, sizes.pop())
        ends = table[:, -ROWID_BYTES:].tobytes()
    else:
        ends = b"".join([place[-ROWID_BYTES:] for place in places])
    rowids = np.frombuffer(ends, ">u8")
    return np.sort((~rowids if inverted else rowids).astype(np.int64))
