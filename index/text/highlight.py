"""Snippets: the part of a document that shows why it matched.

Invariants:
- A pure function of strings and query. Without marks and ellipses, a snippet is a part of one of
  the strings, with each run of white space replaced by one space.
- Whole words are marked; in scripts without spaces, the parts that the query names.
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
"""Start and end in the text, and the term at this place."""


def snippet(
    strings: Iterable[str],
    query: TextQuery,
    *,
    characters: int = 160,
    before: str = "**",
    after: str = "**",
) -> str:
    """The stretch of about `characters` characters with the most terms of the query, each match
    between `before` and `after`. Without a match the start of the first string; "" without
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
    """A text, the places to mark in it (disjoint and in order), and the number of their terms."""

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
        """All matches, by start."""
        marks: list[_Mark] = []
        for start, end, pieces in self.analyzer.located(text):
            if len(pieces) == 1 and is_run(pieces[0]):
                marks += self._run_marks(start, end, pieces[0])
            else:
                marks += [(start, end, term) for piece in pieces for term in self._matches(piece)]
        return marks

    def _run_marks(self, start: int, end: int, run: str) -> list[_Mark]:
        is_exact = len(run) == end - start  # else characters were composed, and offsets differ
        marks: list[_Mark] = []
        for term in self.runs:
            offset = run.find(term)
            while offset >= 0:
                place = (start + offset, start + offset + len(term)) if is_exact else (start, end)
                marks.append((*place, term))
                offset = run.find(term, offset + 1)
        return sorted(marks)

    def _matches(self, word: str) -> list[str]:
        """The terms of the query that a word of the text matches."""
        terms = self.analyzer.terms(word)
        matches = [term for term in terms if term in self.words]
        for prefix in self.prefixes:
            if any(term.startswith(prefix.start) or term in prefix.also for term in terms):
                matches.append(prefix.start)
        return matches


def _best_stretch(text: str, marks: list[_Mark], characters: int) -> _Stretch:
    """The first stretch with the most distinct terms."""
    best: tuple[int, int, int] = (0, 0, 0)  # terms, first mark, end of the marks
    for first, (start, _, _) in enumerate(marks):
        last = first + 1
        while last < len(marks) and marks[last][1] <= start + characters:
            last += 1
        terms = len({term for _, _, term in marks[first:last]})
        if terms > best[0]:
            best = (terms, first, last)
    places: list[tuple[int, int]] = []
    for start, end, _ in marks[best[1] : best[2]]:
        if places and start <= places[-1][1]:  # neighbouring pairs of characters are one place
            places[-1] = (places[-1][0], max(end, places[-1][1]))
        else:
            places.append((start, end))
    return _Stretch(text, places, best[0])


def _widened(stretch: _Stretch, characters: int) -> tuple[int, int]:
    """Start and end of the stretch, widened to `characters` and cut between words."""
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
