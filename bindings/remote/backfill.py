"""Vectors for what a process sends, and for what the leader receives: by the functions that each of
them was given with embed=.

Invariants:
- A function stays in its process, and is called outside the writer lock.
- A document that has a vector is left as it is. One that got none is pending, until
  embed_missing() is called where the function is, or its `defer=True` finds it.
"""

from collections.abc import Callable
from typing import Protocol

from amberdb.engine.database.transaction import Transaction
from amberdb.engine.maintenance.embedding_backfill import Pending
from amberdb.engine.search.embedding import Embedder


class Transacting(Protocol):
    """The part of a SharedDatabase that stores vectors."""

    def transaction(self) -> Transaction:
        """As Database.transaction()."""
        ...


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
