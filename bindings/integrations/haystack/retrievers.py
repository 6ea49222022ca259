"""Retrievers of an AmberDocumentStore, components of Haystack's pipelines.

    pipeline.add_component("retriever", AmberHybridRetriever(store, top_k=5))

Invariants:
- Filters of a run take the place of the retriever's own, or are added to them: `filter_policy`.
- Each serializes its store with it: a pipeline that is loaded opens the database.
"""

from typing import Any, TypeVar

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from amberdb.integrations.haystack.base import Filters
from amberdb.integrations.haystack.store import AmberDocumentStore

Found = dict[str, list[Document]]
R = TypeVar("R", bound="_Retriever")


class _Retriever:
    """The parameters of all retrievers. Raises ValueError, TypeError."""

    def __init__(
        self,
        document_store: AmberDocumentStore,
        filters: Filters = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        _check_store(document_store)
        if top_k <= 0:
            raise ValueError(f"top_k must be greater than 0, not {top_k}")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The parameters, and those of the store."""
        return default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )

    @classmethod
    def from_dict(cls: type[R], data: dict[str, Any]) -> R:
        """The retriever of to_dict(), with a store that opens its database."""
        parameters = dict(data.get("init_parameters", {}))
        if "filter_policy" in parameters:
            parameters["filter_policy"] = FilterPolicy.from_str(parameters["filter_policy"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def asked(self, filters: Filters, top_k: int | None) -> dict[str, Any]:
        """The filters and the number of documents of one run."""
        return {
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "top_k": self.top_k if top_k is None else top_k,
        }


def _check_store(given: object) -> None:
    """Raises TypeError: a pipeline in YAML may name another class."""
    if not isinstance(given, AmberDocumentStore):
        raise TypeError(f"document_store must be an AmberDocumentStore, not {given!r}")


@component
class AmberBM25Retriever(_Retriever):
    """Documents that have words of the query."""

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters = None, top_k: int | None = None) -> Found:
        """Raises what bm25_retrieval() of the store raises."""
        asked = self.asked(filters, top_k)
        return {"documents": self.document_store.bm25_retrieval(query, **asked)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: Filters = None, top_k: int | None = None
    ) -> Found:
        """run(), for an event loop."""
        asked = self.asked(filters, top_k)
        return {"documents": await self.document_store.bm25_retrieval_async(query, **asked)}


@component
class AmberEmbeddingRetriever(_Retriever):
    """Documents whose embeddings are near that of the query."""

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> Found:
        """Raises what embedding_retrieval() of the store raises."""
        asked = self.asked(filters, top_k)
        return {"documents": self.document_store.embedding_retrieval(query_embedding, **asked)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> Found:
        """run(), for an event loop."""
        store, asked = self.document_store, self.asked(filters, top_k)
        return {"documents": await store.embedding_retrieval_async(query_embedding, **asked)}


@component
class AmberHybridRetriever(_Retriever):
    """Documents that words and embedding of the query find together."""

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int | None = None,
    ) -> Found:
        """Raises what hybrid_retrieval() of the store raises."""
        store, asked = self.document_store, self.asked(filters, top_k)
        return {"documents": store.hybrid_retrieval(query, query_embedding, **asked)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int | None = None,
    ) -> Found:
        """run(), for an event loop."""
        store, asked = self.document_store, self.asked(filters, top_k)
        return {"documents": await store.hybrid_retrieval_async(query, query_embedding, **asked)}
