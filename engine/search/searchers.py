"""Searchers: one searcher for each search index of an open database.

Invariants:
- A searcher is created at the first search of its index; it is dropped, with its cache file, when
  the index is dropped. What views from before the drop still search is never a file, and lasts as
  long as their snapshot.
- A searcher's memory is a cache: whatever it holds, the result depends on the view alone.
- The vectors of commits are taken into memory by the threads that committed them, after they were
  acknowledged and TAKEN_ROWS at once: a search after many writes reads few documents.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, final

from amberdb._call_lock import CallLock
from amberdb._errors import AmberError
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.search.filtered_rows import KeptRows
from amberdb.engine.search.searcher import CachingSearcher, VectorParts
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES

logger = logging.getLogger("amberdb.engine")

TAKEN_ROWS: Final = 256
"""Rows of an index that are taken at once: alone, each would cost a view and ten numpy calls."""


@dataclass(slots=True)
class _Noted:
    """The rows that commits of this process have added to an index."""

    first: int
    """The rowid of the first."""
    count: int = 0
    """Since rows were taken last."""


@final
class Searchers:
    """The searchers of an open database, by the keyspace of their index."""

    def __init__(self, parts: VectorParts) -> None:
        self._mutex = CallLock()
        self._by_keyspace: dict[int, CachingSearcher] = {}
        self._parts = parts
        self.kept_rows = KeptRows()
        self._noted: dict[bytes, _Noted] = {}
        """By the prefix of an index."""

    def of(self, index: RowIndex, schema: Schema) -> CachingSearcher:
        """The searcher of an index, which `schema` declares as of the view."""
        return self.shared(index, schema) or _searcher(index, None)

    def shared(self, index: RowIndex, schema: Schema) -> CachingSearcher | None:
        """The searcher that all views share; None for an index that was dropped since the view."""
        with self._mutex:
            searcher = self._by_keyspace.get(index.number)
            # Under the mutex: a drop changes the catalog first, and then waits here to forget.
            if searcher is None and self._is_declared(index, schema):
                searcher = self._by_keyspace[index.number] = _searcher(index, self._parts)
            return searcher

    def note_rows(self, keys: Iterable[bytes], effects: Effects) -> None:
        """Takes the entries of search indexes that a commit has changed. When those that were added
        are enough, the rows of their vector index are read into memory."""
        added = [key for key in keys if effects[key] is not None]
        noted = self._noted  # a count that threads lose delays a turn
        for prefix, count in Counter([key[:KEYSPACE_BYTES] for key in added]).items():
            if prefix not in noted:
                of_index = (rowid_of_key(key) for key in added if key.startswith(prefix))
                noted[prefix] = _Noted(min(of_index))
            noted[prefix].count += count
            if noted[prefix].count >= TAKEN_ROWS:
                noted[prefix].count = 0
                self._take(prefix, noted[prefix].first)

    def _take(self, prefix: bytes, first: int) -> None:
        """Lets the searcher of a vector index take the rows from a rowid on. A failure is logged:
        the commit was acknowledged, and the next search meets it."""
        try:
            with self._parts.source.view() as view:
                index = view.catalog.row_indexes.get(prefix)
                if index is None or index.is_text:
                    return
                schema = view.catalog.by_keyspace()[index.documents]
                from amberdb.engine.search.vector.searcher import VectorSearcher  # imports numpy

                searcher = self.shared(index, schema)
                if isinstance(searcher, VectorSearcher):
                    searcher.take(view, schema, first)
        except AmberError as error:
            logger.warning("committed vectors were not taken into memory: %s", error)

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
            self.kept_rows.clear()
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
        self.kept_rows.clear()
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
        self.kept_rows = searchers.kept_rows
        self._searchers = searchers
        self._dropped: dict[int, CachingSearcher] = {}

    def of(self, index: RowIndex, schema: Schema) -> CachingSearcher:
        searcher = self._searchers.shared(index, schema)
        if searcher is None:
            searcher = self._dropped.get(index.number)
            if searcher is None:
                searcher = self._dropped[index.number] = _searcher(index, None)
        return searcher

    def clear(self) -> None:
        """Drops its own searchers: they hold the snapshot's view."""
        self._dropped.clear()


def _searcher(index: RowIndex, parts: VectorParts | None) -> CachingSearcher:
    """A new searcher; without `parts` one that keeps no file."""
    if index.is_text:
        from amberdb.engine.search.text_searcher import TextSearcher  # imports numpy

        return TextSearcher(index)
    from amberdb.engine.search.vector.searcher import VectorSearcher

    return VectorSearcher(index, parts)
