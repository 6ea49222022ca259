"""Sinks: where a chat buffer moves its turns to.

Invariants:
- A sink knows a turn by its id: one that it is given twice is there once when it is read.
- What store() has not named as failed is kept for good when it returns.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, final

from amberdb import Database, Document, Ordered
from amberdb._fs import OsFileSystem, append_lines
from amberdb._jsonl.text import dumps, loads

ARCHIVE = "chat_archive"


class Sink(Protocol):
    """What a chat buffer asks of one."""

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Keeps turns; of those that it could not keep, id -> why. Raises when it kept none."""
        ...

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        """The last turns of a conversation, the latest first: those created at `before` or
        earlier, or all."""
        ...


@final
class CollectionSink:
    """Another collection, of the same database or of another one."""

    def __init__(self, db: Database, name: str = ARCHIVE) -> None:
        self._collection = db.collection(name, indexes=[Ordered("conversation_id", "created_at")])

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        self._collection.put_many(turns, sync="always")
        return {}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        where: dict[str, object] = {"conversation_id": conversation_id}
        if before is not None:
            where["created_at"] = {"$lte": before}
        return self._collection.find(where, order_by="-created_at", limit=limit)


@final
class JsonlSink:
    """A file of JSON lines, appended and synced; for grep, jq and other programs. load() reads all
    of it. One process writes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._fs = OsFileSystem()
        self._mutex = threading.Lock()

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Raises OSError."""
        lines = "".join(f"{dumps(turn)}\n" for turn in turns).encode()
        with self._mutex:
            append_lines(self._fs, self._path, lines)
        return {}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        found = {
            turn["id"]: turn
            for turn in self._turns()
            if turn.get("conversation_id") == conversation_id
            and (before is None or turn["created_at"] <= before)
        }
        return sorted(found.values(), key=lambda turn: turn["created_at"], reverse=True)[:limit]

    def _turns(self) -> Iterator[Document]:
        """Without lines that a crash cut short: those turns were handed over again."""
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    try:
                        yield loads(line)
                    except ValueError:
                        continue
        except FileNotFoundError:
            return
