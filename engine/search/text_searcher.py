"""Asking a text index: from a view and a question to its best rows.

Invariants:
- df, N and lengths are counted over the rows that are alive in the view, so a score depends on
  the visible documents only.
- What postings cannot decide (phrases, and a filter that no index answers) is asked of documents,
  from the best row downwards, until enough have passed.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, final

from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.live_rows import Rows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.search.segments import Sources
from amberdb.engine.storage.view import View
from amberdb.index.text.bm25 import Corpus
from amberdb.index.text.postings import Source
from amberdb.index.text.query import TextQuery, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amberdb.engine.search.live_rows import Alive

    Verify = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@final
class TextSearcher:
    """Of one text index."""

    def __init__(self, index: RowIndex) -> None:
        assert index.extractor is not None
        self._index = index
        self._extractor = index.extractor
        self._rows = Rows()
        self._sources = Sources()
        self._kept: Corpus | None = None

    def search(
        self,
        question: str,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> tuple[list[tuple[int, float]], dict[str, Any]]:
        """Raises QueryError, CorruptionError."""
        query = parse(question, self._extractor.analyzer)
        alive = self._rows.alive(view, schema, self._index)
        sources = self._sources.of(view, self._index)
        verify = self._verify(query, candidates, reader)
        corpus = self._corpus(sources, alive)
        rowids, scores = corpus.search(query, limit, among=candidates.among, verify=verify)
        how = {
            "kind": "text",
            "rows": corpus.count,
            "sources": len(sources),
            "documents asked": verify is not None,
        }
        return list(zip(rowids.tolist(), scores.tolist(), strict=True)), how

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """None: what it keeps is made of entries that check() compares."""
        return iter(())

    def stats(self) -> dict[str, Any]:
        return self._sources.stats()

    def save(self) -> None:
        """Nothing of it outlives the process."""

    def forget_dead(self) -> None:
        """The same."""

    def _corpus(self, sources: list[Source], alive: "Alive") -> Corpus:
        """The last one, if it will do."""
        kept = self._kept
        corpus = kept.over(sources, alive) if kept is not None else None
        if corpus is None:
            corpus = self._kept = Corpus(sources, alive)
        return corpus

    def _verify(
        self, query: TextQuery, candidates: Candidates, reader: RowReader
    ) -> "Verify | None":
        accepts = candidates.accepts
        if accepts is None and not query.needs_text:
            return None
        import numpy as np

        def verify(rowids: "NDArray[np.int64]") -> "NDArray[np.bool_]":
            passed = np.ones(len(rowids), np.bool_)
            for at, rowid in enumerate(rowids.tolist()):
                if accepts is not None and not accepts(rowid, self._index):
                    passed[at] = False
                elif query.needs_text:
                    document = reader.document(rowid, self._index)
                    passed[at] = query.matches(self._extractor.strings(document))
            return passed

        return verify
