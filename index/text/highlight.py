"""Snippets: the part of a document that shows why it was found.

Invariants:
- A pure function of strings and query. Without marks and ellipses, a snippet is a piece of one of
  the strings, in which white space in a row counts as one space.
- Marked are whole words, and of runs of signs the parts that the query names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from amberdb.index.text.analyzer import Analyzer, is_run
from amberdb.index.text.query import Prefix, TextQuery

ELLIPSIS: Final = "..."
_SPACES: Final = re.compile(r"\s+")
_WORD_CHARACTERS_MAX: Final = 20

_Mark: TypeAlias = tuple[int, int, str]
"""Start and end in the text, and the term that is found there."""


def snippet(
    strings: Iterable[str],
    query: TextQuery,
    *,
    characters: int = 160,
    before: str = "**",
    after: str = "**",
) -> str:
    """The stretch of about `characters` with most of the query's terms, each place that was found
    between `before` and `after`. Without any such place the start of the first string; "" without
    strings."""
    finder = _Finder(query)
    best = _Stretch("")
    for string in strings:
        text = _SPACES.sub(" ", string).strip()
        stretch = _best_stretch(text, finder.marks(text), characters)
        if stretch.terms > best.terms or not best.text:
            best = stretch
    start, end = _widened(best, characters)
    parts = [ELLIPSIS if start else ""]
    for first, last in best.places:
        parts += [best.text[start:first], before, best.text[first:last], after]
        start = last
    return "".join([*parts, best.text[start:end], ELLIPSIS if end < len(best.text) else ""])


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of a text: the places to mark in it, apart and in order, and their distinct terms."""

    text: str
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    terms: int = 0


class _Finder:
    """Finds the terms of a query in a text."""

    def __init__(self, query: TextQuery) -> None:
        self.analyzer: Analyzer = query.analyzer
        terms = [term for term in query.scored if isinstance(term, str)]
        self.prefixes = [term for term in query.scored if isinstance(term, Prefix)]
        self.words = {term for term in terms if not is_run(term)}
        self.runs = [term for term in terms if is_run(term)]

    def marks(self, text: str) -> list[_Mark]:
        """All places, by their start."""
        found: list[_Mark] = []
        for start, end, pieces in self.analyzer.located(text):
            if len(pieces) == 1 and is_run(pieces[0]):
                found += self._run_marks(start, end, pieces[0])
            else:
                found += [(start, end, term) for piece in pieces for term in self._found(piece)]
        return found

    def _run_marks(self, start: int, end: int, run: str) -> list[_Mark]:
        is_exact = len(run) == end - start  # else signs were composed, and places are not known
        found: list[_Mark] = []
        for term in self.runs:
            at = run.find(term)
            while at >= 0:
                place = (start + at, start + at + len(term)) if is_exact else (start, end)
                found.append((*place, term))
                at = run.find(term, at + 1)
        return sorted(found)

    def _found(self, word: str) -> list[str]:
        terms = self.analyzer.terms(word)
        found = [term for term in terms if term in self.words]
        for prefix in self.prefixes:
            if any(term.startswith(prefix.start) or term in prefix.also for term in terms):
                found.append(prefix.start)
        return found


def _best_stretch(text: str, marks: list[_Mark], characters: int) -> _Stretch:
    """The first one of those with the most distinct terms; at least one place is in it."""
    best: tuple[int, int, int] = (0, 0, 0)  # terms, first mark, behind the last
    for first, (start, _, _) in enumerate(marks):
        last = first + 1
        while last < len(marks) and marks[last][1] <= start + characters:
            last += 1
        terms = len({term for _, _, term in marks[first:last]})
        if terms > best[0]:
            best = (terms, first, last)
    places: list[tuple[int, int]] = []
    for start, end, _ in marks[best[1] : best[2]]:
        if places and start <= places[-1][1]:  # neighbouring pairs of signs are one place
            places[-1] = (places[-1][0], max(end, places[-1][1]))
        else:
            places.append((start, end))
    return _Stretch(text, places, best[0])


def _widened(stretch: _Stretch, characters: int) -> tuple[int, int]:
    """Start and end of the stretch with what fits around its places, cut between words."""
    text, places = stretch.text, stretch.places
    if len(text) <= characters:
        return 0, len(text)
    first, last = (places[0][0], places[-1][1]) if places else (0, 0)
    start = max(0, min(first - (characters - (last - first)) // 2, len(text) - characters))
    start = min(start, first)
    end = max(last, min(start + characters, len(text)))
    if start:
        space = text.find(" ", start, min(first, start + _WORD_CHARACTERS_MAX))
        start = space + 1 if space >= 0 else start
    if end < len(text):
        space = text.rfind(" ", max(last, end - _WORD_CHARACTERS_MAX), end)
        end = space if space >= 0 else end
    return start, end
