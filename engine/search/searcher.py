"""A searcher answers queries over one search index."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from amberdb.engine.jobs import Jobs
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.candidates import Candidates
from amberdb.engine.search.row_reader import RowReader
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    from amberdb.engine.storage.readable import Readable


Ranked = list[tuple[int, float]]
"""(rowid, score), best first."""


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

    def problems(self, view: View, schema: Schema) -> Iterator[str]:
        """What is kept, in memory or in a file, and differs from the documents of a view."""
        ...

    def stats(self) -> dict[str, Any]: ...

    def save(self) -> None:
        """Before the database is closed."""
        ...

    def forget_dead(self) -> None:
        """After its file was removed: nothing of dead rows will be in another one."""
        ...


@dataclass(frozen=True, slots=True)
class VectorParts:
    """What the searchers of vector indexes share."""

    folder: CacheFolder
    builder: Jobs
    source: "Readable"
