"""Draws what one owner does: documents, reads, writes, and their mix.

Invariants:
- A drawing depends on the generator and the time alone, never on an answer: the same seed gives
  the same actions in another process while the clock stands still.
- Every owner has ids, codes and accounts of its own to read; so no other thread changes its
  answers.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, final

from amberdb import REMOVE, Sync
from support.differential.declared import DIM, EXPIRES_AT, MAIN, NOTES
from support.differential.reads import Find, Get, Read, SearchText, SearchVector
from support.differential.writes import (
    Delete,
    DeleteMany,
    Put,
    PutMany,
    Transaction,
    Update,
    Write,
)
from support.reference import Doc

WORDS: Final = (
    *("amber", "badger", "cedar", "dingo", "ember", "falcon", "falcons", "garnet", "heron"),
    *("iris", "jasper", "kestrel", "lotus", "emeralds", "会议", "下午", "软件", "工程师"),
)
_DAY: Final = datetime(2024, 2, 29, 12, tzinfo=UTC)
_MIXED: Final = (True, 1, 1.5, "a", b"a", None, _DAY, [1, 2, 3], ["a", None])
_LIVES_S: Final = (-5.0, 2.5, 30.0, 300.0, 1e6)
_ORDERS: Final[tuple[tuple[str, ...] | None, ...]] = (
    None,
    *(("n",), ("-n",), ("-x",), ("tags",), ("code",), ("id",)),
    *(("owner", "-n"), ("-maybe", "n"), ("-code", "owner")),
)
_IDS: Final = 40
_PAGE: Final = 7


@final
class Drawer:
    """One owner's."""

    def __init__(
        self, rng: random.Random, owner: str, now: Callable[[], float], names: tuple[str, ...]
    ) -> None:
        self._rng = rng
        self._owner = owner
        self._now = now
        self._names = names

    def write(self) -> Write | Transaction:
        """One commit."""
        rng = self._rng
        if rng.random() < 0.2:
            steps = tuple(
                self.single() if rng.random() < 0.7 else self.read()
                for _ in range(rng.randrange(1, 7))
            )
            return Transaction(steps, rng.random() < 0.3, self._sync())
        return self.single()

    def read(self, collection: str | None = None) -> Read:
        """One question, or two of a kind."""
        rng = self._rng
        name = collection or self._name()
        kind = rng.random()
        if kind < 0.2:
            return Get(name, {"id": self._id()})
        if kind < 0.6:
            page = rng.choice((None, _PAGE))
            return Find(name, self._where(), self._order(), page)
        limit = rng.choice((3, 1_000))
        if kind < 0.85:
            return SearchText(name, self._where(), limit, self._question())
        return SearchVector(name, self._where(), limit, self._vector())

    def document(self) -> Doc:
        """With an id that exists, or may."""
        rng = self._rng
        id = self._id()
        document: Doc = {
            "id": id,
            "owner": self._owner,
            "x": rng.randrange(1 << 30),
            "serial": id,
            "text": self._text(8),
            "title": rng.choice(WORDS),
            "tags": rng.sample(WORDS, rng.randrange(4)),
        }
        optional: list[tuple[float, str, Callable[[], Any]]] = [
            (0.9, "n", lambda: rng.choice((rng.randrange(20), rng.random() * 20, None))),
            (0.3, "maybe", lambda: rng.choice(_MIXED)),
            (0.6, "v", self._vector),
            (0.3, "code", self._code),
            (0.1, "blob", lambda: rng.randbytes(rng.choice((100, 5_000, 30_000)))),
            (0.25, EXPIRES_AT, self._expiry),
        ]
        for chance, name, draw in optional:
            if rng.random() < chance:
                document[name] = draw()
        return document

    # -- inside ----------------------------------------------------------------------------------

    def single(self) -> Write:
        """One write that is a commit of its own, or a part of one."""
        rng = self._rng
        name, sync = self._name(), self._sync()
        kind = rng.choices(
            ("put", "insert", "put_many", "update", "delete", "delete_many"), (10, 5, 2, 8, 5, 0.6)
        )[0]
        if kind == "put_many":
            documents = tuple(self.document() for _ in range(rng.randrange(1, 12)))
            return PutMany(name, sync, documents)
        if kind == "update":
            return Update(name, sync, self._id(), self._patch())
        if kind == "delete":
            return Delete(name, sync, self._id())
        if kind == "delete_many":
            return DeleteMany(name, sync, {"owner": self._owner, "n": {"$gte": rng.randrange(20)}})
        return Put(name, sync, self.document(), kind == "insert")

    def _name(self) -> str:
        return self._rng.choice(self._names)

    def _sync(self) -> Sync | None:
        classes: tuple[Sync | None, ...] = (None, None, "os", "interval", "always")
        return self._rng.choice(classes)

    def _id(self) -> str:
        return f"{self._owner}-{self._rng.randrange(_IDS):02}"

    def _code(self) -> str:
        return f"{self._owner}:{self._rng.randrange(_IDS)}"

    def _text(self, words: int) -> str:
        return " ".join(self._rng.choices(WORDS, k=self._rng.randrange(words)))

    def _vector(self) -> list[float]:
        """Exact as float32, and never zero."""
        return [self._rng.choice((-1, 1)) * self._rng.randrange(1, 9) / 8 for _ in range(DIM)]

    def _expiry(self) -> Any:
        """A number or a datetime; None never."""
        due = self._now() + self._rng.choice(_LIVES_S)
        in_time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=due)
        return self._rng.choice((None, due, in_time))

    def _patch(self) -> Doc:
        rng = self._rng
        patch: Doc = {"x": rng.randrange(1 << 30)}
        changes: list[tuple[str, Callable[[], Any]]] = [
            ("text", lambda: self._text(4)),
            ("tags", lambda: rng.sample(WORDS, 2)),
            ("maybe", lambda: rng.choice((REMOVE, *_MIXED))),
            ("code", lambda: rng.choice((REMOVE, self._code()))),
            ("v", lambda: rng.choice((REMOVE, self._vector()))),
            (EXPIRES_AT, lambda: rng.choice((REMOVE, self._expiry()))),
        ]
        for name, draw in rng.sample(changes, rng.randrange(3)):
            patch[name] = draw()
        return patch

    def _where(self) -> Doc:
        rng = self._rng
        low = rng.randrange(20)
        mine: Doc = {"owner": self._owner}
        return rng.choice(
            (
                mine,
                {**mine, "n": {"$gte": low, "$lt": low + 5}},
                {**mine, "n": None},
                {**mine, "tags": {"$in": rng.sample(WORDS, 3)}},
                {**mine, "maybe": {"$exists": True}},
                {**mine, "maybe": rng.choice(_MIXED)},
                {**mine, "v": {"$exists": rng.random() < 0.5}},
                {"$or": [{**mine, "n": {"$gt": low}}, {"serial": self._id()}]},
                {"code": self._code()},
                {"code": {"$in": [self._code() for _ in range(5)]}},
                {"serial": self._id()},
            )
        )

    def _order(self) -> list[str] | None:
        order = self._rng.choice(_ORDERS)
        return None if order is None else list(order)

    def _question(self) -> str:
        rng = self._rng
        a, b, c = rng.sample(WORDS, 3)
        return rng.choice(
            (a, f"{a} {b} {c}", f"+{a}", f"+{a} {b}", f"{a} -{b}", f'"{a} {b}"', f"{a[:2]}* {b}")
        )


def drawer(rng: random.Random, owner: str, now: Callable[[], float]) -> Drawer:
    """Of a writer, which has documents in `main` and in `notes`."""
    return Drawer(rng, owner, now, (MAIN, NOTES))
