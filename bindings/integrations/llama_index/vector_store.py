"""A LlamaIndex vector store on a collection.

    store = AmberVectorStore("memory.amber", embed_dim=384)
    index = VectorStoreIndex.from_vector_store(store, embed_model=...)

Invariants:
- A call that writes is one commit, all or nothing; a node with the id of another replaces it.
- The modes are default, mmr, text_search, sparse, hybrid and semantic_hybrid: `text_search` and
  `sparse` rank by the words of `query_str`, the last two by words and embedding together.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from amberdb import Collection, Database, Fusion, Ordered, Text, Vector
from amberdb.integrations.llama_index.filters import where_of
from amberdb.integrations.llama_index.nodes import WITHOUT_EMBEDDING, loaded, stored
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import twin

OWNER: Final = "amberdb.integrations.llama_index"
_OF_TEXT: Final = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
_HYBRID: Final = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID)
_OF_VECTOR: Final = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)
_MMR_THRESHOLD: Final = 0.5  # LlamaIndex's own


class AmberVectorStore(BasePydanticVectorStore):
    """Nodes in a collection of their own. Raises OpenError, CollectionError.

    database    an open Database, or the path of one
    collection  its name
    embed_dim   the numbers of an embedding
    """

    stores_text: bool = True
    flat_metadata: bool = False
    database: str
    collection: str
    embed_dim: int

    _opened: Opened = PrivateAttr()
    _nodes: Collection = PrivateAttr()

    def __init__(
        self,
        database: DatabaseOrPath,
        *,
        collection: str = "llama_index_nodes",
        embed_dim: int = 1536,
        **given: Any,
    ) -> None:
        vector = Vector("embedding", dim=embed_dim)
        opened = Opened(database)
        with opened.closed_on_error() as db:
            nodes = db.collection(
                collection, indexes=[Text("text"), vector, Ordered("ref_doc_id")], owner=OWNER
            )
            given |= {"database": os.fspath(db.path), "collection": collection}
            given["embed_dim"] = embed_dim
            super().__init__(**given)
        self._opened, self._nodes = opened, nodes

    @classmethod
    def class_name(cls) -> str:
        return "AmberVectorStore"

    @property
    def client(self) -> Database:
        """The database of the nodes."""
        return self._opened.db

    def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        self._opened.close()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Stores nodes; returns their ids. Raises InvalidDocumentError, also for an embedding of
        another dimension."""
        return self._nodes.put_many(map(stored, nodes))

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a document."""
        self._nodes.delete_many({"ref_doc_id": {"$eq": ref_doc_id}})

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes that match, with their embeddings; those of `node_ids` in that order. Raises
        QueryError, ValueError."""
        where = where_of(filters, node_ids=node_ids)
        found = {each["id"]: loaded(each) for each in self._nodes.find(where, order_by="id")}
        order = found if node_ids is None else dict.fromkeys(node_ids)
        return [found[id] for id in order if id in found]

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Deletes the nodes that match. Raises ValueError when nothing is asked for: clear() is for
        all nodes."""
        where = where_of(filters, node_ids=node_ids)
        if not where:
            raise ValueError("give node_ids or filters: clear() deletes all nodes")
        self._nodes.delete_many(where)

    def clear(self) -> None:
        """Deletes all nodes."""
        self._nodes.delete_many({})

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to a query, the best first. Raises ValueError, QueryError."""
        asked = _asked(query, kwargs.get("mmr_threshold"))
        # An index that keeps no nodes of its own asks with an empty list for all of them.
        node_ids = query.node_ids or None
        where = where_of(query.filters, node_ids=node_ids, ref_doc_ids=query.doc_ids)
        if asked["limit"] < 1:
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        hits = self._nodes.search(where=where, fields=WITHOUT_EMBEDDING, **asked)
        return VectorStoreQueryResult(
            nodes=[loaded(hit.document) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    async_add = twin("write", add)
    adelete = twin("write", delete)
    aget_nodes = twin("read", get_nodes)
    adelete_nodes = twin("write", delete_nodes)
    aclear = twin("write", clear)
    aquery = twin("read", query)


def _asked(query: VectorStoreQuery, mmr_threshold: float | None) -> dict[str, Any]:
    """The arguments of Collection.search(). Raises ValueError."""
    mode, limit = query.mode, query.similarity_top_k
    if mode in _OF_VECTOR:
        asked: dict[str, Any] = {"vector": _embedding(query), "limit": limit}
        if mode is VectorStoreQueryMode.MMR:
            given = query.mmr_threshold if mmr_threshold is None else mmr_threshold
            asked["diversity"] = 1 - (_MMR_THRESHOLD if given is None else given)
        return asked
    if mode in _OF_TEXT:
        return {"text": _text(query), "limit": query.sparse_top_k or limit}
    if mode not in _HYBRID:
        raise ValueError(f"the query mode {mode.value!r} is not supported")
    limit = limit if query.hybrid_top_k is None else query.hybrid_top_k
    alpha = 0.5 if query.alpha is None else query.alpha
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 (words) to 1 (embedding), not {alpha!r}")
    if alpha == 0:
        return {"text": _text(query), "limit": limit}
    if alpha == 1:
        return {"vector": _embedding(query), "limit": limit}
    fusion = Fusion(weights={"embedding": alpha, "text": 1 - alpha})
    both = {"text": _text(query), "vector": _embedding(query)}
    return {**both, "limit": limit, "fusion": fusion}


def _embedding(query: VectorStoreQuery) -> list[float]:
    if query.query_embedding is None:
        raise ValueError(f"the query mode {query.mode.value!r} needs a query_embedding")
    return query.query_embedding


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise ValueError(f"the query mode {query.mode.value!r} needs a query_str")
    return query.query_str
