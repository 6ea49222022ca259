"""Embedding: vectors for documents that are written with text and without a vector.

A Vector index declared with `source` and `embed` has an embedder: a document with text in the
source field and without a vector gets one before it is stored. The function is not stored; it is
known to the process that made the declaration. A document that is stored without a vector is
pending (index/vector/embedding_queue.py) until embed_missing() or, with `defer=True`, the
background thread (maintenance/embedding_backfill.py) embeds it.

Invariants:
- The function is called outside the writer lock and outside transactions, in batches, and never
  for a document that has a vector.
- When it fails, the write fails and stores nothing; with `defer=True` the document is stored
  without a vector, and is pending.
- A stored vector belongs to the text beside it: a change of the text alone removes the old vector.
- With `multi`, a document with a list of texts gets as many vectors, in the same order.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from amberdb._errors import EmbeddingError, InvalidDocumentError
from amberdb._types import Document
from amberdb.engine.schema.documents import REMOVE
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.patch import Changes
from amberdb.engine.schema.schema import Schema
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.index.paths import Path
from amberdb.index.vector.coercion import coerce
from amberdb.index.vector.embedding_queue import EmbeddingQueue, Texts
from amberdb.index.vector.vector import Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = "list[NDArray[np.float32]]"

logger = logging.getLogger("amberdb.engine")

BATCH: Final = 64
"""The most texts in one call of an embedding function."""


@final
class Embedder:
    """A Vector index declared with an embedding function, in one collection."""

    def __init__(self, spec: Vector, schema: Schema) -> None:
        assert spec.source is not None
        assert spec.embed is not None
        self.spec = spec
        self.collection = schema.name
        self.text: Callable[[Document], Texts | None] = EmbeddingQueue.of(spec).compiled()
        """The text or texts of a document that needs a vector; None if it has no text, or has a
        vector."""
        self.queue = next(q for q in schema.queues if q.spec == EmbeddingQueue.of(spec))
        self.failure: Exception | None = None
        """The error of the last attempt in the background; None after a success."""
        self.source = Path.of(spec.source)
        self.field = Path.of(spec.field)
        self._embed = spec.embed

    def vectors(self, documents: Sequence[Texts]) -> "Vectors":
        """The valid value of the vector field for the text, or texts, of each document. Raises
        EmbeddingError."""
        lists = [[texts] if isinstance(texts, str) else texts for texts in documents]
        flat = list(chain.from_iterable(lists))
        vectors: Vectors = []
        for start in range(0, len(flat), BATCH):
            vectors += self._batch(flat[start : start + BATCH])
        if not self.spec.multi:
            return vectors
        remaining = iter(vectors)
        return [self.spec.coerced(list(islice(remaining, len(texts)))) for texts in lists]

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
                f"the embedder of {spec.name} returned an array of shape {vectors.shape} for "
                f"{len(texts)} texts; the declaration needs ({len(texts)}, {spec.dim})",
                index=spec.name,
            )
        try:
            return [coerce(vector, spec.field, spec.dim, spec.metric) for vector in vectors]
        except InvalidDocumentError as error:
            raise EmbeddingError(
                f"the embedder of {spec.name} returned an invalid vector: {error.message}",
                index=spec.name,
            ) from error


@final
class Embedders:
    """The embedders of an open database, by collection."""

    def __init__(self) -> None:
        self._by_collection: dict[str, list[Embedder]] = {}
        self._deferring: dict[bytes, Embedder] = {}
        self.on_pending: Callable[[], object] = _ignore
        """Called when a document may be pending for an embedder with `defer=True`."""

    def attach(self, schema: Schema, specs: Sequence[object]) -> None:
        """Replaces the embedders of a collection by those of the given index declarations. One
        that is declared again without a function keeps that which it has."""
        known = {embedder.spec: embedder.spec for embedder in self.of(schema.name)}
        given = [spec for spec in specs if isinstance(spec, Vector)]
        self._by_collection[schema.name] = [
            Embedder(spec, schema)
            for spec in (known.get(spec, spec) if spec.embed is None else spec for spec in given)
            if spec.embed is not None
        ]
        self._note_deferring()

    def rename(self, old: str, schema: Schema) -> None:
        """Moves the embedders of a renamed collection to its new schema."""
        self.attach(schema, [embedder.spec for embedder in self._by_collection.pop(old, ())])

    def forget(self, collection: str) -> None:
        """Removes the embedders of a dropped collection."""
        self._by_collection.pop(collection, None)
        self._note_deferring()

    def of(self, collection: str) -> Sequence[Embedder]:
        """The embedders of a collection; empty without one."""
        return self._by_collection.get(collection, ())

    def deferring(self) -> list[Embedder]:
        """The embedders with `defer=True`, which the background thread retries."""
        return list(self._deferring.values())

    def is_deferring(self, embedder: Embedder) -> bool:
        """Whether it is one of deferring()."""
        return self._deferring.get(embedder.queue.prefix) is embedder

    def failure_of(self, queue: CompiledIndex) -> str | None:
        """The last error of the background thread for the pending documents of a queue; None
        without one."""
        embedder = self._deferring.get(queue.prefix)
        return str(embedder.failure) if embedder is not None and embedder.failure else None

    def note(self, effects: Effects) -> None:
        """Calls on_pending() if a commit with these effects added a pending document."""
        queues = self._deferring
        if queues and any(
            value is not None and key[:KEYSPACE_BYTES] in queues for key, value in effects.items()
        ):
            self.on_pending()

    def with_vectors(
        self, collection: str, documents: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """The documents, each with a vector for every embedder whose text it has. Raises
        EmbeddingError."""
        for embedder in self.of(collection):
            texts = {
                position: text
                for position, document in enumerate(documents)
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
            for position, vector in zip(texts, vectors, strict=True):
                documents[position] = {**documents[position], embedder.spec.field: vector}
        return documents

    def patched(self, collection: str, patch: Changes, embedded: Mapping[str, Any]) -> Changes:
        """The patch with the vectors in `embedded`, the fields that it sets. Where it changes a
        source field and there is no vector, it also removes the old vector."""
        for field, vector in self.vectors_of(collection, patch, embedded).items():
            patch = patch.and_set(Path.of(field), vector)
        return patch

    def vectors_of(
        self, collection: str, patch: Changes, embedded: Mapping[str, Any]
    ) -> dict[str, Any]:
        """By field what patched() adds to a patch: a vector, or REMOVE."""
        return {
            embedder.spec.field: embedded.get(embedder.spec.field, REMOVE)
            for embedder in self.of(collection)
            if patch.touches(embedder.source) and not patch.touches(embedder.field)
        }

    # -- inside ------------------------------------------------------------------------------

    def _note_deferring(self) -> None:
        self._deferring = {
            embedder.queue.prefix: embedder
            for embedders in self._by_collection.values()
            for embedder in embedders
            if embedder.spec.defer
        }
        if self._deferring:
            self.on_pending()


def _ignore() -> None:
    """The default of Embedders.on_pending."""
