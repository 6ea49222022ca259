"""SQLite, prepared as its documentation recommends for durable writes.

Invariants:
- Those of bench/engines/engine.py; durable means WAL with synchronous=FULL.
"""

import sqlite3
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.engines.encoding import document_of_json, json_of, microseconds
from bench.engines.engine import Engine
from bench.workloads.events import NEWEST, Document

SQLITE_SETUP = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-65536",  # 64 MiB; the default of 2 MiB would flatter the others
    "PRAGMA mmap_size=1073741824",
    "PRAGMA busy_timeout=60000",
)
_SQLITE_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    id TEXT PRIMARY KEY, entity_id TEXT, category TEXT, created_at INTEGER, doc TEXT NOT NULL
    {expiry_column});
CREATE INDEX IF NOT EXISTS event_entity ON event (entity_id, created_at);
CREATE INDEX IF NOT EXISTS event_created ON event (created_at);
CREATE INDEX IF NOT EXISTS event_category ON event (category, created_at);
{expiry_index}
"""
_SQLITE_EXPIRY_INDEX = """CREATE INDEX IF NOT EXISTS event_expiry ON event (expiry_date)
    WHERE expiry_date IS NOT NULL;"""
_SQLITE_PUT = """INSERT INTO event (id, entity_id, category, created_at, doc{column})
    VALUES (?, ?, ?, ?, ?{mark}) ON CONFLICT (id) DO UPDATE SET entity_id = excluded.entity_id,
    category = excluded.category, created_at = excluded.created_at, doc = excluded.doc{update}"""


class SqlitePeer(Engine):
    """SQLite in WAL mode, the document as JSON, the indexed fields as columns.

    One connection is shared behind a lock. A connection per thread is the usual way, but writers in
    SQLite's busy handler sleep and poll, which was half as fast.
    """

    name = "sqlite"

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        super().__init__(path, expiring=expiring)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path / "bench.sqlite", isolation_level=None, check_same_thread=False
        )
        for pragma in SQLITE_SETUP:
            self._connection.execute(pragma)
        self._connection.executescript(
            _SQLITE_SCHEMA.format(
                expiry_column=", expiry_date INTEGER" if expiring else "",
                expiry_index=_SQLITE_EXPIRY_INDEX if expiring else "",
            )
        )
        self._put = _SQLITE_PUT.format(
            column=", expiry_date" if expiring else "",
            mark=", ?" if expiring else "",
            update=", expiry_date = excluded.expiry_date" if expiring else "",
        )

    def _row(self, document: Document) -> tuple[Any, ...]:
        row = (
            document["id"],
            document["entity_id"],
            document["category"],
            microseconds(document["created_at"]),
            json_of(document),
        )
        if not self.expiring:
            return row
        expiry = document.get("expiry_date")
        return (*row, None if expiry is None else microseconds(expiry))

    def put(self, document: Document) -> None:
        row = self._row(document)
        with self._lock:
            self._connection.execute(self._put, row)

    def put_many(self, documents: list[Document]) -> None:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(self._put, map(self._row, documents))
            self._connection.execute("COMMIT")

    def get(self, key: str) -> Document | None:
        row = self._connection.execute("SELECT doc FROM event WHERE id = ?", (key,)).fetchone()
        return None if row is None else document_of_json(row[0])

    def get_many(self, keys: list[str]) -> list[Document]:
        marks = ",".join("?" * len(keys))
        rows = self._connection.execute(
            f"SELECT id, doc FROM event WHERE id IN ({marks})", keys
        ).fetchall()
        found = dict(rows)
        return [document_of_json(found[key]) for key in keys if key in found]

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        rows = self._connection.execute(
            "SELECT doc FROM event WHERE entity_id = ? ORDER BY created_at DESC LIMIT ?",
            (entity, limit),
        )
        return [document_of_json(text) for (text,) in rows]

    def scan(self, key: str, limit: int) -> list[Document]:
        rows = self._connection.execute(
            "SELECT doc FROM event WHERE id >= ? ORDER BY id LIMIT ?", (key, limit)
        )
        return [document_of_json(text) for (text,) in rows]

    def update(self, key: str, score: float) -> None:
        self._connection.execute(
            "UPDATE event SET doc = json_set(doc, '$.score', ?) WHERE id = ?", (score, key)
        )

    def expire(self, now: datetime) -> int:
        return self._connection.execute(
            "DELETE FROM event WHERE expiry_date <= ?", (microseconds(now),)
        ).rowcount

    def remove_category(self, category: str) -> int:
        return self._connection.execute(
            "DELETE FROM event WHERE category = ?", (category,)
        ).rowcount

    def settle(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def compact(self) -> None:
        self._connection.execute("VACUUM")
        self.settle()

    def close(self) -> None:
        self._connection.close()

    def is_log(self, file: Path) -> bool:
        return file.name.endswith(("-wal", "-shm"))
