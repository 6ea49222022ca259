"""What AmberDB's vector search is compared with.

Invariants:
- Those of bench/search_engine.py. LMDB and SQLite are as durable as AmberDB: synced commits.
- Graphs have the parameters of AmberDB's defaults: M 16, ef_construction 128.
"""

from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from bench.embeddings import Vectors
from bench.peers import SQLITE_SETUP, document_of_json, json_of, pack, unpack
from bench.search_engine import HITS, VectorEngine, library
from bench.workloads import Document

_M = 16
_EF_CONSTRUCTION = 128
_REFINED = 2
"""So many times the hits are scored exactly by LanceDB."""


def _bare(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "embedding"}


class ByHandPeer(VectorEngine):
    """Documents, vectors included, as msgpack in LMDB; a graph in memory, saved when settled.

    After a crash its graph would have to be made anew from the documents, which it leaves out.
    """

    name = "lmdb + hnswlib"
    packages = ("hnswlib",)

    def __init__(self, path: Path, *, dim: int, width: int) -> None:
        super().__init__(path, dim=dim, width=width)
        self._env = lmdb.open(str(path / "bench.lmdb"), map_size=1 << 36)
        self._graph: Any = library("hnswlib").Index("cosine", dim)
        self._file = path / "bench.hnsw"
        if self._file.exists():
            self._graph.load_index(str(self._file))
        else:
            self._graph.init_index(1_000, M=_M, ef_construction=_EF_CONSTRUCTION)

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
        assert entity is None, "by hand there is no filter"
        self._graph.set_ef(max(self.width, limit))
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


class SqliteVecPeer(VectorEngine):
    """sqlite-vec, which is exact, in the SQLite of apsw: that of Python may load no extensions."""

    name = "sqlite-vec"
    packages = ("apsw", "sqlite_vec")
    is_exact = True
    _columns = ""
    _options = ""

    def __init__(self, path: Path, *, dim: int, width: int) -> None:
        super().__init__(path, dim=dim, width=width)
        self._connection: Any = library("apsw").Connection(str(path / "bench.sqlite"))
        self._connection.enable_load_extension(True)
        self._connection.load_extension(library("sqlite_vec").loadable_path())
        for pragma in SQLITE_SETUP:
            self._connection.execute(pragma)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS memory"
            " (number INTEGER PRIMARY KEY, id TEXT UNIQUE, entity_id TEXT, doc TEXT NOT NULL);"
            "CREATE INDEX IF NOT EXISTS memory_entity ON memory (entity_id);"
            f"CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0({self._columns}"
            f" embedding float[{dim}] distance_metric=cosine{self._options})"
        )
        count = self._connection.execute("SELECT coalesce(max(number), 0) FROM memory")
        self._count: int = next(count)[0]

    def put_many(self, documents: list[Document]) -> None:
        rows = [
            (number, document["id"], document["entity_id"], json_of(_bare(document)))
            for number, document in enumerate(documents, self._count + 1)
        ]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO memory VALUES (?, ?, ?, ?)", rows)
        self._put_vectors(self._count + 1, documents)
        self._connection.execute("COMMIT")
        self._count += len(rows)

    def _put_vectors(self, first: int, documents: list[Document]) -> None:
        self._connection.executemany(
            "INSERT INTO vectors (rowid, embedding) VALUES (?, ?)",
            [(at, one["embedding"].tobytes()) for at, one in enumerate(documents, first)],
        )

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        assert entity is None
        return self._nearest("", (question.tobytes(), limit))

    def _nearest(self, condition: str, bindings: tuple[Any, ...]) -> list[Document]:
        rows = self._connection.execute(
            "SELECT doc FROM (SELECT rowid, distance FROM vectors"
            f" WHERE embedding MATCH ? AND k = ?{condition}) AS near"
            " JOIN memory ON number = near.rowid ORDER BY distance",
            bindings,
        )
        return [document_of_json(text) for (text,) in rows]

    def settle(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()


class SqliteVecByEntityPeer(SqliteVecPeer):
    """The same with the entity as partition key. Its chunks are of 128 rows: those of the default,
    1,024, would hold a small entity in ten times its size."""

    name = "sqlite-vec by entity"
    _columns = " entity_id TEXT partition key,"
    _options = ", chunk_size=128"

    def _put_vectors(self, first: int, documents: list[Document]) -> None:
        self._connection.executemany(
            "INSERT INTO vectors (rowid, entity_id, embedding) VALUES (?, ?, ?)",
            [
                (number, one["entity_id"], one["embedding"].tobytes())
                for number, one in enumerate(documents, first)
            ],
        )

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        if entity is None:
            return super().nearest(question, limit)
        return self._nearest(" AND entity_id = ?", (question.tobytes(), limit, entity))


class ChromaPeer(VectorEngine):
    """Chroma in its own directory; the document as JSON is its `document`."""

    name = "chroma"
    packages = ("chromadb",)

    def __init__(self, path: Path, *, dim: int, width: int) -> None:
        super().__init__(path, dim=dim, width=width)
        settings = library("chromadb.config").Settings(anonymized_telemetry=False)
        self._client: Any = library("chromadb").PersistentClient(str(path), settings=settings)
        graph = {"space": "cosine", "max_neighbors": _M, "ef_construction": _EF_CONSTRUCTION}
        self._collection: Any = self._client.get_or_create_collection(
            "memory", configuration={"hnsw": graph}, embedding_function=None
        )
        self._set_width = 0

    def put_many(self, documents: list[Document]) -> None:
        self._collection.add(
            ids=[one["id"] for one in documents],
            embeddings=np.array([one["embedding"] for one in documents]),
            documents=[json_of(_bare(one)) for one in documents],
            metadatas=[{"entity_id": one["entity_id"]} for one in documents],
        )

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        if self.width != self._set_width:
            self._collection.modify(configuration={"hnsw": {"ef_search": self.width}})
            self._set_width = self.width
        found = self._collection.query(
            query_embeddings=[question],
            n_results=limit,
            where=None if entity is None else {"entity_id": entity},
            include=["documents"],
        )
        return [document_of_json(text) for text in found["documents"][0]]

    def settle(self) -> None:
        """Nothing to do: it writes its graph as it goes."""

    def close(self) -> None:
        self._client.close()


class LanceVectorPeer(VectorEngine):
    """LanceDB with one HNSW graph over scalar-quantized vectors, and scores made exact."""

    name = "lancedb"
    packages = ("lancedb", "pyarrow")

    def __init__(self, path: Path, *, dim: int, width: int) -> None:
        super().__init__(path, dim=dim, width=width)
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
            "doc": [json_of(_bare(one)) for one in documents],
            "embedding": self._arrow.FixedSizeListArray.from_arrays(flat, self.dim),
        }
        self._table.add(self._arrow.table(columns, schema=self._schema))

    def nearest(
        self, question: Vectors, limit: int = HITS, entity: str | None = None
    ) -> list[Document]:
        asked = self._table.search(question).distance_type("cosine").nprobes(1)
        asked = asked.ef(max(self.width, _REFINED * limit)).refine_factor(_REFINED)
        asked = asked.select(["doc", "_distance"])
        if entity is not None:
            asked = asked.where(f"entity_id = '{entity}'", prefilter=True)
        return [document_of_json(row["doc"]) for row in asked.limit(limit).to_list()]

    def settle(self) -> None:
        self._table.optimize()
        graph = self._index.HnswSq(
            distance_type="cosine", num_partitions=1, m=_M, ef_construction=_EF_CONSTRUCTION
        )
        self._table.create_index("embedding", config=graph, replace=True)
        self._table.create_index("entity_id", config=self._index.Bitmap(), replace=True)

    def close(self) -> None:
        self._table = None
