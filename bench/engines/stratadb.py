"""Strata (stratadb), through its key-value store, with hand-made indexes.

Invariants:
- Those of bench/engines/engine.py, with durability="always". With "standard" a commit may be lost
  with the process: it is compared because it is the default.
- A commit of Strata has at most 4,096 entries, so a larger batch is several, and not atomic.
- Strata lists keys in ascending order alone, so the index of an entity ends with the time inverted.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from bench.engines.database import library
from bench.engines.encoding import ID_SIZE, expiry_key, index_keys, pack, sortable, unpack
from bench.engines.engine import Engine
from bench.workloads.events import NEWEST, Document

_DOCS = b"d"
_TABLES = (b"e", b"t", b"c")  # of the indexes: entity, created, category
_EXPIRY = b"x"
_TIME_BYTES = 8
_ENTRIES_MAX = 4_096

Entry = TypeVar("Entry")


class StrataPeer(Engine):
    """Strata in a directory of its own, a key prefix per table, opened by this process alone."""

    name = "strata"
    packages = ("stratadb",)
    _durability: ClassVar[str] = "always"

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        super().__init__(path, expiring=expiring)
        self._db: Any = library("stratadb").open(
            str(path / "bench.strata"), durability=self._durability, ipc="off"
        )
        self._kv: Any = self._db.kv

    def _entries(self, document: Document) -> dict[bytes, bytes]:
        entries = dict.fromkeys(self._index_keys(document), b"")
        entries[_DOCS + document["id"].encode()] = pack(document)
        return entries

    def _index_keys(self, document: Document) -> list[bytes]:
        of_entity, *others = index_keys(document)
        start = len(of_entity) - ID_SIZE - _TIME_BYTES
        time = of_entity[start : start + _TIME_BYTES]
        of_entity = of_entity[:start] + _inverted(time) + of_entity[start + _TIME_BYTES :]
        keys = [table + key for table, key in zip(_TABLES, (of_entity, *others), strict=True)]
        if self.expiring and (expiry := expiry_key(document)) is not None:
            keys.append(_EXPIRY + expiry)
        return keys

    def put_many(self, documents: list[Document]) -> None:
        entries: dict[bytes, bytes] = {}
        for document in documents:
            entries |= self._entries(document)
        for part in _parts(list(entries.items())):
            self._kv.put_many(dict(part))

    def get(self, key: str) -> Document | None:
        packed = self._kv.get(_DOCS + key.encode())
        return None if packed is None else unpack(packed)

    def get_many(self, keys: list[str]) -> list[Document]:
        found = self._kv.get_many([_DOCS + key.encode() for key in keys])
        return [unpack(packed) for packed in found if packed is not None]

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        prefix = _TABLES[0] + entity.encode() + b"\0"
        keys = islice(self._kv.keys(prefix=prefix, limit=limit), limit)
        return self.get_many([key[-ID_SIZE:].decode() for key in keys])

    def scan(self, key: str, limit: int) -> list[Document]:
        rows = islice(self._kv.scan(_DOCS + key.encode(), limit=limit), limit)
        return [unpack(row.value) for row in rows if row.key.startswith(_DOCS)]

    def update(self, key: str, score: float) -> None:
        raw_key = _DOCS + key.encode()
        document = unpack(self._kv.get(raw_key))
        document["score"] = score
        self._kv.put(raw_key, pack(document))

    def expire(self, now: datetime) -> int:
        end = _EXPIRY + sortable(now)
        keys = self._kv.iter_keys(prefix=_EXPIRY)
        return self._remove(takewhile(lambda key: key[:9] <= end, keys))

    def remove_category(self, category: str) -> int:
        return self._remove(self._kv.iter_keys(prefix=b"c" + category.encode() + b"\0"))

    def _remove(self, index_entries: Iterable[bytes]) -> int:
        documents = self.get_many([key[-ID_SIZE:].decode() for key in index_entries])
        keys: list[bytes] = []
        for document in documents:
            keys += [_DOCS + document["id"].encode(), *self._index_keys(document)]
        for part in _parts(keys):
            self._kv.delete_many(part)
        return len(documents)

    def settle(self) -> None:
        """Does nothing: Strata decides by itself when its log goes into data files."""

    def compact(self) -> None:
        raise NotImplementedError("keeps earlier versions, and has no compaction to call")

    def close(self) -> None:
        self._db.close()


class StrataStandardPeer(StrataPeer):
    """The default durability: a commit is synced with a later one."""

    name = "strata, not synced"
    recovers = False
    _durability = "standard"


def _inverted(time: bytes) -> bytes:
    return bytes(255 - byte for byte in time)


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for start in range(0, len(entries), _ENTRIES_MAX):
        yield entries[start : start + _ENTRIES_MAX]
