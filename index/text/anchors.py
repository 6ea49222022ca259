"""Anchors: where in a long text the terms of a query may be, without its analysis.

A text is folded as its words are, character by character, and the beginnings that the forms of each
term share are looked for in it:

    term     anchors                in the folded text of
    happi    happ                   Happily
    userid   useri                  user_id
    cafe     cafe                   CAF\u00c9
    use      " use", " usi"         re-use, using; a short one begins a word

Invariants:
- A pure function of text and query. A place is a guess, which the analysis of its text decides:
  most are right. Where a stemmer changes the beginning of words, as some of Dutch, a place is
  missing.
- No call of C reads more than BLOCK_CHARACTERS: it holds the interpreter for some microseconds.
- The cost is linear in the text: a term more adds a scan, up to _TERMS_MAX of them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, final
from unicodedata import category, normalize

from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.folding import folded
from amberdb.index.text.pieces import is_pictograph, is_run
from amberdb.index.text.query import Prefix, Term, TextQuery
from amberdb.index.text.scripts import IGNORED, PICTOGRAPH_ENDS
from amberdb.index.text.words import STOP, casefolded

BLOCK_CHARACTERS: Final = 1 << 14
_TERMS_MAX: Final = 16
"""More of them say little about where to look; the longest ones are looked for."""
_LETTERS_MAX: Final = 16
_SHORT: Final = 3
"""Letters of an anchor that many words have inside."""
_STEM_LETTERS: Final = 4
"""A longer stem is cut by a letter, since its last one may differ from that of the word."""

_ENDINGS: Final = (("ie", "yi"), ("e", "i"), ("i", "y"), ("y", "i"))
"""Of shorter stems, and what a word may have in their place: die, dying; use, using; try, tries."""

_JOINTS: Final = frozenset("-_.@'\u2019/:\\?&=%~")
_SIGNS: Final = frozenset("+#")
_IS_IGNORED: Final = re.compile(f"[{IGNORED}{PICTOGRAPH_ENDS}]").match
_IGNORED: Final = "\0"
_JOINT: Final = "\1"


class Place(NamedTuple):
    """A part of a text, and how many terms it may have."""

    terms: int
    start: int
    end: int


@final
class Anchors:
    """The anchors of one query."""

    def __init__(self, query: TextQuery) -> None:
        self._folds = _Folds.of(query.analyzer)
        groups = Counter(tuple(self._anchors_of(term)) for term in query.scored)
        groups.pop((), None)
        by_length = sorted(groups, key=lambda group: -max(map(len, group)))
        self._groups = [_Group(group, groups[group]) for group in by_length[:_TERMS_MAX]]
        self.count = _terms(self._groups)
        """The most terms that a place may have."""

    def places(self, text: str, start: int, size: int, overlap: int, least: int) -> list[Place]:
        """The places with more than `least` terms in the block of a text that begins at `start`,
        the best first. Each has up to `size` characters, and `overlap` of the next place."""
        end = min(start + BLOCK_CHARACTERS, len(text))
        block = self._folds.block(text[start : end + overlap])
        groups = [group for group in self._groups if group.is_in(block)]
        if _terms(groups) <= least:
            return []
        places = range(0, end - start, size)
        terms = [0] * len(places)
        for group in groups:
            for number in group.places_in(block, size, overlap, len(places)):
                terms[number] += group.terms
        found = [
            Place(most, start + first, start + min(first + size + overlap, len(block.text)))
            for first, most in zip(places, terms, strict=True)
            if most > least
        ]
        return sorted(found, key=lambda place: -place.terms)

    def _anchors_of(self, term: Term) -> Iterator[str]:
        if isinstance(term, Prefix):
            yield from self._cut(term.start)
            for stem in term.also:
                yield from self._anchors_of(stem)
            return
        term = term.removeprefix(STOP)
        if is_run(term) or is_pictograph(term) or not term.isalpha():
            yield from self._cut(term)
        elif len(term) > _STEM_LETTERS:
            yield from self._cut(term[:-1])
        else:
            yield from self._cut(term)
            for ending, other in _ENDINGS:
                if term.endswith(ending):
                    yield term.removesuffix(ending) + other

    def _cut(self, anchor: str) -> Iterator[str]:
        """An anchor as it is in a folded text."""
        block = self._folds.block(anchor)
        anchor = block.joined.strip()[:_LETTERS_MAX]
        if anchor:
            yield anchor


@final
class _Group:
    """The anchors of terms that have the same ones: the text has all of these terms or none."""

    def __init__(self, anchors: Sequence[str], terms: int) -> None:
        self.terms = terms
        self._anchors = list(dict.fromkeys(anchors))
        short = [each for each in self._anchors if len(each) <= _SHORT and each.isascii()]
        self._long = [each for each in self._anchors if each not in short]
        self._short = [f" {each}" for each in short]
        self._humps: list[str] = []
        """Short ones inside a name in camelCase."""
        if short and (len(short[0]) > 1 or short[0].isdigit()):
            self._humps = [short[0].title(), short[0].upper()]

    def is_in(self, block: "_Block") -> bool:
        return (
            _has_any(block.joined, self._long)
            or (bool(self._short) and _has_any(block.spaced, self._short))
            or _has_any(block.text, self._humps)
            or (block.is_expanded and _has_any(block.joined, self._anchors))
        )

    def places_in(self, block: "_Block", size: int, overlap: int, count: int) -> set[int]:
        """The numbers of the places with an anchor, in a block that has one."""
        found: set[int] = set()
        for text, anchors in (
            (block.folded, self._long),
            (block.spaced if self._short else "", self._short),
            (block.text, self._humps),
        ):
            for anchor in anchors:
                _add_places(found, text, anchor, size, overlap)
        found.discard(count)  # begins where the block ends
        # Else the anchor is across a joint, or a character that folds to none or several.
        return found or {
            number
            for number in range(count)
            if _has_any(block.part(number * size, (number + 1) * size + overlap), self._anchors)
        }


def _add_places(found: set[int], text: str, anchor: str, size: int, overlap: int) -> None:
    """Adds the numbers of the places in a text that have the anchor. Looks once into each."""
    at = text.find(anchor)
    while at >= 0:
        number, inside = divmod(at, size)
        found.add(number)
        if number and inside < overlap:
            found.add(number - 1)
        at = text.find(anchor, (number + 1) * size)


def _has_any(text: str, strings: Iterable[str]) -> bool:
    for string in strings:  # noqa: SIM110  any() takes four times as long
        if string in text:
            return True
    return False


def _terms(groups: Iterable[_Group]) -> int:
    return sum([group.terms for group in groups])


@final
class _Block:
    """A text, and how it is folded."""

    __slots__ = ("_replaced", "folded", "is_expanded", "joined", "text")

    def __init__(self, text: str, folded: str, replaced: Sequence[tuple[str, str]] = ()) -> None:
        self.text = text
        self.is_expanded = bool(replaced)
        self.folded = folded
        """Character by character: the place of each is that in the text."""
        self._replaced = [(_JOINT, ""), (_IGNORED, ""), *replaced]
        """Characters that fold to none or several, and what they fold to."""
        self.joined = self.part(0, len(folded))
        """Without the joints inside words."""

    @property
    def spaced(self) -> str:
        """A space, and the folded text with a space in place of each joint."""
        return f" {self.folded.replace(_JOINT, ' ')}"

    def part(self, start: int, end: int) -> str:
        """A part of `joined`."""
        part = self.folded[start:end]
        for character, replacement in self._replaced:
            if character in part:  # replace() takes much longer to see that it is not
                part = part.replace(character, replacement)
        return part


@final
class _Folds:
    """The folded form of each character under one analyzer. Thread-safe.

    Latin-1 is folded by bytes.translate. The others are looked up in a table of numbers, which is
    filled as they occur: character after character would take thirty times as long.
    """

    _SIZE: Final = 0x20000
    _RARE: Final = 0x3400  # the form of all characters past the table, and of those without room
    _UNKNOWN: Final = 0xFFFF
    _SEVERAL: Final = range(0xE000, 0xF900)  # each is the form of a character that folds to several

    def __init__(self, analyzer: Analyzer) -> None:
        import numpy as np  # only a search needs it

        self._analyzer = analyzer
        self._numbers = iter(self._SEVERAL)
        self._several: dict[int, str] = {}
        self._table = np.full(self._SIZE, self._UNKNOWN, np.uint16)
        self._table[-1] = self._RARE
        latin = [self._folded(chr(number)) for number in range(256)]
        is_byte = [len(form) == 1 and form < "\u0100" for form in latin]
        self._latin = bytes(
            ord(form) if fits else number
            for number, (form, fits) in enumerate(zip(latin, is_byte, strict=True))
        )
        self._latin_several = [
            (chr(number), form) for number, form in enumerate(latin) if not is_byte[number]
        ]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(analyzer: Analyzer) -> "_Folds":
        return _Folds(analyzer)

    def block(self, text: str) -> _Block:
        try:
            data = text.encode("latin-1")
        except UnicodeEncodeError:
            return self._wide(text)
        found = data.translate(self._latin).decode("latin-1")
        several = () if data.isascii() else self._latin_several
        return _Block(text, found, [each for each in several if each[0] in found])

    def _wide(self, text: str) -> _Block:
        import numpy as np

        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        found = self._table.take(codes, mode="clip")
        highest = int(found.max())
        if highest == self._UNKNOWN:
            for code in np.unique(codes[found == self._UNKNOWN]).tolist():
                self._table[code] = self._number(chr(code))
            found = self._table.take(codes, mode="clip")
            highest = int(found.max())
        several: list[tuple[str, str]] = []
        if highest >= self._SEVERAL.start:
            numbers = np.unique(found[found >= self._SEVERAL.start]).tolist()
            known = self._several
            several = [(chr(number), known[number]) for number in numbers if number in known]
        return _Block(text, found.tobytes().decode("utf-16-le"), several)

    def _number(self, character: str) -> int:
        form = self._folded(character)
        if len(form) == 1:
            number = ord(form)
            return number if number <= 0xFFFF else self._RARE + number % self._RARE
        number = next(self._numbers, self._RARE)
        if number != self._RARE:
            self._several[number] = form
        return number

    def _folded(self, character: str) -> str:
        """One character as the words with it are analyzed. Whatever separates words is a space."""
        if character in _JOINTS:
            return _JOINT
        pieces = self._analyzer.pieces(character)
        if pieces:
            text = normalize("NFD", folded(casefolded(" ".join(pieces))))
            return (
                normalize("NFC", "".join(each for each in text if not _is_mark(each))) or _IGNORED
            )
        if character in _SIGNS:
            return character
        return _IGNORED if _is_mark(normalize("NFKC", character)) else " "


def _is_mark(text: str) -> bool:
    """Whether it belongs to the character before it."""
    return all(category(each)[0] == "M" or _IS_IGNORED(each) for each in text)
