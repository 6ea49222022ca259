"""The texts of a store as Chroma's collections list them, for mem0's provider `langchain`, which
lists memories through the attribute `_collection` of Chroma's store and of no other.

Invariants:
- A filter is one of metadata, as in a search.
"""

from typing import Any, final

from amberdb import Collection
from amberdb.integrations.langchain.documents import Filter, where_of


@final
class Listing:
    """The texts of a collection, or of one that there is not yet."""

    def __init__(self, collection: Collection | None) -> None:
        self._collection = collection

    def get(self, where: Filter | None = None, limit: int | None = None) -> dict[str, list[Any]]:
        """Ids and metadata of the texts that match. Raises QueryError."""
        condition = where_of(where)
        if self._collection is None:
            return {"ids": [], "metadatas": []}
        found = self._collection.find(condition, limit=limit, fields=["id", "metadata"])
        return {
            "ids": [row["id"] for row in found],
            "metadatas": [row["metadata"] for row in found],
        }
