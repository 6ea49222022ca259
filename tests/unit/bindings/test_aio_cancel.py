"""Cancelled tasks: what they had begun is wholly done or not at all, and holds nothing up."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import Ordered, aio
from support.awaiting import WaitingDisk, audited, soon


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


async def turns(count: int) -> None:
    """Of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# What a task does under one number: writes that belong together, over two collections.
WRITES = ("put_many", "transaction", "delete and put", "doomed")

PLANS = st.lists(
    st.tuples(st.sampled_from(WRITES), st.integers(0, 120), st.booleans()), min_size=1, max_size=12
)


async def write(db: aio.Database, kind: str, number: int) -> None:
    left, right = {"id": str(number), "side": "left"}, {"id": f"r{number}", "side": "right"}
    if kind == "put_many":
        await db["pair"].put_many([left, right])
        return
    async with db.transaction() as tx:
        if kind == "delete and put":
            await tx["pair"].put({"id": f"gone{number}"})
            await asyncio.sleep(0)
            await tx["pair"].delete(f"gone{number}")
        await tx["pair"].put(left)
        await asyncio.sleep(0)
        await tx["pair"].put(right)
        if kind == "doomed":
            raise ZeroDivisionError


@pytest.mark.slow
@settings(max_examples=max(1, settings().max_examples // 2))
@given(PLANS)
def test_whatever_is_cancelled_anywhere_is_whole_or_not_there(
    plan: list[tuple[str, int, bool]],
) -> None:
    async def work() -> None:
        with TemporaryDirectory() as directory:
            path = Path(directory) / "t.amber"
            async with audited(path, write_threads=3, busy_timeout_ms=10_000) as db:
                await db.collection("pair", indexes=[Ordered("side")])
                tasks: list[asyncio.Task[None]] = []
                for number, (kind, _, _) in enumerate(plan):
                    tasks.append(asyncio.create_task(write(db, kind, number)))
                ends = [
                    asyncio.create_task(end(task, after, twice))
                    for task, (_, after, twice) in zip(tasks, plan, strict=True)
                ]
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*ends)
                found = {id async for id in db["pair"]}
                await db["pair"].put({"id": "after"})  # nobody has the lock
                async with db.transaction() as tx:
                    await tx["pair"].delete("after")
            for number, ((kind, _, _), outcome) in enumerate(zip(plan, outcomes, strict=True)):
                both = {str(number), f"r{number}"}
                assert both & found in (set(), both)
                assert f"gone{number}" not in found
                if outcome is None:
                    assert both <= found
                elif isinstance(outcome, ZeroDivisionError) or kind == "doomed":
                    assert not both & found
                else:
                    assert isinstance(outcome, asyncio.CancelledError)

    async def end(task: "asyncio.Task[None]", after: int, twice: bool) -> None:
        await turns(after)
        task.cancel()
        if twice:
            await turns(1)
            task.cancel()

    run(work)


def test_a_write_that_runs_is_done_when_its_task_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        disk = WaitingDisk()
        async with audited(tmp_path / "t.amber", fs=disk) as db:
            events = await db.collection("event")
            disk.hold()
            put = asyncio.create_task(events.put({"id": "a"}))
            await soon(disk.entered)
            for _ in range(3):
                put.cancel()
                await turns(5)
            assert not put.done()
            disk.let_go()
            await cancelled(put)
            assert await events.contains("a")

    run(work)


def test_a_write_that_waits_for_a_thread_is_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        disk = WaitingDisk()
        async with audited(tmp_path / "t.amber", fs=disk, write_threads=1) as db:
            events = await db.collection("event")
            disk.hold()
            first = asyncio.create_task(events.put({"id": "first"}))
            await soon(disk.entered)
            second = asyncio.create_task(events.put({"id": "second"}))
            await turns(2)
            await cancelled(second)
            disk.let_go()
            await first
            assert [id async for id in events] == ["first"]

    run(work)


def test_a_commit_is_not_cut_short(tmp_path: Path) -> None:
    async def work() -> None:
        disk = WaitingDisk()
        async with audited(tmp_path / "t.amber", fs=disk) as db:
            await db.collection("event")
            tx = db.transaction()

            async def commit() -> None:
                async with tx:
                    await tx["event"].put({"id": "a"})
                    disk.hold()

            task = asyncio.create_task(commit())
            await soon(disk.entered)
            task.cancel()
            await turns(5)
            assert not task.done()
            disk.let_go()
            await cancelled(task)
            assert tx.lsn
            assert await db["event"].contains("a")

    run(work)


def test_a_transaction_that_nobody_gets_lets_go_of_the_lock(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            with db.blocking.transaction() as holder:  # its begin waits in a thread
                task = asyncio.create_task(db.transaction().__aenter__())
                await turns(20)
                task.cancel()
                await turns(20)
                assert not task.done()
                holder["event"].put({"id": "a"})
            await cancelled(task)
            await events.put({"id": "b"})
            async with db.transaction() as tx:
                await tx["event"].put({"id": "c"})

    run(work)


def test_a_task_that_waits_for_its_turn_leaves_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:

            async def hold() -> None:
                async with db.transaction():
                    entered.set()
                    await asyncio.Event().wait()

            entered = asyncio.Event()
            holder = asyncio.create_task(hold())
            await entered.wait()
            second = asyncio.create_task(hold())
            await turns(5)
            await cancelled(second)
            await cancelled(holder)
            await (await db.collection("event")).put({})

    run(work)


@pytest.mark.parametrize("opens", [aio.open, aio.connect])
def test_what_was_opened_for_nobody_is_closed(
    tmp_path: Path, opens: "Callable[[Path], aio.Opening[aio.Database]]"
) -> None:
    async def work() -> None:
        for after in range(0, 60, 3):
            await given_up(opens(tmp_path / "t.amber"), after)
        assert amberdb.check(tmp_path / "t.amber").ok  # it takes the lock
        async with audited(tmp_path / "t.amber") as db:
            for after in range(0, 30, 3):
                await given_up(db.snapshot(), after)
            assert (await db.stats()).snapshots == 0

    async def given_up(opening: aio.Opening[Any], after: int) -> None:
        async def opened() -> Any:
            return await opening

        task = asyncio.create_task(opened())
        await turns(after)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await task.result().close()

    run(work)


@pytest.mark.slow
def test_a_long_call_ends_early(tmp_path: Path) -> None:
    async def work() -> None:
        target = tmp_path / "b.amberbak"
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            await events.put_many([{"text": "x" * 10_000} for _ in range(2_000)])
            began = asyncio.Event()

            def progress(path: str, size_bytes: int) -> None:
                began.set()

            backup = asyncio.create_task(
                db.backup(target, rate_bytes_s=2_000_000, progress=progress)
            )
            await began.wait()
            await cancelled(backup)
            assert not target.exists()
            await db.backup(target)

    run(work)


def test_a_follower_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            told = asyncio.Event()

            async def follow() -> None:
                async for _ in db.changes(follow=True):
                    told.set()

            task = asyncio.create_task(follow())
            await events.put({})
            await told.wait()
            await cancelled(task)

    run(work)
