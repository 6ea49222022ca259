"""Embedding: documents that come with text get their vectors, before anything is locked.

A Vector index declared with `source` and `embed` is an embedder: what is stored with text in the
source field and without a vector gets one. The function is not stored: it is there from the
declaration in this process on.

Invariants:
- It is called outside the writer lock and outside of transactions, in batches, and never for a
  document that brings its vector.
- When it fails, nothing is stored and the error says so; with `defer=True` the document is stored
  without a vector, and embed_missing() gives it one later.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, final

from amberdb._errors import ConflictError, EmbeddingError, MissingKeyError
from amberdb._types import Document
from amberdb.index.vector import Vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amberdb.engine.collection import Collection

logger = logging.getLogger("amberdb.engine")

BATCH: Final = 64


@final
class Embedders:
    """Of an open database: by collection, the declarations that came with a function."""

    def __init__(self) -> None:
        self._by_collection: dict[str, list[Vector]] = {}

    def attach(self, name: str, specs: Sequence[object]) -> None:
        """Takes the place of what the collection had."""
        found = [spec for spec in specs if isinstance(spec, Vector) and spec.embed is not None]
        self._by_collection[name] = found

    def filled(
        self, name: str, documents: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """The documents, with vectors where an embedder can give some. Raises EmbeddingError."""
        for spec in self._by_collection.get(name, ()):
            places = [at for at, document in enumerate(documents) if _lacks(spec, document)]
            if not places:
                continue
            try:
                vectors = self._vectors(spec, [documents[at] for at in places])
            except EmbeddingError as error:
                if not spec.defer:
                    raise
                logger.warning("%s: stored without vectors: %s", name, error)
                continue
            documents = list(documents)
            for at, vector in zip(places, vectors, strict=True):
                documents[at] = {**documents[at], spec.field: vector}
        return documents

    def fill_missing(self, collection: "Collection", progress: Callable[[int], None] | None) -> int:
        count = 0
        for spec in self._by_collection.get(collection.name, ()):
            lacking = (each for each in collection.documents() if _lacks(spec, each))
            for batch in _batches(lacking):
                for document, vector in zip(batch, self._vectors(spec, batch), strict=True):
                    count += _fill(collection, spec, document, vector)
                if progress is not None:
                    progress(count)
        return count

    def _vectors(
        self, spec: Vector, documents: Sequence[Mapping[str, Any]]
    ) -> "Iterator[NDArray[np.float32]]":
        """One for each document. Raises EmbeddingError."""
        import numpy as np

        texts = [str(document[spec.source or ""]) for document in documents]
        assert spec.embed is not None
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(texts), BATCH):
            some = texts[start : start + BATCH]
            try:
                vectors = np.asarray(spec.embed(some), np.float32)
            except Exception as error:
                raise EmbeddingError(
                    f"the embedder of {spec.name} failed, so nothing was stored: {error}",
                    index=spec.name,
                ) from error
            if vectors.shape != (len(some), spec.dim):
                raise EmbeddingError(
                    f"the embedder of {spec.name} gave an array of shape {vectors.shape} for "
                    f"{len(some)} texts, and ({len(some)}, {spec.dim}) was declared",
                    index=spec.name,
                )
            found.extend(vectors)
        return iter(found)


def _lacks(spec: Vector, document: Mapping[str, Any]) -> bool:
    text = document.get(spec.source or "")
    return isinstance(text, str) and bool(text) and document.get(spec.field) is None


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, BATCH)):
        yield batch


def _fill(collection: "Collection", spec: Vector, document: Document, vector: Any) -> bool:
    """Whether the document still wanted it: its text may have changed meanwhile, or it is gone."""
    text = spec.source or ""
    try:
        record = collection.record(document["id"])
        if record.document.get(text) != document[text] or not _lacks(spec, record.document):
            return False
        collection.update(record.id, {spec.field: vector}, if_version=record.version)
    except (MissingKeyError, ConflictError):
        return False
    return True
