"""Classes of characters, as the inside of a character class of `re`.

Invariants:
- RUN, MARKS and PICTOGRAPHS are disjoint.
"""

from typing import Final

HAN: Final = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"
)
RUN: Final = HAN + (
    "\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\uff66-\uff9f\u3105-\u312f\u31a0-\u31bf"
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb\uffa0-\uffdc"  # Hangul
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u103f\u1050-\u108f\u1780-\u17d3\u17d7"  # Myanmar, Khmer
)
"""Scripts without spaces between words, without their digits and punctuation."""

PLAIN_RUN: Final = "\u4e00-\u9fff\u3041-\u3096\u30a1-\u30fa\u30fc"
"""Most Chinese and Japanese characters: NFKC neither changes nor composes them."""

IGNORED: Final = "\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\ufeff"
"""Without width: they are in words, and say nothing about them."""

_ACCENTS: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0"
)
FOLDED: Final = _ACCENTS + "\u0640"
"""Marks of Latin, Greek, Cyrillic, Hebrew and Arabic letters, which many people leave out, and the
Arabic letter that only stretches a word."""

MARKS: Final = (
    IGNORED
    + _ACCENTS
    + (
        "\u0711\u0730-\u074a"
        "\u07a6-\u07b0\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd"
        "\u09d7\u09e2\u09e3\u0a01-\u0a03\u0a3c-\u0a51\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd"
        "\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04\u0c3c-\u0c56\u0c81-\u0c83"
        "\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d57\u0d81-\u0d83\u0dca-\u0ddf\u0f71-\u0f84"
        "\u3099\u309a"
    )
)
"""They belong to the letter before them; \\w matches none of them."""

COMPOSING: Final = MARKS + "\u0e31-\u0e4e\u1161-\u11ff\ud7b0-\ud7fb\uff9e\uff9f\uffa0-\uffdc"
"""Characters that NFKC may compose with the character before them."""

FLAG_LETTERS: Final = "\U0001f1e6-\U0001f1ff"
PICTOGRAPHS: Final = (
    "\u00a9\u00ae\u2194-\u2199\u21a9\u21aa\u2300-\u23ff\u25a0-\u266e\u2670-\u2775"
    "\u2794-\u27bf\u2934\u2935\u2b00-\u2bff\u303d\U0001f000-\U0001f0ff"
    "\U0001f10d-\U0001faff"
)
"""Emoji, dingbats and other signs that people mark texts with; no arrows, lines or boxes of text
drawings."""

PICTOGRAPH_ENDS: Final = "\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"
"""After a pictograph: how it is drawn, the tone of its skin, the region of a flag."""
