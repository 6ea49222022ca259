"""The interface that AmberDB and its peers are timed through.

Invariants:
- All store the same documents and return them equal, datetimes included.
- All maintain the three ordered indexes of bench/workloads/events.py on put, update and removal;
  with `expiring=True` each also finds expired documents by an index.
- `put`, `put_many`, `update`, `expire` and `remove_category` are durable when they return: the
  data survives power loss.
- `put` may be called from several threads.
"""

from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from bench.workloads.events import NEWEST, Document


class Engine(ABC):
    """One database in one directory."""

    name: ClassVar[str]

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.expiring = expiring

    @abstractmethod
    def put(self, document: Document) -> None:
        """One durable upsert by id."""

    @abstractmethod
    def put_many(self, documents: list[Document]) -> None:
        """All in one durable commit."""

    @abstractmethod
    def get(self, key: str) -> Document | None: ...

    @abstractmethod
    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        """The newest documents of one entity, newest first."""

    @abstractmethod
    def update(self, key: str, score: float) -> None:
        """Changes one field of one document."""

    @abstractmethod
    def expire(self, now: datetime) -> int:
        """Removes every document with expiry_date <= now; returns the count."""

    @abstractmethod
    def remove_category(self, category: str) -> int:
        """Removes the documents of one category; returns the count."""

    @abstractmethod
    def settle(self) -> None:
        """Moves the contents of logs and memory into the data files."""

    @abstractmethod
    def compact(self) -> None:
        """Frees the space of removed documents."""

    @abstractmethod
    def close(self) -> None: ...

    def is_log(self, file: Path) -> bool:
        """Whether this file is a log or a lock, and so not part of the size of the data."""
        del file
        return False

    def data_bytes(self) -> int:
        """Bytes that the data files occupy on disk."""
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sum(file.stat().st_blocks * 512 for file in files if not self.is_log(file))
