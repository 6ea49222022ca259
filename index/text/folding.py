"""Folding: words without the marks of their letters, so that cafe finds caf\u00e9.

Invariants:
- Idempotent. Letters of other scripts than Latin, Greek, Cyrillic, Hebrew and Arabic stay as they
  are, and so do Cyrillic letters that nobody writes without their mark.
"""

import re
from typing import Final
from unicodedata import normalize

from amberdb.index.text.scripts import FOLDED

_MARKS: Final = re.compile(rf"[{FOLDED}]+")
_KEPT: Final = "\u0439\u0457\u045e"
"""Short i, yi and short u are letters of their own."""
_LETTERS: Final = {
    "\u00e6": "ae", "\u0153": "oe", "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00f0": "d",
    "\u00fe": "th", "\u0127": "h", "\u0131": "i", "\u0167": "t", "\u0268": "i", "\u0180": "b",
    "\u03c2": "\u03c3",
}  # fmt: skip
"""Letters that do not decompose."""


class _Folds(dict[int, str]):
    """Character -> its folded form, for str.translate."""

    def __missing__(self, number: int) -> str:
        character = chr(number)
        folded = _LETTERS.get(character)
        if folded is None:
            bare = _MARKS.sub("", normalize("NFD", character))
            is_kept = character in _KEPT or (not bare and not _MARKS.match(character))
            folded = character if is_kept else normalize("NFC", bare)
        self[number] = folded
        return folded


_FOLDS: Final = _Folds()


def folded(word: str) -> str:
    """The word, casefolded and in NFKC, without the marks of its letters; a word of marks only as
    it is."""
    return word if word.isascii() else word.translate(_FOLDS) or word
