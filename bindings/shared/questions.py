"""Questions in everyday words, and what a search is asked in their place.

Invariants:
- A question is words: quotes and signs in it ask for nothing special.
- An embedder is called outside of transactions. One that fails costs vectors and nothing else.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any, Final, cast

from amberdb.index.vector.vector import Embed

logger = logging.getLogger("amberdb")

SIGNS_MAX: Final = 1000
"""Of a question, how many count."""

_SIGNS = re.compile(r'(?<!\S)[-+]+|["\u201c\u201d]|\*(?!\S)')
"""What a search takes for more than words."""


def words(question: str) -> str:
    """What to search for; empty when there is no word in it."""
    found = _SIGNS.sub(" ", question[:SIGNS_MAX])
    return found if any(map(str.isalnum, found)) else ""


def vectors(embed: Embed | None, texts: Sequence[str | None]) -> list[Any]:
    """One for each text, None where there is none to be had."""
    found: list[Any] = [None] * len(texts)
    places = [at for at, text in enumerate(texts) if text]
    if embed is None or not places:
        return found
    try:
        made = embed([cast(str, texts[at]) for at in places])
        for at, vector in zip(places, made, strict=True):
            found[at] = vector
    except Exception as error:
        logger.warning("the embedder failed, memories get their vectors later: %s", error)
        return [None] * len(texts)
    return found
