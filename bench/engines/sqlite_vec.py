"""sqlite-vec, which searches exactly, with and without a partition per entity.

Invariants:
- Those of bench/engines/search_engine.py; durable means WAL with synchronous=FULL.
"""

from pathlib import Path
from typing import Any

from bench.engines.database import library
from bench.engines.encoding import document_of_json, json_of, without_vector
from bench.engines.search_engine import HITS, VectorEngine
from bench.engines.sqlite import SQLITE_SETUP
from bench.workloads.events import Document
from bench.workloads.vectors import Vectors


class SqliteVecPeer(VectorEngine):
    """sqlite-vec in the SQLite of apsw, since Python's may be built without extensions."""

    name = "sqlite-vec"
    packages = ("apsw", "sqlite_vec")
    is_exact = True
    _columns = ""
    _options = ""

    def __init__(self, path: Path, *, dim: int, ef: int) -> None:
        super().__init__(path, dim=dim, ef=ef)
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
            (number, document["id"], document["entity_id"], json_of(without_vector(document)))
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
    """sqlite-vec with the entity as partition key, in chunks of 128 rows: with the default of 1,024
    a small entity would take ten times its size."""

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
