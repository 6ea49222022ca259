"""Searchers: what an open database keeps in memory of each search index, and how it is asked.

Invariants:
- One searcher per tree, made at the first search, forgotten when the index is gone.
- A searcher's memory is a cache: whatever is in it, an answer is that of the view alone.
"""

import threading
from collections.abc import Iterable
from typing import Any, Protocol, final

from amberdb.engine.candidates import Candidates
from amberdb.engine.row_index import RowIndex
from amberdb.engine.row_reader import RowReader
from amberdb.engine.schema import Schema
from amberdb.engine.search import Ranked
from amberdb.engine.view import View


class Searcher(Protocol):
    """Of one search index."""

    def search(
        self,
        question: Any,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> tuple[Ranked, dict[str, Any]]:
        """The best rows that the candidates let through, best first, and how they were found."""
        ...

    def stats(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


@final
class Searchers:
    """Owned by the Database."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._by_tree: dict[int, Searcher] = {}

    def of(self, index: RowIndex) -> Searcher:
        with self._mutex:
            searcher = self._by_tree.get(index.number)
            if searcher is None:
                searcher = self._made(index)
                self._by_tree[index.number] = searcher
            return searcher

    def keep_only(self, trees: Iterable[int]) -> None:
        """After a declaration: forgets indexes that are gone."""
        with self._mutex:
            for number in self._by_tree.keys() - set(trees):
                self._by_tree.pop(number).close()

    def close(self) -> None:
        self.keep_only(())

    def _made(self, index: RowIndex) -> Searcher:
        if index.is_text:
            from amberdb.engine.text_searcher import TextSearcher  # brings numpy

            return TextSearcher(index)
        from amberdb.engine.vector_searcher import NearestSearcher
        from amberdb.engine.vectors import VectorSearcher

        return NearestSearcher(index, VectorSearcher(index.vector))
