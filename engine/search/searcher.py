"""Searcher: the protocol of an object that answers queries over one search index."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from amberdb.engine.jobs import Jobs
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.filtered_rows import KeptRows
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    from amberdb.engine.storage.readable import Readable


Ranked = list[tuple[int, float]]
"""(rowid, score), best first."""


class Found(NamedTuple):
    """What one index found."""

    ranked: Ranked
    how: dict[str, Any]
    """How the rows were found."""
    highest: float = 1.0
    """Of a text: the score that no document can exceed."""


class Searcher(Protocol):
    """Answers queries over one text or vector index."""

    def search(
        self,
        query: Any,
        view: View,
        schema: Schema,
        limit: int,
        candidates: Candidates,
        reader: RowReader,
    ) -> Found:
        """The best `limit` rows of the view that pass the candidates' filter, best first. `query`
        is a TextQuery for a text index, a vector for a vector index."""
        ...


class CachingSearcher(Searcher, Protocol):
    """What it keeps in memory is a cache."""

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """Differences between the cache, in memory or in a file, and the documents of a view, in
        words, for check()."""
        ...

    def stats(self) -> dict[str, Any]:
        """The size and the state of the cache, for db.stats()."""
        ...

    def save(self) -> None:
        """Writes the cache file, if the index has one; called before the database is closed."""
        ...

    def retire(self) -> None:
        """The index was dropped: no cache file is written from now on."""
        ...

    def forget_dead(self) -> None:
        """Drops dead rows from memory, so that no later cache file holds them. The present file
        was removed before the call."""
        ...


class SearcherSource(Protocol):
    """Where a search finds the searchers of its indexes."""

    @property
    def kept_rows(self) -> KeptRows | None:
        """The rows of recent filters; None where entries are read for each search."""
        ...

    def of(self, index: RowIndex, schema: Schema) -> Searcher:
        """The searcher of an index, which `schema` declares as of the view."""
        ...


@dataclass(frozen=True, slots=True)
class VectorParts:
    """What the searchers of all vector indexes of a database share: the folder of their cache
    files, the thread that builds graphs, and the source of views."""

    folder: CacheFolder
    builder: Jobs
    source: "Readable"
