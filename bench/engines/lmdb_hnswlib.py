"""LMDB for documents and an hnswlib graph for vectors, combined by hand.

Invariants:
- Those of bench/engines/search_engine.py; LMDB commits are synced.
- The graph has the parameters of AmberDB's defaults (HNSW_M, HNSW_EF_CONSTRUCTION).
"""

from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from bench.engines.database import library
from bench.engines.encoding import pack, unpack
from bench.engines.search_engine import HITS, HNSW_EF_CONSTRUCTION, HNSW_M, VectorEngine
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors


class LmdbHnswlibPeer(VectorEngine):
    """Documents and vectors as msgpack in LMDB; a graph in memory, saved by settle().

    Rebuilding the graph after a crash is not implemented.
    """

    name = "lmdb + hnswlib"
    packages = ("hnswlib",)
    recovers = False

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
        self._env = lmdb.open(str(path / "bench.lmdb"), map_size=1 << 36)
        self._graph: Any = library("hnswlib").Index("cosine", dim)
        self._file = path / "bench.hnsw"
        if self._file.exists():
            self._graph.load_index(str(self._file))
        else:
            self._graph.init_index(1_000, M=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION)

    def put_many(self, documents: list[Document]) -> None:
        start: int = self._graph.element_count
        labels = range(start, start + len(documents))
        with self._env.begin(write=True) as txn:
            for label, document in zip(labels, documents, strict=True):
                stored = {**document, "embedding": document["embedding"].tobytes()}
                txn.put(label.to_bytes(4, "big"), pack(stored))
        if labels.stop > self._graph.max_elements:
            self._graph.resize_index(2 * labels.stop)
        self._graph.add_items(np.array([one["embedding"] for one in documents]), labels)

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        assert entity is None, "hnswlib has no filter"
        self._graph.set_ef(max(self.ef, limit))
        labels, _ = self._graph.knn_query(question, limit, num_threads=1)
        found: list[Document] = []
        with self._env.begin() as txn:
            for label in labels[0].tolist():
                packed = txn.get(label.to_bytes(4, "big"))
                assert packed is not None
                document = unpack(packed)
                document["embedding"] = np.frombuffer(document["embedding"], np.float32)
                found.append(document)
        return found

    def settle(self) -> None:
        self._graph.save_index(str(self._file))

    def close(self) -> None:
        self._env.close()
