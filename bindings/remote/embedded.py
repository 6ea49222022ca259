"""Vectors for what a process sends, and for what the leader receives: by the functions that each of
them was given with embed=.

Invariants:
- A function stays in its process, and is called outside the writer lock.
- A document that has a vector is left as it is. One that got none is pending, until
  embed_missing() is called where the function is, or its `defer=True` finds it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from amberdb._types import Patch
from amberdb.engine.database.transaction import Transaction
from amberdb.engine.maintenance.embedding_backfill import Pending
from amberdb.engine.schema.documents import is_map
from amberdb.engine.schema.patch import Changes
from amberdb.engine.search.embedding import Embedder, Embedders


class Transacting(Protocol):
    """The part of a SharedDatabase that stores vectors."""

    def transaction(self) -> Transaction:
        """As Database.transaction()."""
        ...


def with_vectors(
    embedders: Embedders, collection: str, method: str, args: Sequence[Any]
) -> Sequence[Any]:
    """The arguments of a write, with vectors. Raises EmbeddingError."""
    if not embedders.of(collection):
        return args
    first, *rest = args
    if method == "put_many":
        return [embedders.with_vectors(collection, first), *rest]
    if method in ("put", "insert") and is_map(first):
        return [*embedders.with_vectors(collection, [first]), *rest]
    if method == "update":
        return [first, patch_with_vectors(embedders, collection, rest[0])]
    return args


def patch_with_vectors(embedders: Embedders, collection: str, patch: Patch) -> Patch:
    """A patch with a vector for each text that it sets. Where it changes a text otherwise, it
    removes the old vector."""
    changes = Changes(patch)
    (embedded,) = embedders.with_vectors(collection, [changes.assigned()])
    return {**patch, **embedders.vectors_of(collection, changes, embedded)}


def backfilled(db: Transacting) -> Callable[[Embedder, list[Pending]], int]:
    """Stores vectors of pending documents in transactions of a shared database."""

    def store(embedder: Embedder, batch: list[Pending]) -> int:
        vectors = embedder.vectors([text for _, _, text in batch])
        count = 0
        with db.transaction() as tx:
            documents = tx[embedder.collection]
            for (_, id, text), vector in zip(batch, vectors, strict=True):
                document = documents.get(id)
                if document is not None and embedder.text(document) == text:
                    documents.update(id, {embedder.spec.field: vector})
                    count += 1
        return count

    return store
