"""Import of the events that LightAgent has stored: docs/coming-from.md.

    a directory          files of its FileMemoryStore, *.jsonl and *.json, archives too
    a file               a database of its SQLiteMemoryStore
    rows                 maps, or sequences of the columns, of its MySQL or PostgreSQL table

Invariants:
- Times are those of the events; without a zone they are local time, as LightAgent writes them.
- A row that cannot be stored is listed, and the others are stored. Run again, it stores no event
  twice.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, cast, final

from amberdb.events.event import AgentEvent
from amberdb.events.files import FileEventStore
from amberdb.events.store import BATCH, EventStore
from amberdb.events.upkeep import store_each

COLUMNS: Final[Sequence[str]] = (
    "event_id",
    "agent_name",
    "session_id",
    "event_type",
    "timestamp",
    "data",
    "metadata",
)
Row: TypeAlias = Mapping[str, Any] | Sequence[Any]


@final
@dataclass(slots=True)
class Imported:
    """The result of an import. `failed` has the id of each row that was not stored, and why."""

    found: int = 0
    stored: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])


async def import_lightagent(
    store: EventStore, source: str | os.PathLike[str] | Iterable[Row]
) -> Imported:
    """Stores the events of LightAgent, the oldest first. The store has to be initialized. Raises
    FileNotFoundError, sqlite3.Error."""
    done = Imported()
    if not isinstance(source, str | os.PathLike):
        await _import_rows(store, source, done)
    elif (path := Path(source)).is_dir():
        for format in ("jsonl", "json"):
            async for events in FileEventStore(path, format=format).iterate():
                done.found += len(events)
                done.stored += await store_each(store, events, done.failed)
    else:
        await _import_rows(store, await asyncio.to_thread(_sqlite_rows, path), done)
    return done


async def _import_rows(store: EventStore, rows: Iterable[Row], done: Imported) -> None:
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        events: list[AgentEvent] = []
        for row in batch:
            done.found += 1
            named: dict[str, Any] = (
                {**row} if isinstance(row, Mapping) else dict(zip(COLUMNS, row, strict=False))
            )
            try:
                events.append(_event(named))
            except ValueError as error:
                done.failed[str(named.get("event_id"))] = str(error)
        done.stored += await store_each(store, events, done.failed)


def _event(row: dict[str, Any]) -> AgentEvent:
    """The event of a row. Raises ValueError."""
    data, metadata = _map(row.get("data")), _map(row.get("metadata"))
    if "event_id" in data and isinstance(inner := data.get("data"), Mapping):
        data = cast(Mapping[str, Any], inner)  # the whole event is in the column
    return AgentEvent.from_map({**row, "data": data, "metadata": metadata})


def _map(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str | bytes) and value else value or {}


def _sqlite_rows(path: Path) -> list[tuple[Any, ...]]:
    """The rows of the table, by time. Raises FileNotFoundError, sqlite3.Error."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: give the db_path of SQLiteMemoryStore")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        names = ", ".join(COLUMNS)
        return connection.execute(
            f"SELECT {names} FROM agent_events ORDER BY timestamp, rowid"
        ).fetchall()
