"""Sinks for tests of the chat buffer, which refuse turns, or are down."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from amberdb import Document


class MinimalSink:
    """A sink in memory with the two methods that a buffer needs, and no more."""

    def __init__(self) -> None:
        self.turns_by_id: dict[str, Document] = {}
        self.order: list[str] = []
        """The words of turns, in the order in which they came."""
        self.error: Exception | None = None
        """Raised by every call."""
        self.refused: dict[str, Exception | None] = {}
        """By the words of a turn: named in the result, or an exception for its batch."""
        self.loads = 0
        self.stores = 0
        self.before_return: Callable[[], object] = lambda: None
        """Called when the turns are stored, before store() returns."""

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        self.stores += 1
        if self.error is not None:
            raise self.error
        named: dict[str, str] = {}
        for turn in turns:
            if (words := turn["user_message"]) in self.refused:
                if (error := self.refused[words]) is not None:
                    raise error
                named[turn["id"]] = "not this one"
        for turn in turns:
            if turn["id"] not in named:
                self.turns_by_id[turn["id"]] = turn
                self.order.append(turn["user_message"])
        self.before_return()
        return named

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        self.loads += 1
        if self.error is not None:
            raise self.error
        turns = self._found(conversation_id=conversation_id)
        return turns[::-1][:limit]

    def _found(self, **where: str | None) -> list[Document]:
        found = [
            turn
            for turn in self.turns_by_id.values()
            if all(value in (None, turn[name]) for name, value in where.items())
        ]
        return sorted(found, key=lambda turn: int(turn["position"]))


class FullSink(MinimalSink):
    """One that lists and deletes as well."""

    def turns(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Iterator[Document]:
        yield from self._found(conversation_id=conversation_id, user_id=user_id)

    def delete(self, ids: Sequence[str]) -> int:
        if self.error is not None:
            raise self.error
        return sum(self.turns_by_id.pop(id, None) is not None for id in ids)
