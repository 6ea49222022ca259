"""The languages of the pages: one catalogue each, texts/<code>.json, from key to text.

Invariants:
- All catalogues have the same keys, and each text the same names in braces.
- A text is put into a page as text: what is put into its braces is escaped with it.
"""

import json
import re
from functools import cache
from importlib import resources
from typing import Final, cast

LANGUAGES: Final = {"en": "English", "zh": "\u4e2d\u6587"}
"""By code, each by its own name."""
DEFAULT: Final = "en"
_QUALITY: Final = re.compile(r"^\s*([A-Za-z-]+|\*)\s*(?:;\s*q=([01](?:\.\d+)?)\s*)?$")


@cache
def catalogue(language: str) -> dict[str, str]:
    """The texts of a language, by key."""
    file = resources.files(__package__ or "").joinpath("texts", f"{language}.json")
    return cast(dict[str, str], json.loads(file.read_text(encoding="utf-8")))


def text_of(language: str, key: str, **values: object) -> str:
    """The text of a key with values in its braces. Raises KeyError for a key that there is not."""
    text = catalogue(language)[key]
    return text.format_map(values) if values else text


def preferred(accept_language: str) -> str:
    """The language of an Accept-Language header."""
    best, best_quality = DEFAULT, 0.0
    for part in accept_language.split(","):
        found = _QUALITY.match(part)
        if found is None:
            continue
        code, quality = found[1].lower().partition("-")[0], float(found[2] or 1)
        if code in LANGUAGES and quality > best_quality:
            best, best_quality = code, quality
    return best
