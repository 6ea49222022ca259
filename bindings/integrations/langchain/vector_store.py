"""LangChain's store of texts with vectors (VectorStore).

Invariants:
- The texts of one batch are stored in one commit, and the embedder is called before it.
- An argument that a method does not have is an error: a misspelt `filter` would find everything.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeAlias, final

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from amberdb import IndexSpec
from amberdb.integrations.langchain.documents import (
    Filter,
    document_of,
    documents_of,
    refuse_others,
)
from amberdb.integrations.langchain.listing import Listing
from amberdb.integrations.langchain.vector_rows import (
    RELEVANCE,
    VECTOR,
    Metric,
    VectorRows,
    batches,
    rows_of,
)
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread, twin

Scored: TypeAlias = list[tuple[Document, float]]


@final
class AmberVectorStore(VectorStore):
    """A VectorStore in a collection.

        store = AmberVectorStore("memory.amber", embeddings)
        store.add_texts(["the umbrella is in the car"], [{"user": "lin"}])
        store.similarity_search("umbrella", k=4, filter={"user": "lin"})

    dim      the length of the vectors; None: that of the stored ones, or of the first
    metric   "cosine", "ip" or "l2"; a score is the cosine, the inner product or the negative
             distance, so higher is closer
    indexes  further indexes, as Ordered("metadata.user"), which make a filter fast; None: those
             that are declared stay

    Searches take `filter`, a map in AmberDB's filter language about the metadata. Searches of a
    text take `hybrid=True` as well: they rank by words and vectors together, with a score from 0
    to 1. Raises OpenError, and CollectionError for a collection that is another system's, or has
    vectors of another length or metric.
    """

    def __init__(
        self,
        db: DatabaseOrPath,
        embedding: Embeddings,
        *,
        dim: int | None = None,
        metric: Metric = "cosine",
        indexes: Sequence[IndexSpec] | None = None,
        name: str = "langchain_vectors",
    ) -> None:
        self._embedding = embedding
        self._metric: Metric = metric
        self._opened = Opened(db)
        with self._opened.closed_on_error() as opened:
            self._rows = VectorRows(opened, name, dim=dim, metric=metric, indexes=indexes)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        db: DatabaseOrPath = ":memory:",
        **kwargs: Any,
    ) -> Self:
        """A store with these texts; `kwargs` are those of the class."""
        store = cls(db, embedding, **kwargs)
        with store._opened.closed_on_error():
            store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        db: DatabaseOrPath = ":memory:",
        **kwargs: Any,
    ) -> Self:
        """As from_texts()."""
        store = await in_thread("write", cls, db, embedding, **kwargs)
        with store._opened.closed_on_error():
            await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def close(self) -> None:
        """Closes the database if it was given as a path."""
        self._opened.close()

    @property
    def embeddings(self) -> Embeddings:
        """The embedder."""
        return self._embedding

    @property
    def _collection(self) -> Listing:
        """What mem0's provider `langchain` lists memories with, named as in Chroma's store."""
        return Listing(self._rows.collection())

    # -- writing -----------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embeds texts and stores them under their ids, in place of earlier ones; the ids.

        batch_size  how many are embedded and stored at once; None: all

        Raises ValueError for lists of different lengths, InvalidDocumentError for metadata that
        cannot be stored.
        """
        refuse_others("add_texts", kwargs)
        rows = rows_of(texts, metadatas, ids)
        for batch in batches(rows, batch_size):
            vectors = self._embedding.embed_documents([row["page_content"] for row in batch])
            self._rows.put(batch, vectors)
        return [row["id"] for row in rows]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As add_texts()."""
        refuse_others("aadd_texts", kwargs)
        rows = rows_of(texts, metadatas, ids)
        for batch in batches(rows, batch_size):
            texts_of_batch = [row["page_content"] for row in batch]
            vectors = await self._embedding.aembed_documents(texts_of_batch)
            await in_thread("write", self._rows.put, batch, vectors)
        return [row["id"] for row in rows]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Deletes texts by id, in one commit; None deletes all. Missing ids are passed over."""
        refuse_others("delete", kwargs)
        self._rows.delete(ids)
        return True

    adelete = twin("write", delete)

    # -- reading -----------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Those of the texts that exist, in the order of their ids."""
        collection = self._rows.collection()
        return [] if collection is None else documents_of(collection.get_many(ids))

    aget_by_ids = twin("read", get_by_ids)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k texts that are closest to the query; `filter`, `hybrid`."""
        return _documents(self.similarity_search_with_score(query, k, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """As similarity_search()."""
        return _documents(await self.asimilarity_search_with_score(query, k, **kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """As similarity_search(), with scores; higher is closer."""
        return self._found(self._embedding.embed_query(query), k, query, **kwargs)

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """As similarity_search_with_score()."""
        vector = await self._embedding.aembed_query(query)
        return await in_thread("read", self._found, vector, k, query, **kwargs)

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> Scored:
        """The k texts that are closest to a vector, with scores."""
        refuse_others("similarity_search_by_vector", kwargs)
        return self._found(embedding, k, filter=filter)

    asimilarity_search_with_score_by_vector = twin("read", similarity_search_with_score_by_vector)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """The k texts that are closest to a vector; `filter`."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, **kwargs))

    asimilarity_search_by_vector = twin("read", similarity_search_by_vector)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """k of the `fetch_k` texts that are closest to a vector, chosen so that they differ from
        one another: the more, the nearer `lambda_mult` is to 0."""
        refuse_others("max_marginal_relevance_search", kwargs)
        hits = self._rows.hits(embedding, fetch_k, filter, with_vectors=True)
        vectors = [hit.document[VECTOR] for hit in hits]
        if not vectors:
            return []
        chosen = maximal_marginal_relevance(np.asarray(embedding), vectors, lambda_mult, k)
        return [document_of(hits[place].document) for place in chosen]

    amax_marginal_relevance_search_by_vector = twin("read", max_marginal_relevance_search_by_vector)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As max_marginal_relevance_search_by_vector(), with the vector of a text."""
        vector = self._embedding.embed_query(query)
        search = self.max_marginal_relevance_search_by_vector
        return search(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """As max_marginal_relevance_search()."""
        vector = await self._embedding.aembed_query(query)
        search = self.amax_marginal_relevance_search_by_vector
        return await search(vector, k, fetch_k, lambda_mult, **kwargs)

    def _found(
        self,
        vector: list[float],
        k: int,
        text: str | None = None,
        *,
        filter: Filter | None = None,
        hybrid: bool = False,
        **others: Any,
    ) -> Scored:
        refuse_others("similarity_search", others)
        hits = self._rows.hits(vector, k, filter, text if hybrid else None)
        return [(document_of(hit.document), hit.score) for hit in hits]

    # -- relevance ---------------------------------------------------------------------------

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return RELEVANCE[self._metric]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> Scored:
        return self._relevance(self.similarity_search_with_score(query, k, **kwargs), kwargs)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> Scored:
        found = await self.asimilarity_search_with_score(query, k, **kwargs)
        return self._relevance(found, kwargs)

    def _relevance(self, found: Scored, options: dict[str, Any]) -> Scored:
        if options.get("hybrid"):  # is from 0 to 1 already
            return found
        return [(document, RELEVANCE[self._metric](score)) for document, score in found]


def _documents(found: Scored) -> list[Document]:
    return [document for document, _ in found]
