"""Vectors of a model behind the embeddings protocol of OpenAI, as servers of local models have it.

    list of texts -> POST {base_url}/embeddings -> a vector for each text, in the same order

Needs the extra `models` (httpx).

Invariants:
- An answer has one vector for each text, of numbers, all of one length; any other is requested
  again, and after the last attempt an EmbeddingError.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, final

import msgspec

from amberdb import EmbeddingError
from amberdb._shared.model_server import ATTEMPTS, TIMEOUT_S, ModelServer, TryAgain

BATCH: Final = 64
"""Texts in one request."""


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


@final
class EmbeddingEndpoint:
    """A function of texts, for `embed=`: `EmbeddingEndpoint("http://127.0.0.1:11434/v1", "model")`.
    Raises EmbeddingError."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.model = model
        self._server = ModelServer(
            f"{base_url.rstrip('/')}/embeddings",
            EmbeddingError,
            api_key=api_key,
            timeout_s=timeout_s,
            attempts=attempts,
            sleep=sleep,
        )

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            request = {"model": self.model, "input": batch, "encoding_format": "float"}
            vectors += self._server.ask(request, partial(_vectors, len(batch)))
        return vectors

    def dim(self) -> int:
        """The length of the model's vectors, which costs a request."""
        return len(self(["dimension"])[0])

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()


def _vectors(count: int, body: bytes) -> list[list[float]]:
    """The vectors of a body, in the order of the texts. Raises TryAgain."""
    try:
        items = msgspec.json.decode(body, type=_Answer).data
    except msgspec.MsgspecError as error:
        raise TryAgain(f"the answer is invalid ({error})") from error
    if all(item.index is not None for item in items):
        items.sort(key=lambda item: item.index or 0)
    lengths = {len(item.embedding) for item in items}
    if len(items) != count or len(lengths) > 1 or 0 in lengths:
        raise TryAgain(f"{len(items)} vectors of lengths {sorted(lengths)} for {count} texts")
    return [item.embedding for item in items]
