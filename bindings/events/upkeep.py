"""Copying events between stores, and deleting old events.

Invariants:
- Both can be interrupted and run again.
- An event that a store refuses is listed, and delays no other.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, final

from amberdb import DocumentError, TransactionTooLargeError
from amberdb._shared.clock import utc_now
from amberdb._shared.equality import equal_in_type
from amberdb.events.event import AgentEvent
from amberdb.events.store import BATCH, EventStore

logger = logging.getLogger("amberdb.events")


@final
@dataclass(slots=True)
class Moved:
    """The progress of migrate(), and its result: `found` is the sum of `stored`, `present` and the
    number of those that failed."""

    found: int = 0
    stored: int = 0
    """Events that the target did not have, or had otherwise."""
    verified: int = 0
    """Events that were read from the target and compared equal, those present among them."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Of each event that the target refuses its id, and why."""
    present: int = 0
    """Events that the target had already, equal."""


async def migrate(
    source: EventStore,
    target: EventStore,
    *,
    batch: int = BATCH,
    progress: Callable[[Moved], None] | None = None,
) -> Moved:
    """Copies all events that the target does not have, in the order of the source, and reads the
    copies back. Memory holds a few batches. Both stores have to be initialized.

    Run again after an interruption, with the same `batch`, it goes on: what the target has is
    compared and not copied, but for at most one batch, whose order the interruption may have
    changed."""
    moved = Moved()
    newest = {
        event.event_id: place
        for place, event in enumerate(reversed(await target.retrieve(limit=batch)))
    }
    async for events in source.iterate(batch=batch):
        await _copy(events, target, moved, newest)
        if progress is not None:
            progress(moved)
    return moved


async def _copy(
    events: Sequence[AgentEvent], target: EventStore, moved: Moved, newest: Mapping[str, int]
) -> None:
    """Copies those of a batch that the target does not have. `newest` are the newest events that it
    had in the beginning, with their order."""
    copies = await _equal_copies(events, target)
    missing = [event for event in events if event.event_id not in copies]
    moved.found += len(events)
    moved.present += len(events) - len(missing)
    if missing:
        moved.stored += await store_each(target, missing, moved.failed)
        copies = await _equal_copies(events, target)
    if behind := _out_of_order(events, missing, copies, newest):
        logger.info("%d events are stored again, in their order", len(behind))
        await store_each(target, behind, moved.failed)
        copies = await _equal_copies(events, target)
    moved.verified += sum(event.event_id in copies for event in events)


async def _equal_copies(events: Sequence[AgentEvent], target: EventStore) -> set[str]:
    """The ids of those of these events that the target has, equal in all values and types."""
    copies = {copy.event_id: copy.to_map() for copy in await target.stored(events)}
    return {
        event.event_id
        for event in events
        if equal_in_type(copies.get(event.event_id), event.to_map())
    }


def _out_of_order(
    events: Sequence[AgentEvent],
    missing: Sequence[AgentEvent],
    copies: Set[str],
    newest: Mapping[str, int],
) -> list[AgentEvent]:
    """What has to be stored again for the order of the source, from the first event that is older
    in the target than one before it.

    A store may have stored any part of a batch when it was killed, or put it in order by half. The
    events of this batch are then among the newest of the target. One that is not is left alone:
    behind it are events of other batches, or of other programs."""
    if not any(event.event_id in newest for event in events):
        return []
    places = {**newest, **{event.event_id: len(newest) for event in missing}}
    last = -1
    for number, event in enumerate(events):
        place = places.get(event.event_id, -1) if event.event_id in copies else -1
        if -1 < place < last:
            return [event for event in events[number:] if event.event_id in copies]
        last = max(last, place)
    return []


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
