"""A store of events that several event loops use, as programs do that call asyncio.run() often.

Invariants:
- The connections of a loop that ended without close() are collected here, with their warnings.
"""

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from amberdb.events import EventStore
from amberdb.events.contract import event
from amberdb.events.contract_base import ids

STORED = 12


async def _store(store: EventStore, first: int) -> None:
    await store.initialize()
    await asyncio.gather(*(store.store(event(first + n)) for n in range(STORED)))


def use_one_after_another(store: EventStore) -> None:
    """Each loop ends without close(), and the next one goes on."""

    async def work(first: int) -> int:
        await _store(store, first)
        return len(set(ids(await store.retrieve())))

    async def end() -> None:
        assert (await store.get_stats())["total_events"] == 3 * STORED
        await store.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for first in range(0, 3 * STORED, STORED):
            assert asyncio.run(work(first)) == first + STORED
        asyncio.run(end())
        gc.collect()


def use_at_once(store: EventStore) -> None:
    """Several threads with a loop each; each closes the store, as the others go on."""
    errors: list[BaseException] = []

    async def work(first: int) -> None:
        for _ in range(3):
            await _store(store, first)
        await store.close()

    def run(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            asyncio.run(make())
        except BaseException as error:  # asserted below
            errors.append(error)

    async def whole() -> None:
        await _store(store, 0)  # a database in memory is there while one loop has it open
        threads = [
            threading.Thread(target=run, args=(lambda first=first: work(first),))
            for first in range(100, 500, 100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, 60)
        assert errors == []
        assert (await store.get_stats())["total_events"] == 5 * STORED
        await store.close()

    asyncio.run(whole())
