"""Chroma, prepared as its documentation recommends.

Invariants:
- Those of bench/engines/search_engine.py, except durability: its ingest is not timed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.database import library
from bench.engines.encoding import document_of_json, json_of, without_vector
from bench.engines.search_engine import HITS, HNSW_EF_CONSTRUCTION, HNSW_M, VectorEngine
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors


class ChromaPeer(VectorEngine):
    """Chroma in a directory of its own, with the JSON document as its `document`."""

    name = "chroma"
    packages = ("chromadb",)

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
        settings = library("chromadb.config").Settings(anonymized_telemetry=False)
        self._client: Any = library("chromadb").PersistentClient(str(path), settings=settings)
        graph = {
            "space": "cosine",
            "max_neighbors": HNSW_M,
            "ef_construction": HNSW_EF_CONSTRUCTION,
        }
        self._collection: Any = self._client.get_or_create_collection(
            "memory", configuration={"hnsw": graph}, embedding_function=None
        )
        self._set_ef = 0

    def put_many(self, documents: list[Document]) -> None:
        self._collection.add(
            ids=[one["id"] for one in documents],
            embeddings=np.array([one["embedding"] for one in documents]),
            documents=[json_of(without_vector(one)) for one in documents],
            metadatas=[{"entity_id": one["entity_id"]} for one in documents],
        )

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        if self.ef != self._set_ef:
            self._collection.modify(configuration={"hnsw": {"ef_search": self.ef}})
            self._set_ef = self.ef
        found = self._collection.query(
            query_embeddings=[question],
            n_results=limit,
            where=None if entity is None else {"entity_id": entity},
            include=["documents"],
        )
        return [document_of_json(text) for text in found["documents"][0]]

    def settle(self) -> None:
        """Does nothing: Chroma writes its graph as documents are added."""

    def close(self) -> None:
        self._client.close()
