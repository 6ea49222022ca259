"""Copying events between stores, and deleting old events.

Invariants:
- Both can be interrupted and run again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

from amberdb._shared.clock import utc_now
from amberdb.events.store import BATCH, EventStore, Filters

logger = logging.getLogger("amberdb.events")


@final
@dataclass(slots=True)
class Moved:
    """The progress of migrate(), and its result."""

    found: int = 0
    stored: int = 0
    verified: int = 0
    """Events that were read back from the target and compared equal."""


async def migrate(
    source: EventStore,
    target: EventStore,
    *,
    batch: int = BATCH,
    progress: Callable[[Moved], None] | None = None,
) -> Moved:
    """Copies all events and reads the copies back. Run again after an interruption, it stores no
    event twice. Both stores have to be initialized."""
    moved = Moved()
    async for events in source.iterate(batch=batch):
        moved.found += len(events)
        moved.stored += await target.store_many(events)
        end = events[-1].timestamp + timedelta(microseconds=1)
        span = Filters(start_time=events[0].timestamp, end_time=end)
        copies = {copy.event_id: copy for copy in await target.retrieve(span, limit=None)}
        moved.verified += sum(copies.get(event.event_id) == event for event in events)
        if progress is not None:
            progress(moved)
    return moved


async def clean_up(
    store: EventStore,
    older_than: timedelta,
    *,
    every_s: float = 3600.0,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Any] = asyncio.sleep,
) -> None:
    """Deletes events older than `older_than`, now and every `every_s`, until its task is cancelled.
    A failure is logged, and the next attempt follows at its time."""
    while True:
        end = utc_now(clock) - older_than
        try:
            count = await store.clear(end_time=end)
            logger.debug("%d events from before %s were deleted", count, end)
        except Exception:
            logger.exception("old events were not deleted; the next attempt follows")
        await sleep(every_s)
