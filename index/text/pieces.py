"""From text to pieces: the parts that are analyzed, each apart from the others.

The text is put into NFKC, then cut into pieces; everything else separates them:

    word         letters and digits of scripts with spaces between words, and the words that a
                 joint connects to it: gen-itgc, user_id, 3.14, lin@example.com, a URL, a path. A
                 dot before it and `+`, `++` or `#` after it belong to it: .NET, A+, C++, C#.
    run          Han, kana, Hangul, Thai and other scripts without spaces
    pictograph   an emoji or another sign, with its skin tone, and what is connected to it; a flag

Invariants:
- Cutting is linear in the text: all repetitions are possessive.
- No piece contains white space.
- A pure function of text and `unicodedata.unidata_version`.
"""

import re
from collections.abc import Iterator
from typing import Final, TypeAlias
from unicodedata import is_normalized, normalize

from amberdb.index.text.scripts import (
    COMPOSING,
    FLAG_LETTERS,
    IGNORED,
    MARKS,
    PICTOGRAPH_ENDS,
    PICTOGRAPHS,
    PLAIN_RUN,
    RUN,
)

Located: TypeAlias = tuple[int, int, str]
"""Start and end in a text, and the piece at this place."""

_LETTER: Final = rf"[^\W_{RUN}]"
_LINK: Final = r"[/:\\?&=%~#]"
_JOINT: Final = rf"(?:_++\.?|[-.@'\u2019]|{_LINK}{{1,3}}+(?:\.|_++)?)"
_WORD: Final = rf"{_LETTER}++(?:[{MARKS}]++{_LETTER}*+)*+"
_SIGN: Final = rf"(?:(?:\+\+|[\#\u266f])(?![^\W\d_{RUN}])|\+(?![^\W{RUN}]|\+))"
_DOT: Final = rf"(?:(?<![^\W{RUN}])(?<!\.)\.(?=[^\W\d_]))"
_PICTOGRAPH: Final = rf"[{PICTOGRAPHS}][{PICTOGRAPH_ENDS}]*+"
_PIECES: Final = re.compile(
    rf"[{RUN}][{RUN}{MARKS}]*+"
    r"|[0-9*\#]\ufe0f?+\u20e3"
    rf"|{_DOT}?{_WORD}{_SIGN}?(?:{_JOINT}{_WORD}{_SIGN}?)*+"
    rf"|[{FLAG_LETTERS}]{{2}}"
    rf"|{_PICTOGRAPH}(?:\u200d{_PICTOGRAPH})*+",
    re.VERBOSE,
)
_ASCII_SIGN: Final = r"(?:(?:\+\+|\#)(?![A-Za-z])|\+(?![\w+]))"
_ASCII_PIECES: Final = re.compile(
    rf"(?:(?<![\w.])\.(?=[A-Za-z]))?[A-Za-z0-9]++{_ASCII_SIGN}?"
    rf"(?:(?:_++\.?|[-.@']|{_LINK}{{1,3}}+(?:\.|_++)?)[A-Za-z0-9]++{_ASCII_SIGN}?)*+",
    re.VERBOSE,
)
"""The same for ASCII, in half of the time."""
PARTS: Final = re.compile(rf"({_DOT})?({_WORD}(?:['\u2019]{_WORD})*+)({_SIGN})?", re.VERBOSE)
"""In a word: the parts that joints connect; the groups are its dot, the part, and its sign."""
HAS_LINK: Final = re.compile(_LINK).search

IS_PLAIN_RUN: Final = re.compile(rf"[{PLAIN_RUN}]+").fullmatch
HAS_RUN: Final = re.compile(rf"[{RUN}]").search
_IS_RUN: Final = re.compile(rf"[{RUN}]").match
_IS_PICTOGRAPH: Final = re.compile(rf"[{PICTOGRAPHS}]|[0-9*#]\ufe0f?\u20e3").match
_IGNORED: Final = re.compile(rf"[{IGNORED}]+")
_SPACED: Final = re.compile(r"\S+")
_CLUSTERS: Final = re.compile(rf"[\s\S][{COMPOSING}]*+")

_ONE_TO_ONE: Final = (
    *(("\uff0c", ","), ("\uff01", "!"), ("\uff1f", "?"), ("\uff1a", ":"), ("\uff1b", ";")),
    *(("\uff08", "("), ("\uff09", ")"), ("\u3000", " "), ("\u2122", " "), ("\u2120", " ")),
)
"""Punctuation of Chinese and Japanese as NFKC has it: without it most of their texts are in NFKC.
The signs for trade marks would become letters of the word before them, and separate instead."""


def composed(text: str) -> str:
    """NFKC, without signs for trade marks. Idempotent."""
    if text.isascii() or is_normalized("NFKC", text):
        return text
    return normalize("NFKC", _one_to_one(text))


def pieces(text: str) -> list[str]:
    """The pieces of a text, in order, in its own case."""
    if text.isascii():
        return _ASCII_PIECES.findall(text)
    return _PIECES.findall(composed(text))


def located(text: str) -> Iterator[Located]:
    """The pieces of a text with their places. A character that NFKC takes apart is the place of all
    that comes of it."""
    if not text.isascii():
        text = _one_to_one(text)
        if not is_normalized("NFKC", text):
            yield from _located(text)
            return
    for match in (_ASCII_PIECES if text.isascii() else _PIECES).finditer(text):
        yield *match.span(), match[0]


def is_run(piece: str) -> bool:
    """Whether a piece is in a script without spaces."""
    return _IS_RUN(piece) is not None


def is_pictograph(piece: str) -> bool:
    return _IS_PICTOGRAPH(piece) is not None


def without_ignored(piece: str) -> str:
    """A piece without characters that have no width."""
    return normalize("NFKC", _IGNORED.sub("", piece))


def _one_to_one(text: str) -> str:
    for sign, replacement in _ONE_TO_ONE:
        text = text.replace(sign, replacement)
    return text


def _located(text: str) -> Iterator[Located]:
    """located() of a text that NFKC changes."""
    for spaced in _SPACED.finditer(text):
        whole = composed(spaced[0])
        clusters = [(*match.span(), composed(match[0])) for match in _CLUSTERS.finditer(spaced[0])]
        if "".join(cluster for _, _, cluster in clusters) != whole:
            clusters = [(0, len(spaced[0]), whole)]  # composed across clusters: rare
        places = [(start, end) for start, end, cluster in clusters for _ in cluster]
        for match in _PIECES.finditer(whole):
            start, end = places[match.start()][0], places[match.end() - 1][1]
            yield spaced.start() + start, spaced.start() + end, match[0]
