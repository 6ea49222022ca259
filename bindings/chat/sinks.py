"""Sinks: where a chat buffer flushes its turns to.

Invariants:
- A turn that store() gets twice, with the same id, is returned once by load().
- When store() returns, all turns are durable except those that it names as failed.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, final

from amberdb import Database, Document, Ordered
from amberdb._jsonl.text import dumps, loads
from amberdb._shared.files import append_lines
from amberdb._shared.queries import having

ARCHIVE = "chat_archive"
_NEWEST = ("-position", "-created_at")
"""Turns of earlier versions have no position and are the oldest, in the order of their times."""


class Sink(Protocol):
    """The interface that a chat buffer needs."""

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Stores turns; for those that it could not store, id -> reason. An exception means that
        none was stored."""
        ...

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        """The last turns of a conversation, the newest first: by `position`, which follows the
        order in which they were saved. Only those created at `before` or earlier, if it is given
        (a buffer gives None: a clock may have been set back since)."""
        ...


@final
class CollectionSink:
    """A collection of the same database, or of another one."""

    def __init__(self, db: Database, name: str = ARCHIVE) -> None:
        self._collection = db.collection(
            name, indexes=[Ordered("conversation_id", "position", "created_at")]
        )

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        self._collection.put_many(turns, sync="always")
        return {}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        where = having(conversation_id=conversation_id)
        if before is not None:
            where["created_at"] = {"$lte": before}
        return self._collection.find(where, order_by=_NEWEST, limit=limit)


@final
class JsonlSink:
    """A file of JSON lines, for grep, jq and other programs. store() appends and syncs, load()
    reads the whole file. Only one process may write to it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._mutex = threading.Lock()

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Raises OSError."""
        lines = "".join(f"{dumps(turn)}\n" for turn in turns).encode()
        with self._mutex:
            append_lines(self._path, lines)
        return {}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        having(conversation_id=conversation_id)  # raises
        turns = {
            turn["id"]: turn
            for turn in self._turns()
            if turn.get("conversation_id") == conversation_id
            and (before is None or turn["created_at"] <= before)
        }
        return sorted(turns.values(), key=_place, reverse=True)[:limit]

    def _turns(self) -> Iterator[Document]:
        """All turns of the file. A line that a crash cut short is skipped: its turns were sent
        again."""
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    try:
                        yield loads(line)
                    except ValueError:
                        continue
        except FileNotFoundError:
            return


def _place(turn: Document) -> tuple[int, datetime]:
    """_NEWEST of a turn in memory."""
    return turn.get("position", 0), turn["created_at"]
