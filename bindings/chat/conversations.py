"""What is known of each conversation: how many turns were flushed, when, and at which positions.

A turn leaves the hot tier some time after it was flushed. By the positions that were flushed
load_recent_context() sees whether one has left, and asks the sink only then.

    {conversation_id, user_id, turns, first_at, last_at, last_position, positions, below}

    positions  the newest that were flushed, at most POSITIONS_MAX
    below      the highest position that is not among them any more, or None

Invariants:
- A record changes in the commit that marks its turns as flushed.
- There is one for each user of a conversation, so that it is his alone.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypedDict, final

from amberdb import Database, Document, Ordered, Transaction
from amberdb._shared.queries import all_pages, having, of_one
from amberdb.chat.turns import place, time_of

POSITIONS_MAX: Final = 100


class Conversation(TypedDict):
    """A conversation of a user, in the result of conversations()."""

    conversation_id: str
    user_id: str
    turns: int
    first_at: datetime
    last_at: datetime


@final
class Conversations:
    """The records of conversations, in a collection of their own."""

    def __init__(self, db: Database, name: str) -> None:
        self.name = name
        self._collection = db.collection(
            name,
            indexes=[
                Ordered("conversation_id"),
                Ordered("user_id", "last_position"),
                Ordered("last_position"),
            ],
            required={"conversation_id": str, "user_id": str},
            owner="chat",
        )

    def lock(self, tx: Transaction, *conversation_ids: str) -> None:
        """Holds the positions of conversations."""
        tx.lock(*(f"{self.name}/{each}" for each in conversation_ids))

    def last_position(self) -> int:
        """The highest position that was flushed."""
        for last in self._collection.find(order_by="-last_position", limit=1):
            return int(last["last_position"])
        return 0

    def of(self, conversation_id: str) -> list[Document]:
        """The records of a conversation, one for each of its users."""
        return list(all_pages(self._collection.find, of_one(conversation_id=conversation_id)))

    def ids(self, user_id: str | None) -> set[str]:
        """The conversations of a user, or all of them."""
        pages = all_pages(
            self._collection.find, having(user_id=user_id), fields=["conversation_id"]
        )
        return {record["conversation_id"] for record in pages}

    def known(self, tx: Transaction, turn: Document) -> bool:
        """Whether a turn was marked as flushed."""
        record = tx[self.name].get(_id(turn))
        if record is None:
            return False
        below = record["below"]
        return place(turn) in record["positions"] or (below is not None and place(turn) <= below)

    def is_taken(self, tx: Transaction, hot: str, conversation_id: str, position: int) -> bool:
        """Whether a turn of the conversation is at a position, or was before it left the hot tier;
        `hot`: its collection."""
        where = {"conversation_id": conversation_id, "position": position}
        if tx[hot].count(where):
            return True
        records = all_pages(tx[self.name].find, of_one(conversation_id=conversation_id))
        return any(position in record["positions"] for record in records)

    def add(self, tx: Transaction, turns: Iterable[Document]) -> None:
        """Adds turns that are being marked as flushed."""
        records: dict[str, Document] = {}
        for turn in turns:
            id = _id(turn)
            if id not in records:
                records[id] = tx[self.name].get(id) or _empty(id, turn)
            _add(records[id], turn)
        tx[self.name].put_many(records.values())

    def of_user(self, user_id: str, limit: int, hot: Iterable[Document]) -> list[Conversation]:
        """The conversations of a user, that with the newest turn first. `hot`: his turns in the hot
        tier."""
        where = of_one(user_id=user_id)
        page = self._collection.find(where, order_by="-last_position", limit=limit)
        records = {record["id"]: record for record in page}
        flushed: dict[str, int] = {}
        for turn in hot:
            id = _id(turn)
            if id not in records:
                records[id] = self._collection.get(id) or _empty(id, turn)
            if turn.get("flushed_at") is None:
                _add(records[id], turn)
            else:
                flushed[id] = flushed.get(id, 0) + 1
                if flushed[id] > records[id]["turns"]:  # flushed by an earlier version
                    _add(records[id], turn)
        ordered = sorted(records.values(), key=lambda record: -int(record["last_position"]))
        return [
            Conversation(
                conversation_id=record["conversation_id"],
                user_id=record["user_id"],
                turns=record["turns"],
                first_at=record["first_at"],
                last_at=record["last_at"],
            )
            for record in ordered[:limit]
        ]


def _id(turn: Document) -> str:
    """The id of a turn's record: ids of users and conversations may be longer than an id of a
    document."""
    whose = json.dumps([turn["conversation_id"], turn["user_id"]])
    return hashlib.sha256(whose.encode()).hexdigest()


def _empty(id: str, turn: Document) -> Document:
    return {
        "id": id,
        "conversation_id": turn["conversation_id"],
        "user_id": turn["user_id"],
        "turns": 0,
        "first_at": time_of(turn),
        "last_at": time_of(turn),
        "last_position": place(turn),
        "positions": [],
        "below": None,
    }


def _add(record: Document, turn: Document) -> None:
    positions = sorted({*record["positions"], place(turn)})
    cut = positions[:-POSITIONS_MAX]
    record["turns"] += 1
    record["first_at"] = min(record["first_at"], time_of(turn))
    record["last_at"] = max(record["last_at"], time_of(turn))
    record["last_position"] = max(record["last_position"], place(turn))
    record["positions"] = positions[-POSITIONS_MAX:]
    if cut:
        record["below"] = max(cut[-1], -1 if record["below"] is None else record["below"])
