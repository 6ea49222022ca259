"""A store of events in files for people, grep and jq: JSON lines, or a JSON array.

Invariants:
- A line is appended and synced before store() returns; an array is replaced atomically.
- A write that has begun ends, also when the task that awaits it is cancelled.
- Only one process may write; within it, any number of stores, event loops and threads.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, Unpack, final

from amberdb.events.event import AgentEvent
from amberdb.events.folder import EventFolder
from amberdb.events.in_memory import count_events, search_events
from amberdb.events.store import BATCH, EventStore, FilterFields, Filters, Stats, check_counts

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
        self._folder = EventFolder(
            self._base,
            is_lines=format == "jsonl",
            file_per_session=file_per_session,
            rotate_size=rotate_size,
        )

    async def initialize(self) -> None:
        await asyncio.to_thread(self._base.mkdir, parents=True, exist_ok=True)

    async def store(self, event: AgentEvent) -> bool:
        return await self.store_many([event]) == 1

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        """Stores events; how many. Raises OSError."""
        events = list(events)
        await self._in_thread(lambda: self._folder.add(events))
        return len(events)

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        check_counts(limit=limit, offset=offset)
        conditions = Filters.of(filters, **fields)
        end = None if limit is None else offset + limit

        def events() -> list[AgentEvent]:
            if oldest_first:
                found = (event for _, event in self._folder.oldest(conditions))
                return list(islice(found, offset, end))
            return list(islice(self._folder.newest(conditions), offset, end))

        return await self._in_thread(events)

    async def iterate(
        self,
        filters: Filters | None = None,
        *,
        batch: int = BATCH,
        **fields: Unpack[FilterFields],
    ) -> AsyncIterator[list[AgentEvent]]:
        check_counts(batch=batch)
        conditions = Filters.of(filters, **fields)
        after: tuple[int, str] = (-1, "")
        while True:
            page = await self._in_thread(partial(self._folder.page, conditions, after, batch))
            if not page:
                return
            yield [event for _, event in page]
            after = page[-1][0]

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        ids = {event.event_id for event in events}
        return await self._in_thread(lambda: self._folder.stored(ids))

    async def search(
        self,
        text: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        check_counts(limit=limit)
        conditions = Filters.of(filters, **fields)
        return await self._in_thread(
            lambda: search_events(self._folder.newest(conditions), text, limit)
        )

    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        conditions = Filters.of(filters, **fields)
        return await self._in_thread(lambda: count_events(self._folder.newest(conditions)))

    async def clear(self, filters: Filters | None = None, **fields: Unpack[FilterFields]) -> int:
        conditions = Filters.of(filters, **fields)
        return await self._in_thread(lambda: self._folder.clear(conditions))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        def alone() -> _T:
            with self._folder.lock:
                return work()

        return await asyncio.shield(asyncio.to_thread(alone))
