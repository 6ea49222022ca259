"""Search of one text index: the rows of a view that match a text query, by BM25.

Invariants:
- df, N and lengths are counted over the live rows of the view, so a score depends on the visible
  documents only.
- What postings cannot decide (phrases, and a postfilter) is checked in the documents, best row
  first, until enough have passed.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, final

from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.live_rows import Live, LiveRows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.searcher import Found
from amberdb.engine.search.segments import Sources
from amberdb.engine.storage.view import View
from amberdb.index.text.bm25 import Corpus
from amberdb.index.text.postings import Source
from amberdb.index.text.query import TextQuery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Verify = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@final
class TextSearcher:
    """Answers queries over one text index."""

    def __init__(self, index: RowIndex) -> None:
        assert index.extractor is not None
        self._index = index
        self._live_rows = LiveRows()
        self._sources = Sources()
        self._cached: tuple[Live, Corpus] | None = None
        """The corpus of the last search."""

    def search(
        self,
        query: TextQuery,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> Found:
        """The best `limit` rows of the view, best first. Raises QueryError, CorruptionError."""
        live = self._live_rows.live(view, schema, self._index)
        sources = self._sources.of(view, self._index)
        verify = verification(self._index, query, candidates, reader)
        corpus = self._corpus(sources, live)
        (rowids, scores), highest = corpus.ranked(
            query, limit, among=candidates.prefilter, verify=verify
        )
        how = {
            "kind": "text",
            "rows": corpus.count,
            "sources": len(sources),
            "documents checked": verify is not None,
        }
        return Found(list(zip(rowids.tolist(), scores.tolist(), strict=True)), how, highest)

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """Yields none: the cache is derived from postings, which check() compares itself."""
        return iter(())

    def stats(self) -> dict[str, Any]:
        return self._sources.stats()

    def save(self) -> None:
        """Does nothing: a text index has no cache file."""

    def retire(self) -> None:
        """Does nothing: a text index has no cache file."""

    def forget_dead(self) -> None:
        """Does nothing: a text index has no cache file."""

    def _corpus(self, sources: list[Source], live: Live) -> Corpus:
        """The corpus of the last search where that of this view follows from it, else a new one."""
        corpus = None
        if self._cached is not None:
            before, corpus = self._cached
            if before.leads_to(live):
                removed = live.removed[before.removed_count : live.removed_count]
                corpus = corpus.after(sources, live.alive, removed)
            else:
                corpus = None
        if corpus is None:
            corpus = Corpus(sources, live.alive)
        if live.is_committed:
            self._cached = live, corpus
        return corpus


def verification(
    index: RowIndex, query: TextQuery, candidates: Candidates, reader: RowReader
) -> "Verify | None":
    """A check of ranked rows by their documents; None when the postings decide."""
    postfilter, extractor = candidates.postfilter, index.extractor
    if postfilter is None and not query.needs_text:
        return None
    assert extractor is not None
    import numpy as np

    def verify(rowids: "NDArray[np.int64]") -> "NDArray[np.bool_]":
        passed = np.ones(len(rowids), np.bool_)
        for position, rowid in enumerate(rowids.tolist()):
            if postfilter is not None and not postfilter(rowid, index):
                passed[position] = False
            elif query.needs_text:
                document = reader.document(rowid, index)
                passed[position] = query.matches(extractor.strings(document))
        return passed

    return verify
