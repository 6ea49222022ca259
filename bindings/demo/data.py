"""The demo's data: a dialogue read from JSON lines, and the layers that it is stored in.

A line: {id, session, entity_id, speaker, role, created_at, lang, content, layer, category,
expires_in_days?}. Of a stranger's dialogue `speaker` and `content` (or `text`) are enough.

    log       every turn, as it was said
    profile   turns of layer "profile": what stays true of somebody
    event     the others, some of which expire

Invariants:
- The same lines give the same documents, ids included.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Final, cast, final

from amberdb._jsonl.importer import BadLineError
from amberdb._jsonl.text import loads, parse_date
from amberdb._types import Document
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_database
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.text.text import Text

LAYERS: Final = ("profile", "event", "log")
_START = datetime(2026, 1, 1, tzinfo=UTC)
_GRACE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One line of the dialogue, ready to be stored."""

    session: int
    layer: str
    document: Document


@final
class DemoClock:
    """A clock that begins where it is told to, and can be turned on: expiry without waiting."""

    def __init__(self, start: float) -> None:
        self._offset = start - time.monotonic()

    def __call__(self) -> float:
        return self._offset + time.monotonic()

    def advance(self, seconds: float) -> None:
        self._offset += seconds


def open_demo(path: str, clock: DemoClock, *, create: bool = False) -> Database:
    """The demo's database, as parent and child open it. The reaper is held back, so that the
    expired documents are still there to be counted when the demo removes them."""
    return open_database(path, create=create, clock=clock, reap_grace_ms=_GRACE_MS)


def declare(db: Database) -> None:
    """The three layers and their indexes."""
    by_entity = Ordered("entity_id", "created_at")
    db.collection("profile", indexes=[by_entity, Ordered("entity_id", "category", "created_at")])
    db.collection("event", indexes=[by_entity, Ordered("created_at")], expires_at="expires_at")
    said = Text("content")
    db.collection("log", indexes=[by_entity, Ordered("session", "created_at"), said])


def read_turns(path: str | None) -> list[Turn]:
    """The packaged dialogue, or that of a file. Raises BadLineError, OSError."""
    packaged = files("amberdb.demo") / "dialogue.jsonl"
    data = packaged.read_bytes() if path is None else Path(path).read_bytes()
    turns: list[Turn] = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                turns.append(_turn(number, loads(line)))
            except ValueError as error:
                raise BadLineError(f"{path}: line {number}: {error}", line=number) from None
    if not turns:
        raise BadLineError(f"{path}: no line in it: a turn is {{speaker, content}}", line=1)
    return turns


def sessions(turns: Iterable[Turn]) -> Iterator[list[Turn]]:
    """Turns that were said together."""
    for _, group in groupby(turns, key=lambda turn: turn.session):
        yield list(group)


def end_of(turns: Iterable[Turn]) -> float:
    """A second after the last of them, in epoch seconds."""
    last: datetime = max(turn.document["created_at"] for turn in turns)
    return last.timestamp() + 1


def _turn(number: int, line: Any) -> Turn:
    if type(line) is not dict:
        raise ValueError("a turn is a map")
    given = cast(dict[str, Any], line)
    content = given.get("content", given.get("text"))
    speaker = given.get("speaker")
    if not isinstance(content, str) or not isinstance(speaker, str):
        raise ValueError("a turn has a speaker and a content (or text), both str")
    created = given.get("created_at")
    created_at = _START + timedelta(minutes=number) if created is None else parse_date(created)
    document: Document = {
        **given,
        "id": str(given.get("id") or f"turn-{number:06}"),
        "entity_id": given.get("entity_id", speaker),
        "content": content,
        "created_at": created_at,
    }
    days = document.pop("expires_in_days", None)
    if days is not None:
        if type(days) not in (int, float):
            raise ValueError(f"expires_in_days is a number, not {days!r}")
        document["expires_at"] = created_at + timedelta(days=days)
    session = given.get("session", 0)
    layer = "profile" if given.get("layer") == "profile" else "event"
    return Turn(session if type(session) is int else 0, layer, document)
