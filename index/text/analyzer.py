"""From text to terms, for documents and for queries.

The text is normalised (NFKC, casefold), then split into pieces; everything else separates them:

    word   letters and digits of scripts with spaces between words. Stemmed (Snowball), without
           stop words. Parts joined by `-`, `_`, `.` or `@` (gen-itgc, user_id, 3.14,
           lin@example.com) are a term each, and the whole without its joints is another term, so
           e-mail and email match each other. A whole of digits keeps its joints: 2024-05-01.
    run    Han, kana, Hangul, Thai and other scripts without spaces: each character is a term, and
           each pair of neighbours; with a segmenter, its words instead of the pairs.

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
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from operator import add
from typing import Any, Final, final

from amberdb.index.text import language_libraries as libraries
from amberdb.index.text.stopwords import STOP_WORDS
from amberdb.index.text.stopwords import VERSION as STOP_WORDS_VERSION

VERSION: Final = 1
"""The version of the rules in this module: increases with every change of them."""

TERM_BYTES_MAX: Final = 100
_DIGEST_BYTES: Final = 8
_CACHE_WORDS_MAX: Final = 50_000
_CACHE_CHARACTERS_MAX: Final = 40

# Scripts without spaces between words, without their digits and punctuation.
_HAN: Final = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"
)
_RUN: Final = _HAN + (
    "\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\uff66-\uff9f\u3105-\u312f\u31a0-\u31bf"
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa0-\uffdc"  # Hangul
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u103f\u1050-\u108f\u1780-\u17d3\u17d7"  # Myanmar, Khmer
)
# Marks that belong to the letter before them, and characters without width; \w matches neither.
_IGNORED: Final = "\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\ufeff"
_MARKS: Final = _IGNORED + (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a"
    "\u07a6-\u07b0\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd"
    "\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c-\u0a51\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd"
    "\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04\u0c3c-\u0c56\u0c81-\u0c83"
    "\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d57\u0d81-\u0d83\u0dca-\u0ddf\u0f71-\u0f84"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\u3099\u309a"
)
_APOSTROPHES: Final = "'\u2019\uff07"
_JOINTS: Final = "-_.@\uff0d\uff3f\uff0e\uff20"

# Possessive quantifiers, so that no text makes matching slow.
_WORD: Final = rf"[^\W_{_RUN}]++(?:[{_MARKS}]++[^\W_{_RUN}]*+)*+"
_PIECES: Final = re.compile(
    rf"[{_RUN}](?:[{_RUN}{_MARKS}]*+)|{_WORD}(?:[{_JOINTS}{_APOSTROPHES}]{_WORD})*+"
)
_ASCII_PIECES: Final = re.compile(r"[A-Za-z0-9]++(?:[-_.@'][A-Za-z0-9]++)*+")
_SPLIT_JOINTS: Final = re.compile(r"[-_.@]").split
_IS_RUN: Final = re.compile(rf"[{_RUN}]").match
_HAS_RUN: Final = re.compile(rf"[{_RUN}]").search
_IS_HAN: Final = re.compile(rf"[{_HAN}]+").fullmatch
# Most Chinese and Japanese text: nothing to normalise, nothing to compose.
_IS_PLAIN: Final = re.compile(r"[\u4e00-\u9fff\u3041-\u3096\u30a1-\u30fa\u30fc]+").fullmatch
_WITHOUT_WIDTH: Final = re.compile(rf"[{_IGNORED}]+")

# Endings that may follow a prefix in a word whose stem is shorter than the prefix.
_ENDINGS: Final = {
    "english": (
        *("s", "es", "d", "ed", "g", "ng", "ing", "y", "ly", "ty", "ity", "ies", "n", "on", "ion"),
        *("tion", "ation", "l", "al", "ally", "e", "er", "ers", "or", "ors", "nt", "ent", "ment"),
        *("ments", "t", "ss", "ess", "ness", "able", "ible", "ful"),
    )
}


def normalise(text: str) -> str:
    """NFKC, casefold, straight apostrophes, without zero-width characters. Idempotent."""
    if text.isascii():
        return text.lower()
    text = _WITHOUT_WIDTH.sub("", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'")


def located(text: str) -> Iterator[re.Match[str]]:
    """The places of the pieces of a text: Analyzer.pieces() of each match gives its pieces. It has
    several only when one character is normalised to several, as the fraction 1/2 is."""
    return (_ASCII_PIECES if text.isascii() else _PIECES).finditer(text)


def is_run(piece: str) -> bool:
    """Whether a piece is in a script without spaces; else it is a word."""
    return _IS_RUN(piece) is not None


@final
class Analyzer:
    """The analysis under given settings; Analyzer.of caches analyzers. Thread-safe.

    language           a Snowball language, in English; None: words are not stemmed
    stop_words         leave out the stop words of the language, if there is a list of them
    segmenter          "jieba", or None
    fold_traditional   traditional Chinese characters count as simplified ones

    Raises CollectionError for an unknown language, or when an extra is not installed.
    """

    __slots__ = (
        "_asked",
        "_canonical",
        "_fold",
        "_is_paired",
        "_segment",
        "_terms",
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
        self._words = _Words(stem, stops, keeps_apostrophes=language in (None, "english"))
        self._terms = _Cache(self._raw_terms)
        self._asked = _Cache(self._raw_asked)
        self._canonical = _Cache(self._raw_canonical)

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

    def terms(self, text: str) -> list[str]:
        """The terms of a document's text, with repeats, in order."""
        # No piece contains white space, so each part between white space is cached, punctuation
        # included: a third of the time of splitting into pieces first.
        return list(chain.from_iterable(map(self._terms.__getitem__, text.split())))

    def query_terms(self, text: str) -> list[str]:
        """The distinct terms that a query scores. Of a run only the pairs or words: single
        characters add cost and little relevance. A run of one character is that character."""
        return list(dict.fromkeys(chain.from_iterable(map(self._query_terms, self.pieces(text)))))

    def pieces(self, text: str) -> list[str]:
        """Words and runs of the text, normalised, in order."""
        return list(chain.from_iterable(map(self._pieces_of, _raw_pieces(text))))

    def asked(self, word: str) -> tuple[list[str], bool]:
        """query_terms() of a text without white space, and whether it has any pieces()."""
        asked: tuple[list[str], bool] = self._asked[word]
        return asked

    def canonical(self, text: str) -> str:
        """The pieces in the form in which phrases are compared: stems, stop words included, and
        runs, with a space before, between and after them."""
        return f" {' '.join(map(self._canonical.__getitem__, _raw_pieces(text)))} "

    def phrase(self, text: str) -> str:
        """The str that canonical(other) contains if and only if `other` has this phrase. A run at
        either end may continue in `other`; a word may not. "" when the text has no piece."""
        pieces = self.pieces(text)
        if not pieces:
            return ""
        start = "" if is_run(pieces[0]) else " "
        end = "" if is_run(pieces[-1]) else " "
        return f"{start}{' '.join(map(self._piece_canonical, pieces))}{end}"

    def phrase_terms(self, text: str) -> list[str]:
        """The distinct terms that every text with this phrase has."""
        terms: dict[str, None] = {}
        for piece in self.pieces(text):
            if not is_run(piece):
                terms.update(dict.fromkeys(self._words.stems(self._words.parts(piece))))
            elif self._segment or len(piece) == 1:
                terms.update(dict.fromkeys(piece))
            else:
                terms.update(dict.fromkeys(map(add, piece, piece[1:])))
        return list(terms)

    def prefix(self, text: str) -> tuple[str, tuple[str, ...]] | None:
        """For the query word*: the prefix of terms to look for, and whole terms in addition, since
        a stem may be shorter than the prefix. None when the text is not one word."""
        pieces = self.pieces(text)
        if len(pieces) != 1 or is_run(pieces[0]):
            return None
        word = _joined(self._words.parts(pieces[0]), pieces[0]).replace("'", "")
        endings = ("", *_ENDINGS.get(self.language or "", ()))
        stems = [self._words.stem(word + ending) for ending in endings]
        return word, tuple(dict.fromkeys(stem for stem in stems if not stem.startswith(word)))

    def _pieces_of(self, raw: str) -> list[str]:
        piece = raw if _IS_PLAIN(raw) else normalise(raw)
        if self._fold is not None and not piece.isascii():
            piece = self._fold(piece)
        return [piece] if _PIECES.fullmatch(piece) else _PIECES.findall(piece)

    def _raw_terms(self, text: str) -> list[str]:
        """terms() of a text without white space."""
        # Shortcuts for most words; the last line is the general case.
        if text.isascii() and text.isalnum():
            return self._words.stems([text.lower()])
        if self._is_paired and _IS_PLAIN(text):
            return [*text, *map(add, text, text[1:])]
        return list(chain.from_iterable(map(self._piece_terms, self.pieces(text))))

    def _raw_asked(self, word: str) -> tuple[list[str], bool]:
        return self.query_terms(word), bool(self.pieces(word))

    def _raw_canonical(self, raw: str) -> str:
        return " ".join(map(self._piece_canonical, self._pieces_of(raw)))

    def _query_terms(self, piece: str) -> Iterable[str]:
        return self._compounds(piece) if is_run(piece) and len(piece) > 1 else self._terms[piece]

    def _piece_terms(self, piece: str) -> Iterable[str]:
        if not is_run(piece):
            return self._words.terms(piece)
        return chain(piece, self._compounds(piece)) if len(piece) > 1 else piece

    def _compounds(self, run: str) -> Iterable[str]:
        """The terms of a run of several characters besides those characters: pairs, or words."""
        if self._segment is None or not _IS_HAN(run):
            return map(add, run, run[1:])
        return (_bounded(word) for word in self._segment(run) if len(word) > 1)

    def _piece_canonical(self, piece: str) -> str:
        if is_run(piece):
            return piece
        return " ".join(map(self._words.stem, self._words.parts(piece)))


def _raw_pieces(text: str) -> list[str]:
    """Words and runs before normalisation."""
    return (_ASCII_PIECES if text.isascii() else _PIECES).findall(text)


class _Words:
    """The analysis of one word: parts, stems, stop words."""

    __slots__ = ("_apart", "_stem", "_stops")

    def __init__(
        self,
        stem: libraries.Fold | None,
        stops: frozenset[str],
        *,
        keeps_apostrophes: bool,
    ) -> None:
        self._stem = stem
        self._stops = stops
        # English has don't and o'brien; elsewhere an apostrophe separates two words: l'ami.
        self._apart = not keeps_apostrophes

    def stem(self, part: str) -> str:
        """The term of one part, whether it is a stop word or not."""
        part = part.removesuffix("'s").replace("'", "")
        return _bounded((self._stem(part) if self._stem else part) or part)

    def wholes(self, word: str) -> list[str]:
        return word.split("'") if self._apart else [word]

    def parts(self, word: str) -> list[str]:
        """The parts of a word between its joints."""
        return [part for whole in self.wholes(word) for part in _SPLIT_JOINTS(whole)]

    def stems(self, parts: list[str]) -> list[str]:
        """The stems of the parts that are not stop words."""
        return [self.stem(part) for part in parts if part not in self._stops]

    def terms(self, word: str) -> list[str]:
        terms: list[str] = []
        for whole in self.wholes(word):
            parts = _SPLIT_JOINTS(whole)
            terms += self.stems(parts)
            if len(parts) > 1:
                terms.append(self.stem(_joined(parts, whole)))
        return terms


class _Cache(dict[str, Any]):
    """text -> make(text), cached for words: runs rarely repeat."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> Any:
        made = self._make(text)
        if len(text) <= _CACHE_CHARACTERS_MAX and not _HAS_RUN(text):
            if len(self) >= _CACHE_WORDS_MAX:
                self.clear()
            self[text] = made
        return made


def _joined(parts: list[str], word: str) -> str:
    """The whole of several parts: without joints, unless it is a number, a date or a version."""
    whole = "".join(parts)
    return word if whole.isdigit() else whole


def _bounded(term: str) -> str:
    """The term, cut to TERM_BYTES_MAX bytes."""
    if len(term) * 4 <= TERM_BYTES_MAX:
        return term
    data = term.encode()
    if len(data) <= TERM_BYTES_MAX:
        return term
    digest = blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
    return data[: TERM_BYTES_MAX - len(digest)].decode(errors="ignore") + digest
