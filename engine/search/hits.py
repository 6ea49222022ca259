"""Hits: the result of a search.

Invariants:
- Plain values: a result holds no view, so it outlives the database.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from amberdb._public import public
from amberdb._types import Document
from amberdb.engine.search.cursor import Next


@public
@final
@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a search result, with its score."""

    id: str
    score: float
    document: Document
    snippet: str | None = None
    ranks: Mapping[str, int] = field(default_factory=dict[str, int])
    """By the index's name: the document's rank in the list of that index, from 1."""


@public
@final
class Hits(list[Hit]):
    """The hits of a search, best first, with a cursor to the next page: `search(...,
    after=hits.cursor)`. `how` reports how each index was searched, under "cut" what a limit of the
    options left out: {limit: {"used": count, "of": count}}, and under "no_terms" why the text asks
    for nothing, when it does."""

    __slots__ = ("_next", "how")

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        how: Mapping[str, Any] | None = None,
        cursor: str | Next | None = None,
    ) -> None:
        super().__init__(hits)
        self.how: dict[str, Any] = dict(how or {})
        self._next = cursor

    def __repr__(self) -> str:
        indexes = ", ".join(self.how.get("indexes", ())) or "no index"
        best = [(hit.id, round(hit.score, 4)) for hit in self[:3]]
        return f"<amberdb.Hits {len(self)} by {indexes}; best (id, score): {best}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.how, self.cursor)

    @property
    def cursor(self) -> str | None:
        """The cursor to the next page; None when this page was not full, so that nothing more
        matches."""
        if isinstance(self._next, Next):
            self._next = self._next.cursor()
        return self._next
