"""Bare LMDB with hand-made indexes.

Invariants:
- Those of bench/engines/engine.py; durable means a synced transaction.
- Index entries are written in the same transaction as their document.
"""

import shutil
from contextlib import closing
from datetime import datetime
from itertools import islice
from pathlib import Path

import lmdb

from bench.engines.encoding import ID_SIZE, PAST_END, expiry_key, index_keys, pack, sortable, unpack
from bench.engines.engine import Engine
from bench.workloads.events import NEWEST, Document


class LmdbPeer(Engine):
    """Bare LMDB: one table of msgpack documents and a table for each index."""

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
        for table, key in zip(self._indexes, index_keys(document), strict=True):
            txn.put(key, b"", db=table)
        if self._expiry is not None and (expiry := expiry_key(document)) is not None:
            txn.put(expiry, b"", db=self._expiry)

    def _remove(self, txn: lmdb.Transaction, key: bytes) -> None:
        packed = txn.pop(key, db=self._docs)
        assert packed is not None
        document = unpack(packed)
        for table, index_key in zip(self._indexes, index_keys(document), strict=True):
            txn.delete(index_key, db=table)
        if self._expiry is not None and (expiry := expiry_key(document)) is not None:
            txn.delete(expiry, db=self._expiry)

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

    def get_many(self, keys: list[str]) -> list[Document]:
        with self._env.begin() as txn:
            packed = [txn.get(key.encode(), db=self._docs) for key in keys]
        return [unpack(one) for one in packed if one is not None]

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        prefix = entity.encode() + b"\0"
        found: list[Document] = []
        with self._env.begin() as txn, closing(txn.cursor(self._indexes[0])) as cursor:
            on_row = cursor.prev() if cursor.set_range(prefix + PAST_END) else cursor.last()
            while on_row and len(found) < limit:
                key = cursor.key()
                if not key.startswith(prefix):
                    break
                packed = txn.get(key[-ID_SIZE:], db=self._docs)
                assert packed is not None
                found.append(unpack(packed))
                on_row = cursor.prev()
        return found

    def scan(self, key: str, limit: int) -> list[Document]:
        with self._env.begin() as txn, closing(txn.cursor(self._docs)) as cursor:
            if not cursor.set_range(key.encode()):
                return []
            return [unpack(packed) for packed in islice(cursor.iternext(keys=False), limit)]

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
        end = sortable(now)
        with self._env.begin(write=True) as txn:
            with closing(txn.cursor(self._expiry)) as cursor:
                due: list[bytes] = []
                for key in cursor.iternext(values=False):
                    if key[:8] > end:
                        break
                    due.append(key[-ID_SIZE:])
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
                        due.append(key[-ID_SIZE:])
            for doc_key in due:
                self._remove(txn, doc_key)
        return len(due)

    def settle(self) -> None:
        """Does nothing: a commit writes the data file."""

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
