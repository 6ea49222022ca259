"""Search input made of everyday text: plain words, and vectors from an embedder that may fail.

Invariants:
- Search operators in the text (quotes, +must, -not, prefix*) have no effect.
- The embedder is called outside transactions. When it fails, the result is missing vectors and
  nothing else.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any, Final, cast

from amberdb import Embed

logger = logging.getLogger("amberdb.embedding")

CHARACTERS_MAX: Final = 1000
"""Longer queries are cut off here."""

_OPERATORS = re.compile(r'(?<!\S)[-+]+|["\u201c\u201d]|\*(?!\S)')


def plain_words(query: str) -> str:
    """The query without search operators; empty when no letter or digit is left."""
    words = _OPERATORS.sub(" ", query[:CHARACTERS_MAX])
    return words if any(map(str.isalnum, words)) else ""


def embed_texts(embed: Embed | None, texts: Sequence[str | None]) -> list[Any]:
    """A vector for each text; None for a text that is empty, without an embedder, and for all
    texts when the embedder fails."""
    vectors: list[Any] = [None] * len(texts)
    positions = [position for position, text in enumerate(texts) if text]
    if embed is None or not positions:
        return vectors
    try:
        embedded = embed([cast(str, texts[position]) for position in positions])
        for position, vector in zip(positions, embedded, strict=True):
            vectors[position] = vector
    except Exception as error:
        logger.warning("the embedder failed, vectors are added later: %s", error)
        return [None] * len(texts)
    return vectors
