"""The embedding backfill of a process that follows: it embeds pending documents with its own
function, and stores the vectors in transactions of the process that leads.

Invariants:
- The function is called before the transaction, which holds the writer lock.
- A document that was changed or deleted meanwhile keeps what it has.
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
