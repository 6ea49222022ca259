"""LanceDB: its full-text index, and its vector index.

Invariants:
- Those of bench/engines/search_engine.py, except that searches see new documents only after
  settle(): its ingest is not timed.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bench.engines.database import library
from bench.engines.encoding import document_of_json, json_of, without_vector
from bench.engines.search_engine import (
    HITS,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    TextEngine,
    VectorEngine,
)
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors

_REFINE_FACTOR = 2
"""LanceDB scores this many times the hits exactly."""


class LanceTextPeer(TextEngine):
    """LanceDB's full-text index, stemmed, with stop words, as in FTS5."""

    name = "lancedb"
    packages = ("lancedb", "pyarrow")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        arrow = library("pyarrow")
        self._fts: Any = library("lancedb.index").FTS
        fields = [(name, arrow.string()) for name in ("id", "doc", "content")]
        self._schema: Any = arrow.schema(fields)
        self._from_list: Any = arrow.Table.from_pylist
        self._table: Any = (
            library("lancedb")
            .connect(str(path))
            .create_table("memory", schema=self._schema, exist_ok=True)
        )

    def put_many(self, documents: list[Document]) -> None:
        rows = [
            {"id": one["id"], "doc": json_of(one), "content": one["content"]} for one in documents
        ]
        self._table.add(self._from_list(rows, schema=self._schema))

    def find(self, question: str, limit: int = HITS) -> list[Document]:
        asked = self._table.search(question, query_type="fts").select(["doc", "_score"])
        return [document_of_json(row["doc"]) for row in asked.limit(limit).to_list()]

    def settle(self) -> None:
        self._table.optimize()
        config = self._fts(stem=True, remove_stop_words=False, with_position=False)
        self._table.create_index("content", config=config, replace=True)

    def close(self) -> None:
        self._table = None


class LanceVectorPeer(VectorEngine):
    """LanceDB with one HNSW graph over scalar-quantized vectors, and exact re-ranking."""

    name = "lancedb"
    packages = ("lancedb", "pyarrow")

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
        self._arrow: Any = library("pyarrow")
        self._index: Any = library("lancedb.index")
        texts = [(name, self._arrow.string()) for name in ("id", "entity_id", "doc")]
        vector = ("embedding", self._arrow.list_(self._arrow.float32(), dim))
        self._schema: Any = self._arrow.schema([*texts, vector])
        self._table: Any = (
            library("lancedb")
            .connect(str(path))
            .create_table("memory", schema=self._schema, exist_ok=True)
        )

    def put_many(self, documents: list[Document]) -> None:
        flat = self._arrow.array(np.concatenate([one["embedding"] for one in documents]))
        columns = {
            "id": [one["id"] for one in documents],
            "entity_id": [one["entity_id"] for one in documents],
            "doc": [json_of(without_vector(one)) for one in documents],
            "embedding": self._arrow.FixedSizeListArray.from_arrays(flat, self.dim),
        }
        self._table.add(self._arrow.table(columns, schema=self._schema))

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        asked = self._table.search(question).distance_type("cosine").nprobes(1)
        asked = asked.ef(max(self.ef, _REFINE_FACTOR * limit)).refine_factor(_REFINE_FACTOR)
        asked = asked.select(["doc", "_distance"])
        if entity is not None:
            asked = asked.where(f"entity_id = '{entity}'", prefilter=True)
        return [document_of_json(row["doc"]) for row in asked.limit(limit).to_list()]

    def settle(self) -> None:
        self._table.optimize()
        graph = self._index.HnswSq(
            distance_type="cosine", num_partitions=1, m=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION
        )
        self._table.create_index("embedding", config=graph, replace=True)
        self._table.create_index("entity_id", config=self._index.Bitmap(), replace=True)

    def close(self) -> None:
        self._table = None
