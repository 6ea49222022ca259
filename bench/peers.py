"""What AmberDB is compared with, each prepared as its own documentation would have it.

Invariants:
- Those of bench/engine.py. Durable means: SQLite synchronous=FULL, LMDB sync, RocksDB sync writes.
- Peers without indexes of their own keep hand-made ones, in the same commit as the document.
"""

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lmdb
import msgpack  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import rocksdict

from bench.engine import Engine
from bench.workloads import NEWEST, Document

_msgpack: Any = msgpack
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ID_SIZE = 24


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


json_of = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=datetime.isoformat
).encode


def document_of_json(text: str) -> Document:
    """With its datetimes."""
    document: Document = json.loads(text)
    document["created_at"] = datetime.fromisoformat(document["created_at"])
    if "expiry_date" in document:
        document["expiry_date"] = datetime.fromisoformat(document["expiry_date"])
    return document


class SqlitePeer(Engine):
    """SQLite in WAL mode, the document as JSON, the indexed fields as columns.

    One connection per thread would be SQLite's own way to share a database; writers that wait in
    its busy handler sleep and poll, so a lock around one connection was faster and is used.
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
            _microseconds(document["created_at"]),
            json_of(document),
        )
        if not self.expiring:
            return row
        expiry = document.get("expiry_date")
        return (*row, None if expiry is None else _microseconds(expiry))

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

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        rows = self._connection.execute(
            "SELECT doc FROM event WHERE entity_id = ? ORDER BY created_at DESC LIMIT ?",
            (entity, limit),
        )
        return [document_of_json(text) for (text,) in rows]

    def update(self, key: str, score: float) -> None:
        self._connection.execute(
            "UPDATE event SET doc = json_set(doc, '$.score', ?) WHERE id = ?", (score, key)
        )

    def expire(self, now: datetime) -> int:
        return self._connection.execute(
            "DELETE FROM event WHERE expiry_date <= ?", (_microseconds(now),)
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


def _microseconds(moment: datetime) -> int:
    return (moment - _UNIX) // _MICROSECOND


def _sortable(moment: datetime) -> bytes:
    return _microseconds(moment).to_bytes(8, "big")


def pack(document: Document) -> bytes:
    packed: bytes = _msgpack.packb(document, datetime=True)
    return packed


def unpack(packed: Any) -> Document:
    document: Document = _msgpack.unpackb(packed, timestamp=3)
    return document


def _index_keys(document: Document) -> tuple[bytes, bytes, bytes]:
    """The hand-made index keys: fields in sortable form, then the id."""
    tail = _sortable(document["created_at"]) + document["id"].encode()
    return (
        document["entity_id"].encode() + b"\0" + tail,
        tail,
        document["category"].encode() + b"\0" + tail,
    )


def _expiry_key(document: Document) -> bytes | None:
    expiry = document.get("expiry_date")
    return None if expiry is None else _sortable(expiry) + document["id"].encode()


_PAST_END = b"\xff" * 9  # behind every 8-byte time


class LmdbPeer(Engine):
    """Bare LMDB: one table of msgpack documents and the index tables beside it."""

    name = "lmdb"

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        super().__init__(path, expiring=expiring)
        self._open()

    def _open(self) -> None:
        self._env = lmdb.open(str(self.path / "bench.lmdb"), map_size=1 << 36, max_dbs=5)
        self._docs = self._env.open_db(b"docs")
        names = (b"entity", b"created", b"category")
        self._indexes = tuple(self._env.open_db(name) for name in names)
        self._expiry = self._env.open_db(b"expiry") if self.expiring else None

    def _store(self, txn: lmdb.Transaction, document: Document) -> None:
        txn.put(document["id"].encode(), pack(document), db=self._docs)
        for table, key in zip(self._indexes, _index_keys(document), strict=True):
            txn.put(key, b"", db=table)
        if self._expiry is not None and (expiry_key := _expiry_key(document)) is not None:
            txn.put(expiry_key, b"", db=self._expiry)

    def _remove(self, txn: lmdb.Transaction, key: bytes) -> None:
        packed = txn.pop(key, db=self._docs)
        assert packed is not None
        document = unpack(packed)
        for table, index_key in zip(self._indexes, _index_keys(document), strict=True):
            txn.delete(index_key, db=table)
        if self._expiry is not None and (expiry_key := _expiry_key(document)) is not None:
            txn.delete(expiry_key, db=self._expiry)

    def put(self, document: Document) -> None:
        with self._env.begin(write=True) as txn:
            self._store(txn, document)

    def put_many(self, documents: list[Document]) -> None:
        with self._env.begin(write=True) as txn:
            for document in documents:
                self._store(txn, document)

    def get(self, key: str) -> Document | None:
        with self._env.begin() as txn:
            packed = txn.get(key.encode(), db=self._docs)
        return None if packed is None else unpack(packed)

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        prefix = entity.encode() + b"\0"
        found: list[Document] = []
        with self._env.begin() as txn, closing(txn.cursor(self._indexes[0])) as cursor:
            on_row = cursor.prev() if cursor.set_range(prefix + _PAST_END) else cursor.last()
            while on_row and len(found) < limit:
                key = cursor.key()
                if not key.startswith(prefix):
                    break
                packed = txn.get(key[-_ID_SIZE:], db=self._docs)
                assert packed is not None
                found.append(unpack(packed))
                on_row = cursor.prev()
        return found

    def update(self, key: str, score: float) -> None:
        raw_key = key.encode()
        with self._env.begin(write=True) as txn:
            packed = txn.get(raw_key, db=self._docs)
            assert packed is not None
            document = unpack(packed)
            document["score"] = score
            txn.put(raw_key, pack(document), db=self._docs)

    def expire(self, now: datetime) -> int:
        assert self._expiry is not None
        end = _sortable(now)
        with self._env.begin(write=True) as txn:
            with closing(txn.cursor(self._expiry)) as cursor:
                due: list[bytes] = []
                for key in cursor.iternext(values=False):
                    if key[:8] > end:
                        break
                    due.append(key[-_ID_SIZE:])
            for doc_key in due:
                self._remove(txn, doc_key)
        return len(due)

    def remove_category(self, category: str) -> int:
        prefix = category.encode() + b"\0"
        with self._env.begin(write=True) as txn:
            with closing(txn.cursor(self._indexes[2])) as cursor:
                due: list[bytes] = []
                if cursor.set_range(prefix):
                    for key in cursor.iternext(values=False):
                        if not key.startswith(prefix):
                            break
                        due.append(key[-_ID_SIZE:])
            for doc_key in due:
                self._remove(txn, doc_key)
        return len(due)

    def settle(self) -> None:
        """Nothing to do: a commit is in its final place."""

    def compact(self) -> None:
        copy = self.path / "copy.lmdb"
        copy.mkdir()
        self._env.copy(str(copy), compact=True)
        self._env.close()
        shutil.rmtree(self.path / "bench.lmdb")
        copy.rename(self.path / "bench.lmdb")
        self._open()

    def close(self) -> None:
        self._env.close()

    def is_log(self, file: Path) -> bool:
        return file.name == "lock.mdb"


class RocksPeer(Engine):
    """RocksDB through rocksdict: one key space, a prefix per table, batches synced to its log."""

    name = "rocksdict"

    _TABLES = (b"e", b"t", b"c")  # entity, created, category
    _DOCS = b"d"
    _EXPIRY = b"x"

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        super().__init__(path, expiring=expiring)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        table = rocksdict.BlockBasedOptions()
        table.set_bloom_filter(10, False)
        table.set_block_cache(rocksdict.Cache(64 << 20))
        options.set_block_based_table_factory(table)
        # Its stubs do not know that raw mode gives and takes bytes only.
        self._db: Any = rocksdict.Rdict(str(path / "bench.rocks"), options)
        self._durable = rocksdict.WriteOptions()
        self._durable.sync = True

    def _store(self, batch: rocksdict.WriteBatch, document: Document) -> None:
        batch.put(self._DOCS + document["id"].encode(), pack(document))
        for table, key in zip(self._TABLES, _index_keys(document), strict=True):
            batch.put(table + key, b"")
        if self.expiring and (expiry_key := _expiry_key(document)) is not None:
            batch.put(self._EXPIRY + expiry_key, b"")

    def _remove(self, batch: rocksdict.WriteBatch, key: bytes) -> None:
        document = unpack(self._db[self._DOCS + key])
        batch.delete(self._DOCS + key)
        for table, index_key in zip(self._TABLES, _index_keys(document), strict=True):
            batch.delete(table + index_key)
        if self.expiring and (expiry_key := _expiry_key(document)) is not None:
            batch.delete(self._EXPIRY + expiry_key)

    def put(self, document: Document) -> None:
        self.put_many([document])

    def put_many(self, documents: list[Document]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for document in documents:
            self._store(batch, document)
        self._db.write(batch, self._durable)

    def get(self, key: str) -> Document | None:
        packed = self._db.get(self._DOCS + key.encode())
        return None if packed is None else unpack(packed)

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        prefix = b"e" + entity.encode() + b"\0"
        keys: list[bytes] = []
        for key in self._keys(prefix + _PAST_END, backwards=True):
            if len(keys) == limit or not key.startswith(prefix):
                break
            keys.append(self._DOCS + key[-_ID_SIZE:])
        return [unpack(packed) for packed in self._db.get(keys)]

    def _keys(self, start: bytes, *, backwards: bool = False) -> Iterator[bytes]:
        keys: Iterator[bytes] = self._db.keys(backwards=backwards, from_key=start)
        return keys

    def update(self, key: str, score: float) -> None:
        raw_key = self._DOCS + key.encode()
        document = unpack(self._db[raw_key])
        document["score"] = score
        self._db.put(raw_key, pack(document), self._durable)

    def expire(self, now: datetime) -> int:
        end = self._EXPIRY + _sortable(now)
        return self._remove_all(self._keys(self._EXPIRY), lambda key: key[:9] > end)

    def remove_category(self, category: str) -> int:
        prefix = b"c" + category.encode() + b"\0"
        return self._remove_all(self._keys(prefix), lambda key: not key.startswith(prefix))

    def _remove_all(self, keys: Iterable[bytes], is_past: Callable[[bytes], bool]) -> int:
        batch = rocksdict.WriteBatch(raw_mode=True)
        count = 0
        for key in keys:
            if is_past(key):
                break
            self._remove(batch, key[-_ID_SIZE:])
            count += 1
        self._db.write(batch, self._durable)
        return count

    def settle(self) -> None:
        self._db.flush()

    def compact(self) -> None:
        self._db.flush()
        self._db.compact_range(None, None)

    def close(self) -> None:
        self._db.close()

    def is_log(self, file: Path) -> bool:
        return file.suffix == ".log" or file.name.startswith(("LOG", "LOCK"))


PEERS: tuple[type[Engine], ...] = (SqlitePeer, LmdbPeer, RocksPeer)
