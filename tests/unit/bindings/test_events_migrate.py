"""Migrations of events: between any two stores, again, resumed, and with events that change."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amberdb.events import (
    AgentEvent,
    AmberEventStore,
    EventStore,
    FileEventStore,
    InMemoryEventStore,
    Moved,
    migrate,
)
from amberdb.events.contract import START, event
from amberdb.events.contract_base import assert_same, ids
from amberdb.sql import SQLiteEventStore
from support.databases import OpenDatabase
from support.migrating import LAST, everything, some


class Own(InMemoryEventStore):
    """A store as users write them, of nothing but the abstract methods; it notes what it stores."""

    iterate = EventStore.iterate
    stored = EventStore.stored

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def store(self, event: AgentEvent) -> bool:
        self.calls.append(event.event_id)
        return await super().store(event)


KINDS = ("memory", "own", "database", "lines", "lines in one file", "arrays", "rotating", "sqlite")
Make = Callable[[str, str], EventStore]


@pytest.fixture
def make(tmp_path: Path, open_db: OpenDatabase) -> Make:
    def made(kind: str, name: str) -> EventStore:
        if kind == "memory":
            return InMemoryEventStore()
        if kind == "own":
            return Own()
        if kind == "database":
            return AmberEventStore(open_db(f"{name}.amber"))
        if kind == "sqlite":
            return SQLiteEventStore(tmp_path / f"{name}.db")
        return FileEventStore(
            tmp_path / name,
            format="json" if kind == "arrays" else "jsonl",
            file_per_session=kind in ("lines", "rotating"),
            rotate_size=2000 if kind == "rotating" else 10 << 20,
        )

    return made


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_between_any_two_stores_nothing_changes_and_a_second_run_stores_nothing(
    make: Make, of: str, to: str
) -> None:
    async def work() -> None:
        source, target = make(of, "source"), make(to, "target")
        for store in (source, target):
            await store.initialize()
        events = some(40)
        await source.store_many(events)
        moved = await migrate(source, target, batch=9)
        assert moved == Moved(found=40, stored=40, verified=40)
        assert_same(await everything(target), events)
        again = await migrate(source, target, batch=9)
        assert again == Moved(found=40, present=40, verified=40)
        back = await migrate(target, source, batch=9)
        assert back == Moved(found=40, present=40, verified=40)
        assert_same(await everything(source), events)
        assert_same(await everything(target), events)
        for store in (source, target):
            await store.close()

    run(work)


@pytest.mark.parametrize("to", KINDS)
def test_a_run_that_goes_on_puts_a_half_stored_batch_in_order(make: Make, to: str) -> None:
    events = some(60)

    async def work(seed: int) -> None:
        print(f"seed {seed}")
        rng = random.Random(seed)
        source, target = InMemoryEventStore(), make(to, f"target {seed}")
        await target.initialize()
        await source.store_many(events)
        whole = rng.randrange(6) * 10
        half = rng.sample(events[whole : whole + 10], rng.randrange(11))
        for part in (events[:whole], half):
            await target.store_many(part)
        calls = Counted(target)
        moved = await migrate(source, calls, batch=10)
        assert moved == Moved(
            found=60, present=whole + len(half), stored=60 - whole - len(half), verified=60
        )
        assert calls.count <= moved.stored + 10
        assert_same(await everything(target), events)
        assert await migrate(source, target, batch=10) == Moved(found=60, present=60, verified=60)
        assert_same(await everything(target), events)
        await target.close()

    for seed in range(12):
        run(partial(work, seed))


class Counted(EventStore):
    """Counts the events that are stored."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.count = 0

    async def store(self, event: AgentEvent) -> bool:
        return await self.store_many([event]) == 1

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        self.count += len(events)
        return await self._store.store_many(events)

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        return await self._store.stored(events)

    async def retrieve(self, *args: Any, **more: Any) -> list[AgentEvent]:
        return await self._store.retrieve(*args, **more)

    async def search(self, *args: Any, **more: Any) -> list[AgentEvent]:
        raise NotImplementedError

    async def get_stats(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def clear(self, *args: Any, **more: Any) -> int:
        raise NotImplementedError


def test_an_event_that_differs_in_a_type_alone_is_stored_again() -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), InMemoryEventStore()
        for number, (old, new) in enumerate([(1, 1.0), (1, True), (0.0, -0.0), ("1", 1)]):
            await target.store(event(number, data={"value": [old]}))
            await source.store(event(number, data={"value": [new]}))
        assert await migrate(source, target) == Moved(found=4, stored=4, verified=4)
        assert_same(await everything(target), await everything(source))

    run(work)


def test_an_event_that_the_target_changes_is_stored_and_not_verified() -> None:
    class Rounding(InMemoryEventStore):
        async def store(self, event: AgentEvent) -> bool:
            fields = {**event.to_map(), "data": {**event.data, "value": 1}}
            return await super().store(AgentEvent.from_map(fields))

    async def work() -> None:
        source = InMemoryEventStore()
        await source.store_many([event(0, data={"value": 1}), event(1, data={"value": 1.0})])
        assert await migrate(source, Rounding()) == Moved(found=2, stored=2, verified=1)

    run(work)


def test_an_event_that_is_refused_again_moves_no_other(open_db: OpenDatabase) -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), AmberEventStore(open_db(document_bytes_max=30_000))
        await source.store_many([event(n) for n in range(20)])
        await source.store(event(3, data={"text": "x" * 50_000}))
        await source.store_many([event(n) for n in range(20, 25)])
        for stored, present in ((24, 0), (0, 24)):
            calls = Counted(target)
            moved = await migrate(source, calls, batch=8)
            assert (moved.found, moved.stored, moved.present) == (25, stored, present)
            assert (moved.verified, list(moved.failed)) == (24, ["evt_3"])
            assert ids(await everything(target)) == [f"evt_{n}" for n in range(25) if n != 3]
        assert calls.count == 1, "it is tried, and no other"

    run(work)


def test_an_event_that_the_target_has_lost_is_its_newest_and_no_other_moves() -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), Own()
        await source.store_many([event(n) for n in range(30)])
        await migrate(source, target, batch=5)
        await target.clear(start_time=event(7).timestamp, end_time=event(8).timestamp)
        target.calls.clear()
        moved = await migrate(source, target, batch=5)
        assert (moved.stored, moved.present, moved.verified) == (1, 29, 30)
        assert target.calls == ["evt_7"]
        assert ids(await everything(target))[-2:] == ["evt_29", "evt_7"]

    run(work)


def test_events_of_another_program_in_the_target_stay_as_they_are() -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), Own()
        await target.store_many([event(n) for n in range(100, 110)])
        await source.store_many([event(n) for n in range(12)])
        target.calls.clear()
        assert await migrate(source, target, batch=5) == Moved(found=12, stored=12, verified=12)
        assert target.calls == [f"evt_{n}" for n in range(12)]
        assert ids(await everything(target))[:10] == [f"evt_{n}" for n in range(100, 110)]

    run(work)


def test_progress_is_told_after_each_batch() -> None:
    async def work() -> None:
        source, target = InMemoryEventStore(), InMemoryEventStore()
        await source.store_many([event(n) for n in range(25)])
        told: list[tuple[int, int]] = []
        await migrate(
            source,
            target,
            batch=10,
            progress=lambda moved: told.append((moved.found, moved.verified)),
        )
        assert told == [(10, 10), (20, 20), (25, 25)]

    run(work)


def test_a_batch_is_all_that_is_asked_for_at_once() -> None:
    class Small(InMemoryEventStore):
        async def store_many(self, events: Sequence[AgentEvent]) -> int:
            assert len(events) <= 10
            return await super().store_many(events)

        async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
            assert len(events) <= 10
            return await super().stored(events)

        async def retrieve(self, *args: Any, limit: int | None = 100, **more: Any) -> Any:
            assert limit is not None
            assert limit <= 10
            return await super().retrieve(*args, limit=limit, **more)

        async def iterate(self, *args: Any, **more: Any) -> AsyncIterator[list[AgentEvent]]:
            raise AssertionError("the whole target is read")
            yield []

    async def work() -> None:
        source = InMemoryEventStore()
        await source.store_many([event(n) for n in range(95)])
        moved = await migrate(source, Small(), batch=10)
        assert (moved.found, moved.stored, moved.verified) == (95, 95, 95)

    run(work)


def test_a_store_of_ones_own_finds_copies_by_their_time() -> None:
    async def work() -> None:
        store = Own()
        events = [event(n, timestamp=(START, LAST)[n % 2]) for n in range(1200)]
        await store.store_many(events)
        assert_same(await store.stored(events[1:4]), events[1:4])
        assert await store.stored([]) == []
        assert await store.stored([event(5000)]) == []
        assert await store.stored([event(0, timestamp=LAST)]) == []
        assert len(await store.stored(events)) == 1200

    run(work)
