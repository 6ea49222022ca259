"""Texts of items, and their vectors: what a store with an index embeds.

Invariants:
- Each text is embedded once in a batch, and the embedder is called outside of any transaction.
- Every text at a path has a vector of its own. A vector of zeros, which has no direction, is left
  out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from langgraph.store.base import (
    Embeddings,
    IndexConfig,
    Op,
    PutOp,
    SearchOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from amberdb import Vector

FIELD: Final = "vectors"
"""The field of an item that has its vectors."""
_METRICS: Final[Mapping[str, Any]] = {"cosine": "cosine", "l2": "l2", "inner_product": "ip"}

Vectors: TypeAlias = dict[str, Sequence[float]]
"""Vectors by their texts."""


class Embedder:
    """The `index` of a store: {"dims": 384, "embed": function, "fields": ["text"]}."""

    def __init__(self, index: IndexConfig) -> None:
        """Raises ValueError."""
        config = cast(dict[str, Any], index)
        if "dims" not in config:
            raise ValueError("index has no 'dims': the numbers of a vector of its embedder")
        distance = config.get("distance_type", "cosine")
        if distance not in _METRICS:
            raise ValueError(f"distance_type is one of {', '.join(_METRICS)}, not {distance!r}")
        self.embeddings: Embeddings = ensure_embeddings(config.get("embed"))
        fields = config.get("fields") or config.get("text_fields") or ["$"]
        self._paths = _tokenized([fields] if isinstance(fields, str) else fields)
        self.spec = Vector(FIELD, dim=config["dims"], metric=_METRICS[distance], multi=True)

    def texts(self, op: PutOp) -> list[str]:
        """The texts of an item that get a vector."""
        if op.value is None or op.index is False:
            return []
        paths = self._paths if op.index is None else _tokenized(op.index)
        return [text for path in paths for text in get_text_at_path(op.value, path)]

    def to_embed(self, ops: Iterable[Op]) -> list[str]:
        """The texts that a batch needs vectors of."""
        texts: list[str] = []
        for op in ops:
            if isinstance(op, PutOp):
                texts += self.texts(op)
            elif isinstance(op, SearchOp) and op.query:
                texts.append(op.query)
        return list(dict.fromkeys(texts))


def _tokenized(paths: Iterable[str]) -> list[Any]:
    return ["$" if path == "$" else tokenize_path(path) for path in paths]


def by_text(texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> Vectors:
    """Vectors by their texts. Raises ValueError for an embedder that returns too few."""
    return {
        text: vector
        for text, vector in zip(texts, vectors, strict=True)
        if any(number != 0 for number in vector)
    }
