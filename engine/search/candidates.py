"""Candidates: the rows that pass the filter of a search, by prefilter or by postfilter.

    few rows by an index  -> prefilter: their rowids, read from the index entries; only these rows
                             are ranked
    anything else         -> postfilter: rows are ranked first, and their documents are checked,
                             best first, until enough have passed

Invariants:
- Both give the result of ranking all rows that match; only the number of documents read differs.
- Rowids of a prefilter ascend and are distinct: the entries of an index that may hold several for
  one document are not used.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from amberdb._types import Document
from amberdb.engine.query.filter import Filter
from amberdb.engine.query.planner import Plan
from amberdb.engine.query.query import Query
from amberdb.engine.query.scan import documents
from amberdb.engine.schema.document_format import rowid_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.filtered_rows import (
    FilteredRows,
    KeptRows,
    RowSet,
    rowids_of_places,
)
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.storage.index_scan import are_cut, places
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rowids: TypeAlias = NDArray[np.int64]

Postfilter: TypeAlias = Callable[[int, RowIndex], bool]
"""Whether the document of a row of an index passes the filter."""

ENTRIES_MAX: Final = 20_000
"""The most index entries read for a prefilter; with more matches the filter is a postfilter."""
DOCUMENTS_MAX: Final = 2_000
"""The most documents read for a prefilter, where the entries alone do not decide the filter."""


@final
class Candidates:
    """The filter of one search. Both `rows` and `postfilter` are None without a filter, else one of
    them is."""

    def __init__(
        self,
        view: View,
        schema: Schema,
        query: Query,
        reader: RowReader,
        kept: KeptRows | None,
    ) -> None:
        """Without `kept`, entries are read anew."""
        self.rows: FilteredRows | None = None
        self.postfilter: Postfilter | None = None
        self.how: dict[str, Any] = {"filter": query.filter_shape}
        self._reader = reader
        self._query = query
        if query.asks_all:
            return
        plan = query.narrowest(view, ENTRIES_MAX)
        self.how["index"] = plan.explain(())["index"]
        self.rows = None if plan.is_full_scan else _few_rows(view, schema, plan, kept)
        if self.rows is None:
            self.postfilter = self._passes
        self.how["rows"] = "checked one by one" if self.rows is None else self.rows.count

    @classmethod
    def of_rows(cls, rowids: Iterable[int]) -> "Candidates":
        """These rows, which have passed the filter."""
        candidates = cls.__new__(cls)
        candidates.rows = _filtered(list(rowids))
        candidates.postfilter = None
        return candidates

    @property
    def prefilter(self) -> "Rowids | None":
        """The rowids of `rows`."""
        return None if self.rows is None else self.rows.rowids

    def all_rows(self, view: View, schema: Schema) -> FilteredRows:
        """All documents that match, however many."""
        plan = self._query.narrowest(view)
        return _filtered([rowid_of(value) for _, value, _ in documents(view, schema, plan)])

    @property
    def filter(self) -> Filter:
        """The filter that the postfilter decides."""
        return self._query.filter

    def _passes(self, rowid: int, index: RowIndex) -> bool:
        document: Document = self._reader.document(rowid, index)
        return self._query.filter.matches(document)


def _few_rows(view: View, schema: Schema, plan: Plan, kept: KeptRows | None) -> FilteredRows | None:
    """The documents that a plan finds; None when they are too many to prefilter."""
    if plan.index is None or plan.is_multi or not plan.residual.is_empty:
        matches = documents(view, schema, plan)
        rowids = [rowid_of(value) for _, value, _ in islice(matches, DOCUMENTS_MAX + 1)]
        return None if len(rowids) > DOCUMENTS_MAX else _filtered(rowids)
    descends = plan.index.descends
    if kept is not None and not are_cut(plan.ranges):
        return kept.of(view, plan.ranges, ENTRIES_MAX, descends=descends)
    entries = places(view, plan.ranges, ENTRIES_MAX + 1)
    if len(entries) > ENTRIES_MAX:
        return None
    return _filtered(rowids_of_places(entries, descends))


def _filtered(rowids: "list[int] | Rowids") -> FilteredRows:
    import numpy as np

    return FilteredRows(RowSet(np.sort(np.asarray(rowids, np.int64))))
