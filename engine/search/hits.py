"""Hits: the result of a search.

Invariants:
- Plain values: a result holds no view, so it outlives the database.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from amberdb._types import Document


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


@final
class Hits(list[Hit]):
    """The hits of a search, best first; `how` reports how each index was searched, under "cut" what
    a limit of the options left out: {limit: {"used": count, "of": count}}, and under "no_terms" why
    the text asks for nothing, when it does."""

    __slots__ = ("how",)

    def __init__(self, hits: Iterable[Hit], how: dict[str, Any]) -> None:
        super().__init__(hits)
        self.how = how

    def __repr__(self) -> str:
        indexes = ", ".join(self.how.get("indexes", ())) or "no index"
        best = [(hit.id, round(hit.score, 4)) for hit in self[:3]]
        return f"<amberdb.Hits {len(self)} by {indexes}; best (id, score): {best}>"
