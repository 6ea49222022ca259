"""The demo's data: a dialogue from JSON lines, and the collections that it is stored in.

A line: {id, session, entity_id, speaker, role, created_at, lang, content, layer, category,
expires_in_days?}. A user's own dialogue only needs `speaker` and `content` (or `text`).

    log       every turn
    profile   turns of layer "profile": long-lived facts
    event     the other turns; some expire

Invariants:
- The same lines give the same documents with the same ids.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Final, cast, final

import amberdb
from amberdb import Database, Document, Ordered, Text
from amberdb._jsonl.importer import BadLineError
from amberdb._jsonl.text import loads, parse_date

LAYERS: Final = ("profile", "event", "log")
_START = datetime(2026, 1, 1, tzinfo=UTC)
_GRACE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the dialogue, as a document to store."""

    session: int
    layer: str
    document: Document


@final
class DemoClock:
    """A clock that starts at `start` and can be advanced, to show expiry without waiting."""

    def __init__(self, start: float) -> None:
        self._offset = start - time.monotonic()

    def __call__(self) -> float:
        return self._offset + time.monotonic()

    def advance(self, seconds: float) -> None:
        """Moves the clock forward."""
        self._offset += seconds


def open_demo(path: str, clock: DemoClock, *, create: bool = False) -> Database:
    """The demo's database, with the same options in parent and child. A long grace period keeps the
    expired documents on disk until the demo removes and counts them."""
    return amberdb.open(path, create=create, clock=clock, reap_grace_ms=_GRACE_MS)


def declare(db: Database) -> None:
    """Declares the three collections and their indexes."""
    by_entity = Ordered("entity_id", "created_at")
    db.collection("profile", indexes=[by_entity, Ordered("entity_id", "category", "created_at")])
    db.collection("event", indexes=[by_entity, Ordered("created_at")], expires_at="expires_at")
    by_session = Ordered("session", "created_at")
    db.collection("log", indexes=[by_entity, by_session, Text("content")])


def packaged_lines(name: str) -> list[Any]:
    """The values of a packaged file of JSON lines."""
    packaged = files("amberdb.demo") / name
    return [loads(line) for line in packaged.read_bytes().splitlines() if line.strip()]


def read_turns(path: str | None) -> list[Turn]:
    """The turns of the packaged dialogue, or of a file. Raises BadLineError, OSError."""
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
        raise BadLineError(f"{path}: empty: write lines with speaker and content", line=1)
    return turns


def sessions(turns: Iterable[Turn]) -> Iterator[list[Turn]]:
    """The turns of each session."""
    for _, group in groupby(turns, key=lambda turn: turn.session):
        yield list(group)


def end_of(turns: Iterable[Turn]) -> float:
    """One second after the last turn, in epoch seconds."""
    last: datetime = max(turn.document["created_at"] for turn in turns)
    return last.timestamp() + 1


def _turn(number: int, line: Any) -> Turn:
    """The turn of a line. Raises ValueError."""
    if type(line) is not dict:
        raise ValueError("a turn must be a map")
    fields = cast(dict[str, Any], line)
    content = fields.get("content", fields.get("text"))
    speaker = fields.get("speaker")
    if not isinstance(content, str) or not isinstance(speaker, str):
        raise ValueError("a turn needs a speaker and a content (or text), both str")
    created = fields.get("created_at")
    created_at = _START + timedelta(minutes=number) if created is None else parse_date(created)
    document: Document = {
        **fields,
        "id": str(fields.get("id") or f"turn-{number:06}"),
        "entity_id": fields.get("entity_id", speaker),
        "content": content,
        "created_at": created_at,
    }
    days = document.pop("expires_in_days", None)
    if days is not None:
        if type(days) not in (int, float):
            raise ValueError(f"expires_in_days must be a number, not {days!r}")
        document["expires_at"] = created_at + timedelta(days=days)
    session = fields.get("session", 0)
    layer = "profile" if fields.get("layer") == "profile" else "event"
    return Turn(session if type(session) is int else 0, layer, document)
