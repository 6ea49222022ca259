"""Snippets: the part of a document that shows why it matched.

A short document is analyzed. In a longer one, anchors.py guesses where the terms are, and the best
of these places are analyzed.

Invariants:
- A pure function of strings, query and limit. Without marks and ellipses, a snippet is a part of
  one of the strings, with each run of white space replaced by one space.
- It begins and ends with a sentence where one begins and ends near enough, else with a word.
- Every word that is marked has a term of the query, and of the words in a snippet every such one is
  marked: whole, of a word longer than a snippet its start; in scripts without spaces, the parts
  that the query names.
- The cost is linear in the characters that are read, and of those few are analyzed. Reading ends
  early where a stretch has every term of the query.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, starmap
from typing import Final, TypeAlias, final

from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.anchors import BLOCK_CHARACTERS, Anchors, Place
from amberdb.index.text.parts import WORD_CHARACTERS_MAX, Part, part_of, parts_of, widened
from amberdb.index.text.pieces import HAS_RUN, is_run, located
from amberdb.index.text.query import Prefix, TextQuery

ELLIPSIS: Final = "..."
CHARACTERS_MAX: Final = 1 << 20
_MARKED_CHARACTERS_MIN: Final = 20
"""Of a longer word at least so many are shown, however short a snippet is."""
_ANALYZED_MIN: Final = 1_024
"""Documents of up to this many characters are analyzed whole."""
_ANALYZED: Final = 4_096
_ANALYZED_SHARE: Final = 64
"""Of longer ones this many characters are analyzed at most, and one of so many in addition."""
_PLACE_CHARACTERS: Final = 512

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
            self._finder = _Finder(query, self._characters)
        texts = self._share(strings)
        size = sum(map(len, texts))
        if size <= _ANALYZED_MIN:
            best = self._finder.best_of(part_of(text, 0, len(text)) for text in texts)
        else:
            best = self._finder.best_in(texts, _ANALYZED + size // _ANALYZED_SHARE)
        return self._marked(best, self._finder)

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

    def _marked(self, best: "_Stretch", finder: "_Finder") -> str:
        part = best.part
        text = part.text.replace("\n", " ")
        start, end = widened(part, best.start, best.end, self._characters)
        pieces = ["" if part.is_first and not start else ELLIPSIS]
        for first, last in finder.places(part, start, end):
            pieces += [text[start:first], self._before, text[first:last], self._after]
            start = last
        pieces += [text[start:end], "" if part.is_last and end == len(text) else ELLIPSIS]
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """From `start` to `end` of a part, where it has so many `terms` of the query."""

    part: Part
    start: int = 0
    end: int = 0
    terms: int = 0


@final
class _Finder:
    """Finds the terms of a query in texts."""

    def __init__(self, query: TextQuery, characters: int) -> None:
        self.query = query
        self._characters = characters
        self._count = len(query.scored)
        """The number of terms that a stretch can have."""
        self._anchors: Anchors | None = None
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
        self._known = _Known(self._marks_in)

    def best_of(self, parts: Iterable[Part]) -> _Stretch:
        """The first stretch of the parts with the most distinct terms."""
        best = _Stretch(Part(""))
        for part in parts:
            stretch = self._stretch(part)
            if stretch.terms > best.terms or not best.part.text:
                best = stretch
            if best.terms == self._count:
                break
        return best

    def best_in(self, texts: list[str], analyzed_max: int) -> _Stretch:
        """The stretch of the texts with the most distinct terms, as far as their anchors tell."""
        anchors = self._anchors = self._anchors or Anchors(self.query)
        joined = "\n".join(texts)
        bounds = [0, *accumulate(len(text) + 1 for text in texts)]
        size, overlap = max(_PLACE_CHARACTERS, 2 * self._characters), self._characters
        best = _Stretch(Part(""))
        found = Place(0, 0, 0)
        places: list[Place] = []

        def analyze(place: Place) -> None:
            nonlocal best, found, analyzed_max
            analyzed_max -= place.end - place.start
            stretch = self.best_of(parts_of(joined, bounds, place.start, place.end))
            if stretch.terms > best.terms:
                best, found = stretch, place

        for start in range(0, len(joined), BLOCK_CHARACTERS):
            if best.terms >= anchors.count:
                break
            room = max(analyzed_max // (size + overlap), 1)
            least = max(best.terms, places[room - 1].terms if len(places) >= room else 0)
            for place in anchors.places(joined, start, size, overlap, least):
                if place.terms == anchors.count > best.terms and analyzed_max > 0:
                    analyze(place)
                else:
                    places.append(place)
            if len(places) >= room:
                places.sort(key=lambda place: -place.terms)
                del places[room:]
        for place in sorted(places, key=lambda place: -place.terms):
            if place.terms <= best.terms or analyzed_max <= 0:
                break
            analyze(place)
        if not best.terms:
            first = next((text for text in texts if text and not text.isspace()), "")
            return self.best_of([part_of(first, 0, _ANALYZED_MIN)])
        start, end = max(found.start - overlap, 0), found.end + overlap
        return self.best_of(parts_of(joined, bounds, start, end))

    def _stretch(self, part: Part) -> _Stretch:
        """The first stretch with the most distinct terms."""
        characters = self._characters
        best: list[_Mark] = []
        most = 0
        window: deque[_Mark] = deque()  # the marks of the stretch that begins with the first one
        counts: dict[str, int] = {}

        def slide() -> None:
            """Ends the stretch, which no other mark fits into; the next begins one mark later."""
            nonlocal best, most
            if len(counts) > most:
                best, most = list(window), len(counts)
            _, _, term = window.popleft()
            counts[term] -= 1
            if not counts[term]:
                del counts[term]

        for mark in self._marks(part):
            while window and mark[1] > window[0][0] + characters:
                slide()
            if most == self._count:
                break
            window.append(mark)
            counts[mark[2]] = counts.get(mark[2], 0) + 1
        while window and most < self._count:
            slide()
        if not best:
            return _Stretch(part)
        return _Stretch(part, best[0][0], max(self._shown(mark)[1] for mark in best), most)

    def places(self, part: Part, start: int, end: int) -> list[tuple[int, int]]:
        """The matches from `start` to `end`, disjoint and in order: those that meet are one, as
        neighbouring pairs of characters do."""
        places: list[tuple[int, int]] = []
        for mark in self._marks(part):
            first, last = self._shown(mark)
            if first < start or last > end:
                continue
            if places and first <= places[-1][1]:
                places[-1] = (places[-1][0], max(last, places[-1][1]))
            else:
                places.append((first, last))
        return places

    def _shown(self, mark: _Mark) -> tuple[int, int]:
        """The place of a match, of a word longer than a snippet its start."""
        start, end, _ = mark
        return start, min(end, start + max(self._characters, _MARKED_CHARACTERS_MIN))

    def _marks(self, part: Part) -> Iterator[_Mark]:
        """All matches, by start."""
        known = self._known
        start = 0
        for spaced in part.text.split():
            for first, last, term in known[spaced]:
                if first or not (part.is_cut and not start):
                    yield start + first, start + last, term
            start += len(spaced) + 1

    def _marks_in(self, spaced: str) -> list[_Mark]:
        """The matches in a text without white space."""
        if len(spaced) <= WORD_CHARACTERS_MAX and not HAS_RUN(spaced):
            terms = self._analyzer.part_terms(spaced)
            if not self._prefixes and self._words.isdisjoint(terms):  # as most texts are
                return []
        return list(chain.from_iterable(starmap(self._piece_marks, located(spaced))))

    def _piece_marks(self, start: int, end: int, piece: str) -> Iterator[_Mark]:
        if is_run(piece):
            for run in self._analyzer.pieces(piece):
                yield from self._run_marks(start, end, run)
        else:
            for term in self._matches(piece[:WORD_CHARACTERS_MAX]):
                yield start, end, term

    def _run_marks(self, start: int, end: int, run: str) -> Iterator[_Mark]:
        if len(run) != end - start:  # characters were composed, and offsets differ
            yield from ((start, end, term) for term in self._runs if term in run)
            return
        runs = self._runs
        yield from sorted(
            (start + offset, start + offset + length, term)
            for length in self._run_lengths
            for offset in range(len(run) - length + 1)
            if (term := run[offset : offset + length]) in runs
        )

    def _matches(self, word: str) -> Iterator[str]:
        """The terms of the query that a word of the text matches."""
        terms = self._analyzer.part_terms(word)
        yield from filter(self._words.__contains__, terms)
        starts: dict[str, None] = {}
        for term in terms if self._prefixes else ():
            starts.update(dict.fromkeys(self._also.get(term, ())))
            for length in self._prefix_lengths:
                if term[:length] in self._prefixes:
                    starts[term[:length]] = None
        yield from starts


@final
class _Known(dict[str, list[_Mark]]):
    """The marks in a text without white space: those of words repeat, and of runs do not."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], list[_Mark]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, spaced: str) -> list[_Mark]:
        made = self[spaced] = self._make(spaced)
        return made
