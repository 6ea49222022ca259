"""A store of events in files for people, grep and jq: JSON lines, or a JSON array.

    session_<id>.jsonl, or events.jsonl -> <name>.<time>.jsonl when larger than rotate_size

Invariants:
- A line is appended and synced before store() returns; an array is replaced atomically.
- A line that a crash cut short is logged and skipped; it damages no other line.
- Reads include rotated files. Only one process may write.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, final
from urllib.parse import quote

from amberdb._jsonl.text import dumps, iso, loads, parse_date
from amberdb._shared.files import append_lines, rename_file, replace_file
from amberdb.events.event import AgentEvent
from amberdb.events.in_memory import count_events, search_events, select_events
from amberdb.events.store import EventStore, Filters, Stats

logger = logging.getLogger("amberdb.events")

Format: TypeAlias = Literal["jsonl", "json"]
ROTATE_SIZE: Final = 10 << 20

_T = TypeVar("_T")


@final
class FileEventStore(EventStore):
    """Events in files below a directory. Raises ValueError.

    format             "jsonl", or "json" for an array, which is slow for large files
    file_per_session   a file for each session, or one for all
    rotate_size        bytes; a larger file is renamed, and the next event starts a new one
    """

    def __init__(
        self,
        base_path: str | os.PathLike[str] = "agent_memory",
        *,
        format: Format = "jsonl",
        file_per_session: bool = True,
        rotate_size: int = ROTATE_SIZE,
    ) -> None:
        if format not in ("jsonl", "json"):
            raise ValueError(f'format must be "jsonl" or "json", not {format!r}')
        if rotate_size < 1:
            raise ValueError(f"rotate_size must be a number of bytes above 0, not {rotate_size!r}")
        self._base = Path(base_path)
        self._ending = f".{format}"
        self._is_lines = format == "jsonl"
        self._file_per_session = file_per_session
        self._rotate_size = rotate_size
        self._mutex = asyncio.Lock()

    async def initialize(self) -> None:
        await asyncio.to_thread(self._base.mkdir, parents=True, exist_ok=True)

    async def store(self, event: AgentEvent) -> bool:
        return await self.store_many([event]) == 1

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        """Stores events; how many. Raises OSError."""
        by_file: dict[Path, list[AgentEvent]] = {}
        for event in events:
            by_file.setdefault(self._file(event.session_id), []).append(event)
        for path, group in by_file.items():
            await self._in_thread(partial(self._add, path, group))
        return len(events)

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
    ) -> list[AgentEvent]:
        return await self._in_thread(
            lambda: select_events(self._events(filters), filters, limit, offset, oldest_first)
        )

    async def search(
        self, text: str, filters: Filters | None = None, *, limit: int = 10
    ) -> list[AgentEvent]:
        return await self._in_thread(
            lambda: search_events(self._events(filters), text, filters, limit)
        )

    async def get_stats(self, filters: Filters | None = None) -> Stats:
        return await self._in_thread(lambda: count_events(self._events(filters), filters))

    async def clear(
        self, *, session_id: str | None = None, end_time: datetime | None = None
    ) -> int:
        filters = Filters(session_id=session_id, end_time=end_time)
        return await self._in_thread(lambda: self._clear(filters))

    # -- in threads --------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        async with self._mutex:
            return await asyncio.to_thread(work)

    def _file(self, session_id: str) -> Path:
        name = f"session_{quote(session_id, safe='')}" if self._file_per_session else "events"
        return self._base / f"{name}{self._ending}"

    def _files(self, filters: Filters | None) -> list[Path]:
        """Files that may hold matching events, rotated ones too, the oldest first."""
        name = "*"
        if filters is not None and filters.session_id is not None and self._file_per_session:
            name = f"session_{quote(filters.session_id, safe='')}"
        if not self._base.is_dir():
            return []
        paths = {
            *self._base.glob(f"{name}{self._ending}"),
            *self._base.glob(f"{name}.*{self._ending}"),
        }
        return sorted(paths, key=lambda path: (path.stat().st_mtime, path.name))

    def _events(self, filters: Filters | None) -> list[AgentEvent]:
        events: dict[str, AgentEvent] = {}
        for path in self._files(filters):
            events.update((event.event_id, event) for event in self._read(path))
        return list(events.values())

    def _read(self, path: Path) -> Iterator[AgentEvent]:
        """The events of a file; damaged ones are logged. Raises ValueError for a damaged array."""
        data = path.read_bytes()
        rows: Any = data.splitlines() if self._is_lines else loads(data)
        for number, row in enumerate(cast(list[Any], rows), 1):
            try:
                stored: dict[str, Any] = loads(row) if self._is_lines else row
                yield AgentEvent.from_map({**stored, "timestamp": parse_date(stored["timestamp"])})
            except (KeyError, TypeError, ValueError) as error:
                logger.warning("%s: event %d cannot be read: %s", path, number, error)

    def _add(self, path: Path, events: Sequence[AgentEvent]) -> None:
        if self._is_lines:
            lines = "".join(f"{_text(event)}\n" for event in events).encode()
            append_lines(path, lines)
        else:
            before = list(self._read(path)) if path.exists() else []
            self._replace(path, [*before, *events])
        if path.stat().st_size > self._rotate_size:
            self._rotate(path)

    def _replace(self, path: Path, events: Sequence[AgentEvent]) -> None:
        if not events:
            path.unlink(missing_ok=True)
            return
        rows = [_text(event) for event in events]
        text = "".join(f"{row}\n" for row in rows)
        if not self._is_lines:
            text = "[\n  " + ",\n  ".join(rows) + "\n]\n"
        replace_file(path, text.encode())

    def _rotate(self, path: Path) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        number = 0
        while True:
            suffix = f".{stamp}" if not number else f".{stamp}-{number}"
            archive = path.with_name(path.name.removesuffix(self._ending) + suffix + self._ending)
            if not archive.exists():
                break
            number += 1
        rename_file(path, archive)

    def _clear(self, filters: Filters) -> int:
        cleared: set[str] = set()
        for path in self._files(filters):
            events = list(self._read(path))
            kept = [event for event in events if not filters.matches(event)]
            if len(kept) < len(events):
                cleared.update(event.event_id for event in events if filters.matches(event))
                self._replace(path, kept)
        return len(cleared)


def _text(event: AgentEvent) -> str:
    return dumps({**event.to_map(), "timestamp": iso(event.timestamp)})
