"""Snippets: the part of a document that shows why it matched.

Invariants:
- A pure function of strings, query and limit. Without marks and ellipses, a snippet is a part of
  one of the strings, with each run of white space replaced by one space.
- Whole words are marked, of a word longer than a snippet its start; in scripts without spaces, the
  parts that the query names.
- The cost is bounded by the characters that are read. Reading ends early where a stretch has every
  term of the query.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, TypeAlias, final

from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.pieces import is_run, located
from amberdb.index.text.query import Prefix, TextQuery

ELLIPSIS: Final = "..."
CHARACTERS_MAX: Final = 1 << 20
_WORD_CHARACTERS_MAX: Final = 20
_ANALYZED_MAX: Final = 1_000
"""Characters of one word that are analyzed: what is longer is no word, and is cut when shown."""

_Mark: TypeAlias = tuple[int, int, str]
"""Start and end in the text, and the term at this place."""


@final
class Snippets:
    """The snippets of one search, of `count` documents, chosen from `characters_max` characters:
    each document has an equal share of those that the documents before it left."""

    def __init__(
        self,
        count: int,
        characters_max: int = CHARACTERS_MAX,
        *,
        characters: int = 160,
        before: str = "**",
        after: str = "**",
    ) -> None:
        self._count = count
        self._left = characters_max
        self._characters = characters
        self._before = before
        self._after = after
        self._finder: _Finder | None = None
        self.cut = 0
        """The number of documents whose end was not read."""

    def of(self, strings: Iterable[str], query: TextQuery) -> str:
        """The stretch of about `characters` characters with the most terms of the query, each match
        between `before` and `after`. Without a match the start of the first string; "" without
        strings."""
        if self._finder is None or self._finder.query is not query:
            self._finder = _Finder(query)
        best = _Stretch("")
        for string in self._share(strings):
            text = " ".join(string.split())
            stretch = _best_stretch(text, self._finder, self._characters)
            if stretch.terms > best.terms or not best.text:
                best = stretch
            if best.terms == self._finder.count:
                break
        return self._marked(best)

    def _share(self, strings: Iterable[str]) -> list[str]:
        """The strings of one document, as far as they are read."""
        share = left = max(self._left // max(self._count, 1), self._characters)
        read: list[str] = []
        for string in strings:
            read.append(string[:left])
            if len(string) > left:
                self.cut += 1
                left = 0
                break
            left -= len(string)
        self._count -= 1
        self._left -= share - left
        return read

    def _marked(self, best: "_Stretch") -> str:
        start, end = _widened(best, self._characters)
        parts = [ELLIPSIS if start else ""]
        for first, last in best.places:
            parts += [best.text[start:first], self._before, best.text[first:last], self._after]
            start = last
        ending = ELLIPSIS if end < len(best.text) else ""
        return "".join([*parts, best.text[start:end], ending])


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A text, the places to mark in it (disjoint and in order), and the number of their terms."""

    text: str
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    terms: int = 0


class _Finder:
    """Finds the terms of a query in texts."""

    def __init__(self, query: TextQuery) -> None:
        self.query = query
        self.count = len(query.scored)
        """The number of terms that a stretch can have."""
        self._analyzer: Analyzer = query.analyzer
        terms = [term for term in query.scored if isinstance(term, str)]
        prefixes = [term for term in query.scored if isinstance(term, Prefix)]
        self._words = {term for term in terms if not is_run(term)}
        self._runs = {term for term in terms if is_run(term)}
        self._run_lengths = sorted({len(term) for term in self._runs})
        self._prefixes = {prefix.start for prefix in prefixes}
        self._prefix_lengths = sorted({len(start) for start in self._prefixes})
        self._also: dict[str, list[str]] = {}
        for prefix in prefixes:
            for term in prefix.also:
                self._also.setdefault(term, []).append(prefix.start)
        self._seen: dict[str, list[str]] = {}
        """The terms by word: a text has few distinct ones."""

    def marks(self, text: str) -> Iterator[_Mark]:
        """All matches, by start."""
        seen = self._seen
        for start, end, raw in located(text):
            terms = seen.get(raw)
            if terms is None:
                pieces = self._analyzer.pieces(raw if is_run(raw) else raw[:_ANALYZED_MAX])
                if len(pieces) == 1 and is_run(pieces[0]):
                    yield from self._run_marks(start, end, pieces[0])
                    continue
                terms = seen[raw] = [term for piece in pieces for term in self._matches(piece)]
            for term in terms:
                yield start, end, term

    def _run_marks(self, start: int, end: int, run: str) -> Iterator[_Mark]:
        if len(run) != end - start:  # characters were composed, and offsets differ
            yield from ((start, end, term) for term in self._runs if term in run)
            return
        for offset in range(len(run)):
            for length in self._run_lengths:
                term = run[offset : offset + length]
                if term in self._runs:
                    yield start + offset, start + offset + len(term), term

    def _matches(self, word: str) -> Iterator[str]:
        """The terms of the query that a word of the text matches."""
        terms = list(chain.from_iterable(self._analyzer.terms(word)))
        yield from (term for term in terms if term in self._words)
        starts: dict[str, None] = {}
        for term in terms:
            starts.update(dict.fromkeys(self._also.get(term, ())))
            for length in self._prefix_lengths:
                if term[:length] in self._prefixes:
                    starts[term[:length]] = None
        yield from starts


def _best_stretch(text: str, finder: _Finder, characters: int) -> _Stretch:
    """The first stretch with the most distinct terms."""
    best: list[_Mark] = []
    most = 0
    window: deque[_Mark] = deque()  # the marks of the stretch that begins with the first of them
    counts: dict[str, int] = {}

    def slide() -> None:
        """Ends the stretch, which no other mark fits into; the next begins at its second mark."""
        nonlocal best, most
        if len(counts) > most:
            best, most = list(window), len(counts)
        _, _, term = window.popleft()
        counts[term] -= 1
        if not counts[term]:
            del counts[term]

    for mark in finder.marks(text):
        while window and mark[1] > window[0][0] + characters:
            slide()
        if most == finder.count:
            break
        window.append(mark)
        counts[mark[2]] = counts.get(mark[2], 0) + 1
    while window and most < finder.count:
        slide()
    places: list[tuple[int, int]] = []
    for start, end, _ in best:
        end = min(end, start + max(characters, _WORD_CHARACTERS_MAX))
        if places and start <= places[-1][1]:  # neighbouring pairs of characters are one place
            places[-1] = (places[-1][0], max(end, places[-1][1]))
        else:
            places.append((start, end))
    return _Stretch(text, places, most)


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
