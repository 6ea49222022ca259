"""Sinks: where a chat buffer flushes its turns to.

Invariants:
- A turn that store() gets twice, with the same id, is returned once by load().
- When store() returns, all turns are durable except those that it names as failed.
- Turns are in the order of their positions, whatever their times are.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeGuard, cast, final

from amberdb import Database, Document, Ordered, Text
from amberdb._jsonl.text import dumps, loads
from amberdb._shared.files import append_lines
from amberdb._shared.queries import all_pages, having, of_one
from amberdb.chat.turns import id_of, newest, place, time_of

ARCHIVE: Final = "chat_archive"
WORDS: Final = Text("user_message", "assistant_message")
_NEWEST: Final = ("-position", "-created_at")
"""Turns of earlier versions have no position and are the oldest, in the order of their times."""


class Sink(Protocol):
    """The interface that a chat buffer needs. A sink may have the methods of the other protocols of
    this module too."""

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Stores turns; for those that it refuses, id -> reason. An exception means that none was
        stored; a ConnectionError or a TimeoutError, that the sink cannot be reached."""
        ...

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        """The last turns of a conversation, the newest first: by `position`, which follows the
        order in which they were saved. Only those created at `before` or earlier, if it is given
        (a buffer gives None: a clock may have been set back since)."""
        ...


class ListingSink(Protocol):
    """A sink whose turns can be listed: for export(), delete_conversation() and delete_user()."""

    def turns(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Iterable[Document]:
        """All turns of a conversation, of a user, or of both, in the order of their positions."""
        ...


class DeletingSink(ListingSink, Protocol):
    """A sink that deletes turns: for delete_conversation() and delete_user()."""

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes turns, durably; how many there were."""
        ...


class SearchingSink(Protocol):
    """A sink that finds turns by their words: for search()."""

    def search(
        self, text: str | None, query: str | None, where: Mapping[str, str], limit: int
    ) -> Sequence[tuple[float, Document]]:
        """The best turns that match words, or a query in the query language, with their scores, the
        best first. `where`: the conversation_id and user_id that they have."""
        ...


def can_list(sink: Sink | None) -> TypeGuard[ListingSink]:
    """Whether a sink has the methods of ListingSink; an attribute of that name is not enough."""
    return callable(getattr(sink, "turns", None))


def can_delete(sink: Sink | None) -> TypeGuard[DeletingSink]:
    """Whether a sink has the methods of DeletingSink."""
    return can_list(sink) and callable(getattr(sink, "delete", None))


def can_search(sink: Sink | None) -> TypeGuard[SearchingSink]:
    """Whether a sink has the method of SearchingSink."""
    return callable(getattr(sink, "search", None))


@final
class CollectionSink:
    """A collection of the same database, or of another one."""

    def __init__(self, db: Database, name: str = ARCHIVE) -> None:
        self.db = db
        self.name = name
        self._collection = db.collection(
            name,
            indexes=[
                Ordered("conversation_id", "position", "created_at"),
                Ordered("user_id", "position"),
                Ordered("position"),
                WORDS,
            ],
            owner="chat",
        )

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        self._collection.put_many(turns, sync="always")
        return {}

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        where = of_one(conversation_id=conversation_id)
        if before is not None:
            where["created_at"] = {"$lte": before}
        return self._collection.find(where, order_by=_NEWEST, limit=limit)

    def turns(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Iterator[Document]:
        where = having(conversation_id=conversation_id, user_id=user_id)
        return all_pages(self._collection.find, where, order_by="position")

    def delete(self, ids: Sequence[str]) -> int:
        return self._collection.delete_many(ids=ids, sync="always")

    def search(
        self, text: str | None, query: str | None, where: Mapping[str, str], limit: int
    ) -> Sequence[tuple[float, Document]]:
        hits = self._collection.search(text, query=query, where=dict(where), limit=limit)
        return [(hit.score, hit.document) for hit in hits]


@final
class JsonlSink:
    """A file of JSON lines, for grep, jq and other programs. store() appends and syncs, load()
    reads the whole file. Only one process may write to it. A buffer deletes nothing from it."""

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
        turns = self.turns(**of_one(conversation_id=conversation_id))
        return newest((t for t in turns if before is None or time_of(t) <= before), limit)

    def turns(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Sequence[Document]:
        where = having(conversation_id=conversation_id, user_id=user_id)  # raises
        found: dict[str, Document] = {}
        for turn in self._lines():
            if all(turn.get(name) == value for name, value in where.items()):
                found[id_of(turn)] = turn
            else:  # an earlier line may have had other values
                found.pop(id_of(turn), None)
        return sorted(found.values(), key=place)

    def _lines(self) -> Iterator[Document]:
        """All turns of the file. A line that a crash cut short is skipped: its turns were sent
        again."""
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    try:
                        turn = loads(line)
                    except ValueError:
                        continue
                    if isinstance(turn, dict):
                        yield cast(Document, turn)
        except FileNotFoundError:
            return
