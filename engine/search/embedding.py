"""Embedding: documents that come with text get their vectors, before anything is locked.

A Vector index declared with `source` and `embed` is an embedder: what is stored with text in the
source field and without a vector gets one. The function is not stored: it is there from the
declaration in this process on. What has no vector all the same waits for embed_missing(), or with
`defer=True` for maintenance/embedding_backfill.py; index/vector/embedding_queue.py lists it.

Invariants:
- It is called outside the writer lock and outside of transactions, in batches, and never for a
  document that brings its vector.
- When it fails, nothing is stored and the error says so; with `defer=True` the document is stored
  without a vector, and waits.
- A vector is of the text that is beside it: a change of the text alone takes the old one out.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from amberdb._errors import EmbeddingError, InvalidDocumentError
from amberdb._types import Document
from amberdb.engine.schema.documents import REMOVE
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.index.paths import MISSING, Path
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector, coerce

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = "list[NDArray[np.float32]]"

logger = logging.getLogger("amberdb.engine")

BATCH: Final = 64


@final
class Embedder:
    """One declaration that came with a function."""

    def __init__(self, spec: Vector, schema: Schema) -> None:
        assert spec.source is not None
        assert spec.embed is not None
        self.spec = spec
        self.collection = schema.name
        self.text: Callable[[Document], str | None] = EmbeddingQueue.of(spec).compiled()
        """What is to be embedded of a document; None when there is nothing to do."""
        self.queue = next(q for q in schema.queues if q.spec == EmbeddingQueue.of(spec))
        self.failure: Exception | None = None
        """Of the last round in the background."""
        self._source = Path.of(spec.source)
        self._embed = spec.embed

    def is_source_of(self, patch: Mapping[str, Any]) -> bool:
        """Whether it says something of the text."""
        return self._source.get(dict(patch)) is not MISSING

    def vectors(self, texts: Sequence[str]) -> "Vectors":
        """One for each, of which the index takes every one. Raises EmbeddingError."""
        found: Vectors = []
        for start in range(0, len(texts), BATCH):
            found += self._batch(list(texts[start : start + BATCH]))
        return found

    def _batch(self, texts: list[str]) -> "Vectors":
        import numpy as np

        spec = self.spec
        try:
            vectors = np.asarray(self._embed(texts), np.float32)
        except Exception as error:
            raise EmbeddingError(
                f"the embedder of {spec.name} failed: {error}", index=spec.name
            ) from error
        if vectors.shape != (len(texts), spec.dim):
            raise EmbeddingError(
                f"the embedder of {spec.name} gave an array of shape {vectors.shape} for "
                f"{len(texts)} texts, and ({len(texts)}, {spec.dim}) was declared",
                index=spec.name,
            )
        try:
            return [coerce(vector, spec.field, spec.dim, spec.metric) for vector in vectors]
        except InvalidDocumentError as error:
            raise EmbeddingError(
                f"the embedder of {spec.name} gave what is no vector of it: {error.message}",
                index=spec.name,
            ) from error


@final
class Embedders:
    """Of an open database."""

    def __init__(self) -> None:
        self._by_collection: dict[str, list[Embedder]] = {}
        self._deferring: dict[bytes, Embedder] = {}
        self.on_pending: Callable[[], object] = _ignore
        """Called when a document may be pending for an embedder with `defer=True`."""

    def attach(self, schema: Schema, specs: Sequence[object]) -> None:
        """Takes the place of what the collection had."""
        found = [
            Embedder(spec, schema)
            for spec in specs
            if isinstance(spec, Vector) and spec.embed is not None
        ]
        self._by_collection[schema.name] = found
        self._note_deferring()

    def rename(self, old: str, schema: Schema) -> None:
        """Those of a collection that has another name now."""
        self.attach(schema, [each.spec for each in self._by_collection.pop(old, ())])

    def forget(self, collection: str) -> None:
        """Of one that is gone."""
        self._by_collection.pop(collection, None)
        self._note_deferring()

    def of(self, collection: str) -> Sequence[Embedder]:
        return self._by_collection.get(collection, ())

    def deferring(self) -> list[Embedder]:
        """Those that are tried again in the background."""
        return list(self._deferring.values())

    def failure_of(self, queue: CompiledIndex) -> str | None:
        """Why documents of a queue still wait, as far as is known."""
        embedder = self._deferring.get(queue.prefix)
        return str(embedder.failure) if embedder is not None and embedder.failure else None

    def note(self, effects: Effects) -> None:
        """After a commit."""
        queues = self._deferring
        if queues and any(
            value is not None and key[:KEYSPACE_BYTES] in queues for key, value in effects.items()
        ):
            self.on_pending()

    def filled(
        self, collection: str, documents: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """The documents, with vectors where an embedder can give some. Raises EmbeddingError."""
        for embedder in self.of(collection):
            texts = {
                at: text
                for at, document in enumerate(documents)
                if (text := embedder.text(dict(document))) is not None
            }
            if not texts:
                continue
            try:
                vectors = embedder.vectors(list(texts.values()))
            except EmbeddingError as error:
                if not embedder.spec.defer:
                    raise
                logger.warning("%s: stored without vectors: %s", collection, error)
                continue
            documents = list(documents)
            for at, vector in zip(texts, vectors, strict=True):
                documents[at] = {**documents[at], embedder.spec.field: vector}
        return documents

    def freed(self, collection: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The patch; where it has a text and brings no vector, the old one goes."""
        for embedder in self.of(collection):
            if embedder.is_source_of(patch) and embedder.spec.field not in patch:
                patch = {**patch, embedder.spec.field: REMOVE}
        return patch

    # -- inside ------------------------------------------------------------------------------

    def _note_deferring(self) -> None:
        self._deferring = {
            each.queue.prefix: each
            for embedders in self._by_collection.values()
            for each in embedders
            if each.spec.defer
        }
        if self._deferring:
            self.on_pending()


def _ignore() -> None:
    pass
