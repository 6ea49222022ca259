"""A Haystack DocumentStore on a collection.

    store = AmberDocumentStore("memory.amber", embedding_dimension=384)
    store.write_documents([Document(content="...", embedding=[...])])
    store.embedding_retrieval([...], filters={"field": "meta.kind", "operator": "==", "value": "a"})

Invariants:
- A retrieval returns the best document first, with its score.
- A retrieval without `return_embedding` reads no vectors.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from math import exp
from typing import Any, Final

from haystack import default_from_dict, default_to_dict
from haystack.dataclasses import Document

from amberdb import Hit
from amberdb.integrations.haystack import metadata
from amberdb.integrations.haystack.base import Documents, Filters, Similarity
from amberdb.integrations.haystack.documents import FIELDS, loaded
from amberdb.integrations.haystack.filters import Filter, filter_errors, meta_path, where_of
from amberdb.integrations.threads import awaited

_BM25_SCALE: Final = 8  # of Haystack's own store, as is the next
_DOT_PRODUCT_SCALE: Final = 100
_WITHOUT_EMBEDDING: Final = [name for name in FIELDS if name != "embedding"]


class AmberDocumentStore(Documents):
    """Documents in a collection of their own. Raises OpenError, DocumentStoreError.

    database             an open Database, or the path of one
    collection           its name
    embedding_dimension  the numbers of an embedding
    similarity           how embeddings are compared: "cosine", "dot_product" or "l2"
    meta_fields          metadata fields that filters use, which get an index each
    language             of the full-text index: a Snowball name ("english", "german", ...)

    Each method has a twin for an event loop, `<name>_async`.
    """

    def to_dict(self) -> dict[str, Any]:
        """The parameters of the store, and the path of its database."""
        return default_to_dict(self, database=os.fspath(self.database.path), **self.parameters)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "AmberDocumentStore":
        """The store of to_dict(), which opens the database. Raises OpenError."""
        return default_from_dict(cls, data)

    # -- metadata ----------------------------------------------------------------------------

    def count_unique_metadata_by_filter(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        """By field, how many distinct values the documents that match have. Raises FilterError."""
        where = where_of(filters)
        return {
            field.removeprefix("meta."): len(self._distinct(field, where))
            for field in metadata_fields
        }

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The metadata fields, and the type of each: boolean, int, float or keyword."""
        name = self.documents.name
        return metadata.fields_info(metadata.values(self.database, name, ("meta",), {}))

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The smallest and the largest value of a metadata field; None where there is none."""
        path = meta_path(metadata_field)
        return {"min": self.documents.min(path), "max": self.documents.max(path)}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """A page of the distinct values of a field, in the order of their texts, and how many
        there are; with `search_term` of those that contain it. Raises FilterError."""
        found = self._distinct(metadata_field, where_of(filters))
        if search_term:
            part = search_term.casefold()
            found = [value for value in found if part in str(value).casefold()]
        return found[from_ : from_ + size], len(found)

    def _distinct(self, field: str, where: Filter) -> list[Any]:
        with filter_errors():
            path = meta_path(field)
            return metadata.distinct(
                metadata.values(self.database, self.documents.name, path, where)
            )

    # -- retrieval ---------------------------------------------------------------------------

    def bm25_retrieval(
        self, query: str, filters: Filters = None, top_k: int = 10, scale_score: bool = False
    ) -> list[Document]:
        """The documents whose content has words of `query`, the best first. Raises ValueError for
        an empty query, FilterError."""
        scale = _bm25_scale if scale_score else None
        return self._search(filters, top_k, False, scale, text=_words(query))

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
    ) -> list[Document]:
        """The documents whose embeddings are nearest, the best first. Raises ValueError for an
        embedding of another dimension, FilterError."""
        vector = self._vector(query_embedding)
        scale = partial(_scaled, self.similarity) if scale_score else None
        return self._search(filters, top_k, return_embedding, scale, vector=vector)

    def hybrid_retrieval(
        self,
        query: str,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        return_embedding: bool = False,
    ) -> list[Document]:
        """The documents that words and embedding find together, the best first; scores are from 0
        to 1. Raises ValueError, FilterError."""
        vector = self._vector(query_embedding)
        text = _words(query)
        return self._search(filters, top_k, return_embedding, None, text=text, vector=vector)

    def _vector(self, embedding: Sequence[float]) -> Sequence[float]:
        dimension = self.embedding_dimension
        if len(embedding) != dimension:
            raise ValueError(
                f"query_embedding has {len(embedding)} numbers, and the store takes {dimension}"
            )
        return embedding

    def _search(
        self,
        filters: Filters,
        top_k: int,
        with_embedding: bool,
        scale: Callable[[float], float] | None,
        **asked: Any,
    ) -> list[Document]:
        where = where_of(filters)
        if top_k <= 0:
            return []
        fields = None if with_embedding else _WITHOUT_EMBEDDING
        with filter_errors():
            hits = self.documents.search(where=where, limit=top_k, fields=fields, **asked)
        return [_found(hit, scale) for hit in hits]

    # -- for an event loop -------------------------------------------------------------------

    count_unique_metadata_by_filter_async = awaited("read", count_unique_metadata_by_filter)
    get_metadata_fields_info_async = awaited("read", get_metadata_fields_info)
    get_metadata_field_min_max_async = awaited("read", get_metadata_field_min_max)
    get_metadata_field_unique_values_async = awaited("read", get_metadata_field_unique_values)
    bm25_retrieval_async = awaited("read", bm25_retrieval)
    embedding_retrieval_async = awaited("read", embedding_retrieval)
    hybrid_retrieval_async = awaited("read", hybrid_retrieval)


def _words(query: object) -> str:
    if not isinstance(query, str) or not query:
        raise ValueError(f"query must be a non-empty str, not {query!r}")
    return query


def _found(hit: Hit, scale: Callable[[float], float] | None) -> Document:
    return loaded(hit.document, hit.score if scale is None else scale(hit.score))


def _bm25_scale(score: float) -> float:
    return _sigmoid(score / _BM25_SCALE)


def _scaled(similarity: Similarity, score: float) -> float:
    """A score from 0 to 1."""
    if similarity == "cosine":
        return (score + 1) / 2
    return _sigmoid(score / _DOT_PRODUCT_SCALE) if similarity == "dot_product" else 1 / (1 - score)


def _sigmoid(number: float) -> float:
    return 1 / (1 + exp(-number)) if number > -700 else 0.0
