"""A document store and retrievers for Haystack. See docs/integrations/haystack.md."""

from amberdb.integrations.haystack.retrievers import (
    AmberBM25Retriever,
    AmberEmbeddingRetriever,
    AmberHybridRetriever,
)
from amberdb.integrations.haystack.store import (
    AmberDocumentStore,
)

__all__ = [
    "AmberDocumentStore",
    "AmberBM25Retriever",
    "AmberEmbeddingRetriever",
    "AmberHybridRetriever",
]
