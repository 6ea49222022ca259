"""A database on a PostgreSQL server: amberdb.connect("postgresql://..."), docs/remote.md.

    the engine's own    filters, plans, orders, cursors, keys, checks of documents, patches
    here                where documents are, and how ranges of keys become SQL

Invariants:
- SQL narrows, and the engine's filter decides: an answer is that of a directory with the same
  documents.
- What is not there raises NotSupportedHereError.
"""

from amberdb.postgres.collection import (
    PostgresCollection,
)
from amberdb.postgres.database import (
    PostgresDatabase,
)
from amberdb.postgres.transaction import (
    PostgresSnapshot,
    PostgresTransaction,
)

__all__ = [
    "PostgresCollection",
    "PostgresDatabase",
    "PostgresSnapshot",
    "PostgresTransaction",
]
