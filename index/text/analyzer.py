"""From text to terms, for documents and for queries.

pieces.py cuts a text into pieces, and each gives its own terms:

    word         its parts and its wholes, stemmed (Snowball), and variants: words.py. Stop words
                 have terms of their own, which a query of nothing else asks for.
    run          each character is a term, and each pair of neighbours; with a segmenter, its words
                 instead of the pairs
    pictograph   itself, and as variants what it is made of: a thumb with a skin tone is a thumb

Invariants:
- Terms are a pure function of the text and of `identity`, which names the version of every part of
  the analysis. An index built under another identity has to be rebuilt.
- A term has 1 to TERM_BYTES_MAX bytes of UTF-8 and no NUL. A longer term is cut and ends in a
  digest of the whole.
- The query terms of a text are among its terms: a document matches its own words.
- Caches are bounded, and every cached value can be computed again.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain
from operator import add
from typing import Any, Final, final

from amberdb.index.text import language_libraries as libraries
from amberdb.index.text import pieces
from amberdb.index.text.pieces import is_run
from amberdb.index.text.scripts import HAN, PICTOGRAPH_ENDS
from amberdb.index.text.stopwords import STOP_WORDS
from amberdb.index.text.stopwords import VERSION as STOP_WORDS_VERSION
from amberdb.index.text.words import STOP, Terms, Words, bounded

VERSION: Final = 2
"""The version of the rules of the analysis: increases with every change of them."""

_CACHE_WORDS_MAX: Final = 50_000
_CACHE_CHARACTERS_MAX: Final = 40
_CACHE_RUNS_MAX: Final = 10_000
_CACHE_RUN_CHARACTERS_MAX: Final = 4
"""In Chinese articles half of the runs are this short, and two of five of those come again; of
longer ones a quarter does, and each takes 170 bytes a character."""

_IS_HAN: Final = re.compile(rf"[{HAN}]+").fullmatch
_DRAWN: Final = re.compile("[\ufe0e\ufe0f]+")
_BASES: Final = re.compile(rf"[{PICTOGRAPH_ENDS}\u200d\u20e3]+").split


@final
class Analyzer:
    """The analysis under given settings; Analyzer.of caches analyzers. Thread-safe.

    language           a Snowball language, in English; None: words are not stemmed
    stop_words         tell the stop words of the language, if there is a list of them, from words
    segmenter          "jieba", or None
    fold_traditional   traditional Chinese characters count as simplified ones

    Raises CollectionError for an unknown language, or when an extra is not installed.
    """

    __slots__ = (
        "_asked",
        "_canonical",
        "_fold",
        "_is_paired",
        "_known",
        "_segment",
        "_words",
        "identity",
        "language",
    )

    identity: str
    """Names and versions of the rules, the libraries and Unicode."""
    language: str | None

    def __init__(
        self,
        language: str | None = "english",
        stop_words: bool = True,
        segmenter: str | None = None,
        fold_traditional: bool = False,
    ) -> None:
        versions = [f"amberdb={VERSION}", f"unicode={unicodedata.unidata_version}"]
        self.language = language
        stem: libraries.Fold | None = None
        stops: frozenset[str] = frozenset()
        if language is not None:
            stem, version = libraries.stemmer(language)
            versions.append(f"{language}={version}")
            if stop_words and language in STOP_WORDS:
                stops = STOP_WORDS[language]
                versions.append(f"stop_words={STOP_WORDS_VERSION}")
        self._segment: libraries.Segment | None = None
        if segmenter is not None:
            self._segment, version = libraries.segmenter(segmenter)
            versions.append(f"{segmenter}={version}")
        self._fold: libraries.Fold | None = None
        if fold_traditional:
            self._fold, version = libraries.simplifier()
            versions.append(f"opencc={version}")
        self.identity = " ".join(versions)
        self._is_paired = self._segment is None and self._fold is None
        self._words = Words(language, stem, stops)
        self._known = _Known(self._part_terms, self._is_paired)
        self._asked = _Cache(self._raw_asked)
        self._canonical = _Cache(self._piece_canonical)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(
        language: str | None = "english",
        stop_words: bool = True,
        segmenter: str | None = None,
        fold_traditional: bool = False,
    ) -> "Analyzer":
        """Analyzer() with these settings, from a cache."""
        return Analyzer(language, stop_words, segmenter, fold_traditional)

    def terms(self, text: str) -> Terms:
        """The terms of a document's text. Of parts that repeat a stop word counts once."""
        known = self._known_parts()
        # No piece contains white space, so each part between white space is cached, punctuation
        # included: a third of the time of splitting into pieces first.
        parts = text.split()
        if not text.isascii() and pieces.HAS_RUN(text):
            parts = [
                piece
                for part in parts
                for piece in ((part,) if part.isascii() and part.isalnum() else pieces.pieces(part))
            ]
        words = list(chain.from_iterable(map(known.__getitem__, parts)))
        variants: list[str] = []
        if not known.variants.keys().isdisjoint(parts):
            variants = _chained(known.variants.get(part, ()) for part in parts)
        stops = dict.fromkeys(filter(known.stop_words.__contains__, parts))
        return Terms(words, variants, _chained(map(known.stop_words.__getitem__, stops)))

    def part_terms(self, part: str) -> list[str]:
        """The terms of a text without white space, variants and stop words included."""
        known = self._known_parts()
        words = known[part]
        if part in known.variants or part in known.stop_words:
            return [*words, *known.variants.get(part, ()), *known.stop_words.get(part, ())]
        return words

    def query_terms(self, text: str) -> list[str]:
        """The distinct terms that a query scores, stop words only without any other. Of a run only
        the pairs or words: single characters add cost and little relevance. A run of one character
        is that character."""
        terms, stop_words = self._raw_asked(text)
        return terms or stop_words

    def asked(self, word: str) -> tuple[list[str], list[str]]:
        """The distinct terms of a text without white space that a query scores, and its stop words.
        Without either the text has no piece."""
        asked: tuple[list[str], list[str]] = self._asked[word]
        return asked

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text in order, as they are analyzed."""
        return list(chain.from_iterable(map(self._analyzed, pieces.pieces(text))))

    def canonical(self, text: str) -> str:
        """The pieces in the form in which phrases are compared: stems, stop words included, and
        runs, with a space before, between and after them."""
        return f" {' '.join(map(self._canonical.__getitem__, pieces.pieces(text)))} "

    def phrase(self, text: str) -> str:
        """The str that canonical(other) contains if and only if `other` has this phrase. A run at
        either end may continue in `other`; a word may not. "" when the text has no piece."""
        found = self.pieces(text)
        if not found:
            return ""
        start = "" if is_run(found[0]) else " "
        end = "" if is_run(found[-1]) else " "
        return f"{start}{' '.join(map(self._piece_canonical, found))}{end}"

    def phrase_terms(self, text: str) -> list[str]:
        """The distinct terms that every text with this phrase has; those of stop words only
        without any other."""
        terms = _distinct(map(self._phrase_terms, self.pieces(text)))
        return [term for term in terms if not term.startswith(STOP)] or terms

    def prefix(self, text: str) -> tuple[str, tuple[str, ...]] | None:
        """For the query word*: the prefix of terms to look for, and whole terms in addition, since
        a stem may be shorter than the prefix. None when the text is not one word."""
        found = self.pieces(text)
        if len(found) != 1 or is_run(found[0]) or pieces.is_pictograph(found[0]):
            return None
        return self._words.prefix(found[0])

    def _known_parts(self) -> "_Known":
        known = self._known
        if known.is_full:
            known = self._known = _Known(self._part_terms, self._is_paired)
        return known

    def _analyzed(self, piece: str) -> list[str]:
        """A piece of the text in the form in which it is analyzed, which may be several pieces."""
        if pieces.IS_PLAIN_RUN(piece):
            return [piece] if self._fold is None else [self._fold(piece)]
        if piece.isascii():
            return [piece]
        if pieces.is_pictograph(piece):
            return [_DRAWN.sub("", piece)]
        piece = pieces.without_ignored(piece)
        if self._fold is not None:
            piece = self._fold(piece)
        return pieces.pieces(piece)

    def _part_terms(self, part: str) -> Terms:
        """The terms of a part of a text without white space."""
        # A shortcut for most parts; the last line is the general case.
        if part.isascii() and part.isalnum():
            return self._words.terms(part)
        found = [self._piece_terms(piece) for piece in self.pieces(part)]
        return Terms(*map(_chained, zip(*found, strict=True))) if found else Terms([], [], [])

    def _piece_terms(self, piece: str) -> Terms:
        if is_run(piece):
            return Terms([*piece, *self._compounds(piece)], [], [])
        if pieces.is_pictograph(piece):
            return _pictograph_terms(piece)
        return self._words.terms(piece)

    def _raw_asked(self, text: str) -> tuple[list[str], list[str]]:
        terms = list(map(self._asked_terms, self.pieces(text)))
        return (
            _distinct(chain.from_iterable((each.words, each.variants) for each in terms)),
            _distinct(each.stop_words for each in terms),
        )

    def _asked_terms(self, piece: str) -> Terms:
        """The terms of a piece that a query scores."""
        if is_run(piece) and len(piece) > 1:
            return Terms(list(self._compounds(piece)), [], [])
        if is_run(piece) or pieces.is_pictograph(piece):
            return self._piece_terms(piece)
        return self._words.terms(piece, asked=True)

    def _phrase_terms(self, piece: str) -> Iterable[str]:
        if not is_run(piece):
            return map(bounded, self._canonical_parts(piece))
        return piece if self._segment or len(piece) == 1 else map(add, piece, piece[1:])

    def _compounds(self, run: str) -> Iterable[str]:
        """The terms of a run of several characters besides those characters: pairs, or words."""
        if self._segment is None or not _IS_HAN(run):
            return map(add, run, run[1:])
        return (bounded(word) for word in self._segment(run) if len(word) > 1)

    def _piece_canonical(self, piece: str) -> str:
        return " ".join(chain.from_iterable(map(self._canonical_parts, self._analyzed(piece))))

    def _canonical_parts(self, piece: str) -> Iterable[str]:
        if is_run(piece) or pieces.is_pictograph(piece):
            return (piece,)
        return self._words.canonical(piece)


def _pictograph_terms(piece: str) -> Terms:
    """The terms of a pictograph: itself, and what it is made of."""
    bases = [base for base in _BASES(piece) if base not in ("", piece)]
    return Terms([bounded(piece)], bases, [])


@final
class _Known(dict[str, list[str]]):
    """The words of parts of texts, cached for short runs and for parts without a run: longer runs
    rarely repeat.

    It only grows, so that a reader finds the variants and the stop words of each part that it has
    looked up; one that is full is replaced.
    """

    __slots__ = ("_is_paired", "_left", "_make", "_runs_left", "stop_words", "variants")

    def __init__(self, make: Callable[[str], Terms], is_paired: bool) -> None:
        """`is_paired`: the terms of a run are its characters and its pairs."""
        super().__init__()
        self._make = make
        self._is_paired = is_paired
        self._left = _CACHE_WORDS_MAX
        self._runs_left = _CACHE_RUNS_MAX
        self.variants: dict[str, list[str]] = {}
        self.stop_words: dict[str, list[str]] = {}
        """Both only of parts that have some."""

    @property
    def is_full(self) -> bool:
        return self._left <= 0

    def __missing__(self, part: str) -> list[str]:
        if self._is_paired and pieces.IS_PLAIN_RUN(part):
            words = [*part, *map(add, part, part[1:])]
            if len(part) <= _CACHE_RUN_CHARACTERS_MAX and self._runs_left:
                self[part] = words
                self._runs_left -= 1
            return words
        words, variants, stop_words = self._make(part)
        if pieces.HAS_RUN(part):
            return words
        if variants:
            self.variants[part] = variants
        if stop_words:
            self.stop_words[part] = stop_words
        self[part] = words
        self._left -= 1 + len(part) // _CACHE_CHARACTERS_MAX
        return words


class _Cache(dict[str, Any]):
    """text -> make(text), cached for words and short runs: longer runs rarely repeat."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> Any:
        made = self._make(text)
        limit = _CACHE_RUN_CHARACTERS_MAX if pieces.HAS_RUN(text) else _CACHE_CHARACTERS_MAX
        if len(text) <= limit:
            if len(self) >= _CACHE_WORDS_MAX:
                self.clear()
            self[text] = made
        return made


def _chained(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(chain.from_iterable(lists))


def _distinct(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(lists)))
