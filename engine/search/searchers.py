"""Searchers: one searcher for each search index of an open database.

Invariants:
- A searcher is created at the first search of its index; it is dropped, with its cache file, when
  the index is dropped. What views from before the drop still search is never a file, and lasts as
  long as their snapshot.
- A searcher's memory is a cache: whatever it holds, the result depends on the view alone.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, final

from amberdb._call_lock import CallLock
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searcher import Searcher, VectorParts
from amberdb.engine.storage.view import View


@final
class Searchers:
    """The searchers of an open database, by the keyspace of their index."""

    def __init__(self, parts: VectorParts) -> None:
        self._mutex = CallLock()
        self._by_keyspace: dict[int, Searcher] = {}
        self._parts = parts

    def of(self, index: RowIndex, schema: Schema) -> Searcher:
        """The searcher of an index, which `schema` declares as of the view."""
        return self.shared(index, schema) or _searcher(index, None)

    def shared(self, index: RowIndex, schema: Schema) -> Searcher | None:
        """The searcher that all views share; None for an index that was dropped since the view."""
        with self._mutex:
            searcher = self._by_keyspace.get(index.number)
            # Under the mutex: a drop changes the catalog first, and then waits here to forget.
            if searcher is None and self._is_declared(index, schema):
                searcher = self._by_keyspace[index.number] = _searcher(index, self._parts)
            return searcher

    def stats_of(self, index: RowIndex) -> dict[str, Any]:
        """Statistics of an index; an index that was not searched yet is not loaded for them."""
        with self._mutex:
            searcher = self._by_keyspace.get(index.number)
        loaded = {} if searcher is None else searcher.stats()
        return {"loaded": searcher is not None, **loaded}

    def forget(self, keyspaces: Iterable[int]) -> None:
        """Drops the searchers and cache files of dropped indexes."""
        with self._mutex:
            for number in keyspaces:
                searcher = self._by_keyspace.pop(number, None)
                if searcher is not None:
                    searcher.retire()
                self._parts.folder.drop(number)

    def forget_others(self, keyspaces: Collection[int]) -> None:
        """Drops the searchers of all other indexes."""
        self.forget([number for number in list(self._by_keyspace) if number not in keyspaces])

    def forget_dead(self) -> None:
        """Removes all cache files, and dead rows from memory, so that no file holds or will hold
        one. Waits until the builder is idle. Raises StorageError."""
        with self._parts.builder.alone(), self._mutex:
            self._parts.folder.drop_all()
            for searcher in self._by_keyspace.values():
                searcher.forget_dead()

    def problems(self, view: View) -> Iterator[str]:
        """Differences between the caches of all built indexes and the documents of the view, in
        words. Waits until the builder is idle."""
        for schema in view.catalog.schemas.values():
            for index in schema.row_indexes:
                if view.is_built(index):
                    with self._parts.builder.alone():
                        for problem in self.of(index, schema).problems(view, schema):
                            yield f"{schema.name}: {index.spec.name}: {problem}"

    def build(self) -> None:
        """Runs the pending builds of graphs in this thread."""
        self._parts.builder.run()

    def stop(self) -> None:
        """Ends the running build; no other is started."""
        self._parts.builder.close()

    def save(self) -> None:
        """Writes the cache files of the indexes that were searched."""
        with self._mutex:
            for searcher in self._by_keyspace.values():
                searcher.save()

    def clear(self) -> None:
        """Drops all searchers, when the database is closed. Their caches hold a view, which keeps
        the LMDB environment open, and a process can open that only once."""
        with self._mutex:
            self._by_keyspace.clear()

    def _is_declared(self, index: RowIndex, schema: Schema) -> bool:
        """Whether the newest catalog has the index, in a collection of the same name."""
        newest = self._parts.source.state.catalog.schemas.get(schema.name)
        return newest is not None and any(i.number == index.number for i in newest.row_indexes)


@final
class SnapshotSearchers:
    """The searchers of a snapshot: those that all views share, and its own for indexes that were
    dropped since. Threads may share it, as they share the snapshot's view: one at a time."""

    def __init__(self, searchers: Searchers) -> None:
        self._searchers = searchers
        self._dropped: dict[int, Searcher] = {}

    def of(self, index: RowIndex, schema: Schema) -> Searcher:
        searcher = self._searchers.shared(index, schema)
        if searcher is None:
            searcher = self._dropped.get(index.number)
            if searcher is None:
                searcher = self._dropped[index.number] = _searcher(index, None)
        return searcher

    def clear(self) -> None:
        """Drops its own searchers: they hold the snapshot's view."""
        self._dropped.clear()


def _searcher(index: RowIndex, parts: VectorParts | None) -> Searcher:
    """A new searcher; without `parts` one that keeps no file."""
    if index.is_text:
        from amberdb.engine.search.text_searcher import TextSearcher  # imports numpy

        return TextSearcher(index)
    from amberdb.engine.search.vector_searcher import VectorSearcher

    return VectorSearcher(index, parts)
