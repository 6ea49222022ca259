"""Searchers: what an open database keeps in memory of each search index, and how it is asked.

Invariants:
- One searcher per tree, made at the first search, forgotten with its files when the index is gone.
- A searcher's memory is a cache: whatever is in it, an answer is that of the view alone.
"""

import threading
from collections.abc import Iterable, Iterator
from typing import Any, final

from amberdb._errors import FormatError
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searcher import Searcher, VectorParts
from amberdb.engine.storage.view import View


@final
class Searchers:
    """The searchers of an open database, one for each search index."""

    def __init__(self, parts: VectorParts) -> None:
        self._mutex = threading.Lock()
        self._by_keyspace: dict[int, Searcher] = {}
        self._parts = parts
        self.foreign: frozenset[int] = frozenset()
        """Trees of text indexes whose terms another analyzer has made, and not this process."""

    def of(self, index: RowIndex) -> Searcher:
        """Raises FormatError where nobody here can ask it."""
        if index.number in self.foreign:
            raise FormatError(
                f"{index.spec.name} was made by another version of its analyzer: let the writing "
                "process open the database with this version, which builds it anew"
            )
        with self._mutex:
            searcher = self._by_keyspace.get(index.number)
            if searcher is None:
                searcher = self._by_keyspace[index.number] = self._made(index)
            return searcher

    def stats_of(self, index: RowIndex) -> dict[str, Any]:
        """Of one that was searched; another one is not loaded for this."""
        with self._mutex:
            searcher = self._by_keyspace.get(index.number)
        loaded = {} if searcher is None else searcher.stats()
        return {"loaded": searcher is not None, **loaded}

    def forget(self, keyspaces: Iterable[int]) -> None:
        """Of indexes that are gone, their files too."""
        with self._mutex:
            for number in keyspaces:
                self._by_keyspace.pop(number, None)
                self._parts.folder.drop(number)

    def forget_dead(self) -> None:
        """No dead row stays in a file, nor in what is kept in memory to be written into one. Waits
        for what is being built. Raises StorageError."""
        with self._parts.builder.alone(), self._mutex:
            self._parts.folder.drop_all()
            for searcher in self._by_keyspace.values():
                searcher.forget_dead()

    def problems(self, view: View) -> Iterator[str]:
        """Of all indexes that are ready. Waits for what is being built."""
        for schema in view.catalog.schemas.values():
            for index in schema.row_indexes:
                if index.number in self.foreign:
                    continue
                if view.is_built(index):
                    with self._parts.builder.alone():
                        for problem in self.of(index).problems(view, schema):
                            yield f"{schema.name}: {index.spec.name}: {problem}"

    def build(self) -> None:
        """What waits to be built, in this thread."""
        self._parts.builder.run()

    def stop(self) -> None:
        """Nothing is built any more."""
        self._parts.builder.close()

    def save(self) -> None:
        with self._mutex:
            for searcher in self._by_keyspace.values():
                searcher.save()

    def _made(self, index: RowIndex) -> Searcher:
        if index.is_text:
            from amberdb.engine.search.text_searcher import TextSearcher  # brings numpy

            return TextSearcher(index)
        from amberdb.engine.search.vector_searcher import VectorSearcher

        return VectorSearcher(index, self._parts)
