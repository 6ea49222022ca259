"""What AmberDB's text search is compared with.

Invariants:
- Those of bench/search_engine.py. FTS5 is as durable as AmberDB: WAL, synchronous=FULL.
"""

import sqlite3
from pathlib import Path
from typing import Any

from bench.peers import SQLITE_SETUP, document_of_json, json_of
from bench.search_engine import HITS, TextEngine, library
from bench.workloads import Document

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memory (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, doc TEXT NOT NULL,
    content TEXT GENERATED ALWAYS AS (json_extract(doc, '$.content')) VIRTUAL);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    content, content='memory', content_rowid='number', tokenize='porter unicode61');
"""


class Fts5Peer(TextEngine):
    """FTS5 over a table of JSON documents: external content, so that the text is stored once."""

    name = "fts5"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection = sqlite3.connect(path / "bench.sqlite", isolation_level=None)
        for pragma in SQLITE_SETUP:
            self._connection.execute(pragma)
        self._connection.executescript(_SCHEMA)
        count = self._connection.execute("SELECT coalesce(max(number), 0) FROM memory")
        self._count: int = count.fetchone()[0]

    def put_many(self, documents: list[Document]) -> None:
        rows = [
            (number, document["id"], json_of(document), document["content"])
            for number, document in enumerate(documents, self._count + 1)
        ]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT INTO memory (number, id, doc) VALUES (?, ?, ?)", [row[:3] for row in rows]
        )
        self._connection.executemany(
            "INSERT INTO words (rowid, content) VALUES (?, ?)", [(row[0], row[3]) for row in rows]
        )
        self._connection.execute("COMMIT")
        self._count += len(rows)

    def find(self, question: str, limit: int = HITS) -> list[Document]:
        match = " OR ".join(f'"{word}"' for word in question.split())
        rows = self._connection.execute(
            "SELECT doc FROM words JOIN memory ON number = words.rowid"
            " WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (match, limit),
        )
        return [document_of_json(text) for (text,) in rows]

    def settle(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()


class LanceTextPeer(TextEngine):
    """LanceDB's own full-text index, stemmed, stop words kept as FTS5 keeps them."""

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


TEXT_PEERS: tuple[type[TextEngine], ...] = (Fts5Peer, LanceTextPeer)
