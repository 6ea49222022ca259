"""The embedder of a system: a function with a name and a dimension, which are kept with the index
of its vectors.

    the same name and dimension   its vectors are searched
    another name or dimension     the collection gets a version more, whose documents have no
                                  vectors; the background embeds their texts anew
    no embedder                   vectors and their index stay as they are, and wait for one

Invariants:
- Vectors of embedders with two names, or two dimensions, are never compared. Until a document has
  its new vector it is found by its words.
- The function is called outside transactions. When it fails, or returns what is not a vector
  (zeros, NaN, another shape), the document has no vector yet, and nothing else is missing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from amberdb import (
    CollectionDef,
    CollectionError,
    CollectionMissingError,
    Database,
    Document,
    Embed,
    IndexSpec,
    Vector,
)

logger = logging.getLogger("amberdb.embedding")


@final
class Embedder:
    """What a system is given as `embed`, `dim` and `model`, for one vector of a document: that of
    the text in the field `source`, in the field "embedding". Raises CollectionError."""

    field = "embedding"

    def __init__(
        self,
        embed: Embed | None,
        dim: int | None,
        model: str | None = None,
        *,
        source: str = "content",
    ) -> None:
        if (embed is None) != (dim is None):
            raise CollectionError("give embed and dim together: dim is the length of its vectors")
        if model is not None and (embed is None or not str(model)):
            raise CollectionError(
                f"model={model!r}: the name of the embedder, a non-empty str beside embed and dim"
            )
        self._embed = embed
        self._dim = dim
        self._model = model
        self._source = source

    def __bool__(self) -> bool:
        return self._embed is not None

    def vectors(self, texts: Sequence[str | None]) -> list[Any]:
        """A vector for each text: an array of shape (dim,). None for a text that is empty, and for
        one whose vector has to wait."""
        vectors: list[Any] = [None] * len(texts)
        given = {position: text for position, text in enumerate(texts) if text}
        if self._embed is None or not given:
            return vectors
        import numpy as np

        try:
            made = np.asarray(self._embed(list(given.values())), np.float32)
        except Exception as error:
            logger.warning("the embedder failed, vectors are added later: %s", error)
            return vectors
        if made.shape != (len(given), self._dim):
            logger.warning(
                "the embedder returned an array of shape %s for %d texts, not of (%d, %d): vectors "
                "are added later", made.shape, len(given), len(given), self._dim,
            )  # fmt: skip
            return vectors
        for position, vector in zip(given, made, strict=True):
            if np.isfinite(vector).all() and vector.any():
                vectors[position] = vector
            else:
                logger.warning("the embedder returned zeros or NaN: the vector is added later")
        return vectors

    def declare(
        self,
        db: Database,
        name: str,
        *,
        indexes: Sequence[IndexSpec],
        version: int = 1,
        migrate: Mapping[int, Callable[[Document], Document]] | None = None,
        **more: Any,
    ) -> None:
        """Declares a collection of the system with its index of vectors. `version` and `migrate`
        are those of the system; versions after them are of embedders. Raises CollectionError."""
        known = _definition(db, name)
        stored = None if known is None else self._stored(known)
        newest = version if known is None else max(version, known.version)
        if stored is not None and self._is_other(stored):
            newest += 1
        steps = dict.fromkeys(range(version + 1, newest + 1), _without_vector)
        db.collection(
            name,
            indexes=[*indexes, *self._index(stored)],
            version=newest,
            migrate={**(migrate or {}), **steps},
            **more,
        )

    def _stored(self, known: CollectionDef) -> Vector | None:
        found = (spec for spec in known.specs if isinstance(spec, Vector))
        return next((spec for spec in found if spec.field == self.field), None)

    def _is_other(self, stored: Vector) -> bool:
        """Whether the stored vectors are of another embedder. One without a name may be any of its
        dimension."""
        if self._embed is None:
            return False
        model = model_of(stored)
        are_named = model is not None and self._model is not None
        return stored.dim != self._dim or (are_named and model != self._model)

    def _index(self, stored: Vector | None) -> list[Vector]:
        if self._embed is None or self._dim is None:
            return [] if stored is None else [stored]
        name = None if self._model is None else index_name(self.field, self._model)
        if name is None and stored is not None and stored.dim == self._dim:
            name = stored.name
        return [
            Vector(
                self.field,
                dim=self._dim,
                source=self._source,
                embed=self._embed,
                defer=True,
                name=name,
            )
        ]


def index_name(field: str, model: str) -> str:
    """The name of an index of vectors that names their embedder."""
    return f"vector:{field}:{model}"


def model_of(stored: Vector) -> str | None:
    """The name of the embedder that an index has in its own name."""
    return stored.name.removeprefix(f"vector:{stored.field}").removeprefix(":") or None


def _without_vector(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != Embedder.field}


def _definition(db: Database, name: str) -> CollectionDef | None:
    try:
        return db.definition(name)
    except CollectionMissingError:
        return None
