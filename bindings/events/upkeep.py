"""Copying events between stores, and deleting old events.

Invariants:
- Both can be interrupted and run again.
- An event that a store refuses is listed, and delays no other.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Any, final

from amberdb import DocumentError, TransactionTooLargeError
from amberdb._jsonl.text import to_plain
from amberdb._shared.clock import utc_now
from amberdb.events.event import AgentEvent
from amberdb.events.store import BATCH, EventStore

logger = logging.getLogger("amberdb.events")


@final
@dataclass(slots=True)
class Moved:
    """The progress of migrate(), and its result."""

    found: int = 0
    stored: int = 0
    verified: int = 0
    """Events that were read back from the target and compared equal."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Of each event that the target refuses its id, and why."""


async def migrate(
    source: EventStore,
    target: EventStore,
    *,
    batch: int = BATCH,
    progress: Callable[[Moved], None] | None = None,
) -> Moved:
    """Copies all events, then reads the copies back, each store once. Run again after an
    interruption, it stores no event twice. Both stores have to be initialized."""
    moved = Moved()
    copied: dict[str, bytes] = {}
    async for events in source.iterate(batch=batch):
        moved.found += len(events)
        moved.stored += await store_each(target, events, moved.failed)
        copied.update((event.event_id, _digest(event)) for event in events)
        if progress is not None:
            progress(moved)
    if not copied:
        return moved
    async for events in target.iterate(batch=batch):
        moved.verified += sum(
            copied.pop(event.event_id, None) == _digest(event) for event in events
        )
        if progress is not None:
            progress(moved)
    return moved


async def store_each(
    store: EventStore, events: Sequence[AgentEvent], failed: dict[str, str]
) -> int:
    """Stores events, at once if the store takes them; how many. Those that it refuses are added to
    `failed`."""
    try:
        return await store.store_many(events)
    except (DocumentError, TransactionTooLargeError, ValueError, TypeError) as error:
        if len(events) == 1:
            failed[events[0].event_id] = str(error)
            return 0
    half = len(events) // 2
    first = await store_each(store, events[:half], failed)
    return first + await store_each(store, events[half:], failed)


def _digest(event: AgentEvent) -> bytes:
    """Equal for events that are equal, in a few bytes."""
    text = json.dumps(to_plain(event.to_map()), sort_keys=True)
    return blake2b(text.encode(), digest_size=12).digest()


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
