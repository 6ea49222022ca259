"""RocksDB through rocksdict, with hand-made indexes.

Invariants:
- Those of bench/engines/engine.py; durable means write batches with sync=True.
- Index entries are written in the same batch as their document.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import rocksdict

from bench.engines.encoding import ID_SIZE, PAST_END, expiry_key, index_keys, pack, sortable, unpack
from bench.engines.engine import Engine
from bench.workloads.events import NEWEST, Document


class RocksPeer(Engine):
    """RocksDB through rocksdict: one column family, a key prefix per table, synced batches."""

    name = "rocksdict"

    _TABLES = (b"e", b"t", b"c")  # of the indexes: entity, created, category
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
        # Any: the stubs do not know that in raw mode keys and values are bytes.
        self._db: Any = rocksdict.Rdict(str(path / "bench.rocks"), options)
        self._durable = rocksdict.WriteOptions()
        self._durable.sync = True

    def _store(self, batch: rocksdict.WriteBatch, document: Document) -> None:
        batch.put(self._DOCS + document["id"].encode(), pack(document))
        for table, key in zip(self._TABLES, index_keys(document), strict=True):
            batch.put(table + key, b"")
        if self.expiring and (expiry := expiry_key(document)) is not None:
            batch.put(self._EXPIRY + expiry, b"")

    def _remove(self, batch: rocksdict.WriteBatch, key: bytes) -> None:
        document = unpack(self._db[self._DOCS + key])
        batch.delete(self._DOCS + key)
        for table, index_key in zip(self._TABLES, index_keys(document), strict=True):
            batch.delete(table + index_key)
        if self.expiring and (expiry := expiry_key(document)) is not None:
            batch.delete(self._EXPIRY + expiry)

    def put_many(self, documents: list[Document]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for document in documents:
            self._store(batch, document)
        self._db.write(batch, self._durable)

    def get(self, key: str) -> Document | None:
        packed = self._db.get(self._DOCS + key.encode())
        return None if packed is None else unpack(packed)

    def get_many(self, keys: list[str]) -> list[Document]:
        found = self._db.get([self._DOCS + key.encode() for key in keys])
        return [unpack(packed) for packed in found if packed is not None]

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        prefix = b"e" + entity.encode() + b"\0"
        keys: list[bytes] = []
        for key in self._keys(prefix + PAST_END, backwards=True):
            if len(keys) == limit or not key.startswith(prefix):
                break
            keys.append(self._DOCS + key[-ID_SIZE:])
        return [unpack(packed) for packed in self._db.get(keys)]

    def _keys(self, start: bytes, *, backwards: bool = False) -> Iterator[bytes]:
        keys: Iterator[bytes] = self._db.keys(backwards=backwards, from_key=start)
        return keys

    def scan(self, key: str, limit: int) -> list[Document]:
        pairs = islice(self._db.items(from_key=self._DOCS + key.encode()), limit)
        return [unpack(packed) for found, packed in pairs if found.startswith(self._DOCS)]

    def update(self, key: str, score: float) -> None:
        raw_key = self._DOCS + key.encode()
        document = unpack(self._db[raw_key])
        document["score"] = score
        self._db.put(raw_key, pack(document), self._durable)

    def expire(self, now: datetime) -> int:
        end = self._EXPIRY + sortable(now)
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
            self._remove(batch, key[-ID_SIZE:])
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
