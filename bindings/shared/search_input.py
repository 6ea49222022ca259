"""Search input of the systems: a text, or a query in the query language, and vectors from an
embedder that may fail.

Invariants:
- The embedder is called outside transactions. When it fails, the result is missing vectors and
  nothing else.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

from amberdb import Embed, QueryError

logger = logging.getLogger("amberdb.embedding")


def asked(text: str | None, query: str | None) -> dict[str, str]:
    """The argument of Collection.search() for a text, or for a query. Raises QueryError unless one
    of the two is given."""
    if (text is None) == (query is None):
        raise QueryError("give a text, any words, or query=, in the query language, and not both")
    for name, value in (("text", text), ("query", query)):
        if value is not None:
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise QueryError(f"{name} must be a str, not {type(value).__name__}")
            return {name: value}
    raise AssertionError("one is given")


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
