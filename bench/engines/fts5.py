"""FTS5, the full-text index of SQLite.

Invariants:
- Those of bench/engines/search_engine.py; durable means WAL with synchronous=FULL.
"""

import sqlite3
from pathlib import Path

from bench.engines.encoding import document_of_json, json_of
from bench.engines.search_engine import HITS, TextEngine
from bench.engines.sqlite import SQLITE_SETUP
from bench.workloads.events import Document

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memory (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, doc TEXT NOT NULL,
    content TEXT GENERATED ALWAYS AS (json_extract(doc, '$.content')) VIRTUAL);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    content, content='memory', content_rowid='number', tokenize='porter unicode61');
"""


class Fts5Peer(TextEngine):
    """FTS5 with external content over a table of JSON documents, so the text is stored once."""

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
