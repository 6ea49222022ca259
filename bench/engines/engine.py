"""The interface that AmberDB and its peers are timed through.

Invariants:
- All store the same documents and return them equal, datetimes included.
- All maintain the three ordered indexes of bench/workloads/events.py on put, update and removal;
  with `expiring=True` each also finds expired documents by an index.
- `put`, `put_many`, `update`, `expire`, `delete_expired` and `remove_category` are durable when
  they return: the data survives power loss. An engine for which this is not so has it in its name.
- `put` may be called from several threads.
"""

from abc import abstractmethod
from datetime import datetime
from pathlib import Path

from bench.engines.database import Database
from bench.workloads.events import NEWEST, Document


class Engine(Database):
    """One database of event documents."""

    def __init__(self, path: Path, *, expiring: bool = False) -> None:
        super().__init__(path)
        self.expiring = expiring

    @abstractmethod
    def get(self, key: str) -> Document | None: ...

    @abstractmethod
    def get_many(self, keys: list[str]) -> list[Document]:
        """Documents that exist, in the order of their keys."""

    @abstractmethod
    def newest(self, entity: str, limit: int = NEWEST) -> list[Document]:
        """The newest documents of one entity, newest first."""

    @abstractmethod
    def scan(self, key: str, limit: int) -> list[Document]:
        """The first documents whose id is at least `key`, by id."""

    @abstractmethod
    def update(self, key: str, score: float) -> None:
        """Changes one field of one document."""

    @abstractmethod
    def expire(self, now: datetime) -> int:
        """Removes every document with expiry_date <= now; returns the count."""

    def delete_expired(self, now: datetime) -> int:
        """The same by the delete that a program calls, at any `now`."""
        return self.expire(now)

    @abstractmethod
    def remove_category(self, category: str) -> int:
        """Removes the documents of one category; returns the count."""

    @abstractmethod
    def compact(self) -> None:
        """Frees the space of removed documents."""

    def is_log(self, file: Path) -> bool:
        """Whether this file is a log or a lock, and so not part of the size of the data."""
        del file
        return False

    def data_bytes(self) -> int:
        """Bytes that the data files occupy on disk."""
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sum(file.stat().st_blocks * 512 for file in files if not self.is_log(file))
