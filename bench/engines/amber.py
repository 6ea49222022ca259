"""AmberDB with its defaults, behind the interface of the compared engines."""

from datetime import datetime
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Ordered
from bench.engines.database import HELD_IN_MEMORY
from bench.engines.engine import Engine
from bench.workloads.events import INDEXES, NEWEST, Document


class AmberEngine(Engine):
    """AmberDB with its defaults."""

    name = "amberdb"
    held = HELD_IN_MEMORY

    def __init__(self, path: Path, *, expiring: bool = False, **options: Any) -> None:
        super().__init__(path, expiring=expiring)
        self.db = amberdb.open(path / "bench.amber", **options)
        self.events = self.db.collection(
            "event",
            indexes=[Ordered(*fields) for fields in INDEXES],
            expires_at="expiry_date" if expiring else None,
        )

    def put(self, document: Document) -> None:
        self.events.put(document)

    def put_many(self, documents: list[Document]) -> None:
        self.events.put_many(documents)

    def get(self, key: str) -> Document | None:
        document: Document | None = self.events.get(key)
        return document

    def get_many(self, keys: list[str]) -> list[Document]:
        return [document for document in self.events.get_many(keys) if document is not None]

    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        return list(self.events.find({"entity_id": entity}, order_by="-created_at", limit=limit))

    def scan(self, key: str, limit: int) -> list[Document]:
        return list(self.events.find({"id": {"$gte": key}}, order_by="id", limit=limit))

    def update(self, key: str, score: float) -> None:
        self.events.update(key, {"score": score})

    def expire(self, now: datetime) -> int:
        del now  # the database reads its own clock
        return self.db.expire()

    def delete_expired(self, now: datetime) -> int:
        return self.events.delete_many({"expiry_date": {"$lte": now}})

    def remove_category(self, category: str) -> int:
        return self.events.delete_many({"category": category})

    def settle(self) -> None:
        self.db.checkpoint()

    def compact(self) -> None:
        self.db.compact()

    def close(self) -> None:
        self.db.close()

    def is_log(self, file: Path) -> bool:
        return "wal" in file.parts or file.name in ("LOCK", "lock.mdb")
