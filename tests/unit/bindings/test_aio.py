"""amberdb.aio: every blocking method has its awaited one, and what tasks of one loop do to each
other."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    BusyError,
    ClosedError,
    CollectionMissingError,
    DuplicateKeyError,
    NoThreadWarning,
    Ordered,
    ReadOnlyError,
    Text,
    TransactionError,
    aio,
)
from amberdb.engine.database.transaction import SnapshotCollection, TransactionCollection
from support.awaiting import WaitingDisk, assert_face_of, audited, soon

FACES: dict[type, type] = {
    amberdb.Database: aio.Database,
    amberdb.Collection: aio.Collection,
    TransactionCollection: aio.WritableCollection,
    SnapshotCollection: aio.ReadableCollection,
    amberdb.Transaction: aio.Transaction,
    amberdb.Snapshot: aio.Snapshot,
    amberdb.Subscriber: aio.Subscriber,
}
INSIDE = {"writer", "is_of", "expire", "reading", "acquire", "release"}
"""The engine's side of transactions and snapshots."""
BLOCKING = {"check_transaction"}
"""For functions that write within a blocking transaction."""
PLAIN = {"transaction", "snapshot", "changes", "documents", "collection"}
"""Not awaited: they are entered, iterated, or only name what is used later."""


@pytest.mark.parametrize("blocking", FACES, ids=lambda kind: kind.__name__)
def test_every_public_method_has_its_awaited_one_with_the_same_signature(blocking: type) -> None:
    is_of_engine = blocking in (amberdb.Transaction, amberdb.Snapshot)
    plain = PLAIN - {"collection"} if blocking is amberdb.Database else PLAIN
    assert_face_of(FACES[blocking], blocking, INSIDE if is_of_engine else BLOCKING, plain)


@pytest.mark.parametrize("name", ["open", "check", "repair", "restore", "verify_backup"])
def test_functions_have_the_same_signature(name: str) -> None:
    wanted = inspect.signature(getattr(amberdb, name)).parameters
    found = dict(inspect.signature(getattr(aio, name)).parameters)
    if name == "open":
        del found["read_threads"], found["write_threads"]
    assert list(found.values()) == list(wanted.values())


def test_names_are_those_of_the_module() -> None:
    assert [name for name in aio.__all__ if not inspect.getdoc(getattr(aio, name))] == []


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60), debug=True)


def test_a_round_trip_of_everything(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event", indexes=[Ordered("n"), Text("content")])
            key = await events.put({"n": 1, "content": "a red umbrella"})
            ids = await events.put_many([{"id": str(n), "n": n} for n in range(2, 600)])
            with pytest.raises(DuplicateKeyError):
                await events.insert({"id": key})
            await events.update(key, {"done": True})
            assert await events.get(key) == {
                "id": key,
                "n": 1,
                "content": "a red umbrella",
                "done": True,
            }
            assert await events.get("none", 7) == 7
            assert await events.contains(key)
            assert (await events.record(key)).document["done"]
            assert sorted([id async for id in events]) == sorted([key, *ids])
            assert len([each async for each in events.documents()]) == 599
            page = await events.find({"n": {"$gt": 500}}, order_by="n", limit=10)
            assert [each["n"] for each in page] == list(range(501, 511))
            assert [hit.id for hit in await events.search("umbrellas")] == [key]
            assert (await events.explain({"n": 1}))["index"]
            async with db.snapshot() as at:
                assert await events.delete("2")
                assert await events.delete_many({"n": {"$gt": 590}}) == 9
                assert await at["event"].count() == 599
                assert at.lsn < (await db.stats()).last_lsn
            assert await events.count() == 589
            report = await db.backup(tmp_path / "b.amberbak")
            assert (await aio.verify_backup(report.path))[0].documents == {"event": 589}
            assert db.archived_lsn == report.lsn
            await db.rename_collection("event", "old")
            assert await db.collections() == ["old"]
            receipt = await db.erase("old", {}, reason="the test is over")
            assert receipt.documents == 589
            assert (await db.definition("old")).name == "old"
        await aio.restore(report.path, tmp_path / "r.amber")
        assert (await aio.check(tmp_path / "r.amber")).ok
        async with aio.open(tmp_path / "r.amber", read_only=True) as reader:
            assert await reader["event"].count() == 589
            with pytest.raises(ReadOnlyError):
                await reader["event"].put({})

    run(work)


def test_a_collection_that_is_not_there_is_made_by_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            with pytest.raises(CollectionMissingError):
                await db["event"].put({})
            assert await db.collections() == []
            await db.collection("event")
            await db["event"].put({})

    run(work)


def test_awaits_at_the_same_time_share_a_sync(tmp_path: Path) -> None:
    async def work() -> None:
        disk = WaitingDisk()
        async with audited(tmp_path / "t.amber", fs=disk) as db:
            await db.collection("event")
            before = (await db.stats()).sync.count
            disk.hold()
            puts = [asyncio.create_task(db["event"].put({"n": n})) for n in range(12)]
            await soon(disk.entered)
            while (await db.stats()).last_lsn < (await db.stats()).visible_lsn + 12:
                pass
            disk.let_go()
            await asyncio.gather(*puts)
            assert (await db.stats()).sync.count - before == 2

    run(work)


def test_a_transaction_holds_up_writes_and_no_reads(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber", write_threads=2) as db:
            events = await db.collection("event")
            await events.put({"id": "first"})
            async with db.transaction() as tx:
                await tx["event"].put({"id": "second"})
                others = [outside(events.put({"n": n})) for n in range(6)]
                assert await events.count() == 1
                assert await tx["event"].count() == 2
                assert sorted([id async for id in tx["event"]]) == ["first", "second"]
                assert not any(each.done() for each in others)
            await asyncio.gather(*others)
            assert tx.lsn
            assert await events.count() == 8

    run(work)


def outside(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A task that was not started by the one that is inside a transaction."""
    import contextvars

    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


def test_transactions_take_turns(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            counters = await db.collection("counter")
            await counters.put({"id": "a", "n": 0})

            async def count() -> None:
                async with db.transaction() as tx:
                    found = await tx["counter"].get("a")
                    assert found is not None
                    await asyncio.sleep(0)
                    await tx.collection("counter").put({"id": "a", "n": found["n"] + 1})

            await asyncio.gather(*(count() for _ in range(20)))
            assert await counters.get("a") == {"id": "a", "n": 20}

    run(work)


def test_an_error_in_a_transaction_undoes_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            tx = db.transaction()

            async def fail() -> None:
                async with tx:
                    await tx["event"].put({})
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            assert await events.count() == 0
            with pytest.raises(ClosedError):
                await tx["event"].put({})

    run(work)


def test_what_would_wait_for_itself_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            async with db.transaction() as tx:
                await tx["event"].put({"id": "a"})
                for refused in (
                    events.put({}),
                    db.close(),
                    db.checkpoint(),
                    db.transaction().__aenter__(),
                    asyncio.create_task(events.put({})),
                ):
                    with pytest.raises(TransactionError, match="inside its own"):
                        await refused
            await events.put({})
            assert await events.count() == 2

    run(work)


def test_a_turn_that_does_not_come_is_busy(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber", busy_timeout_ms=20) as db:
            await db.collection("event")
            async with db.transaction():
                for refused in (
                    db.transaction(timeout_ms=10).__aenter__(),
                    db["event"].put({}),
                    db.close(),
                ):
                    with pytest.raises(BusyError):
                        await outside(refused)
            await db["event"].put({})

    run(work)


def test_after_close_every_call_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        db = await aio.open(tmp_path / "t.amber")
        events = await db.collection("event")
        snapshot = await db.snapshot()
        await db.close()
        await db.close()
        for refused in (events.put({}), events.get("a"), db.stats(), snapshot["event"].count()):
            with pytest.raises(ClosedError):
                await refused
        await snapshot.close()
        async with aio.open(tmp_path / "t.amber"):
            pass

    run(work)


def test_followers_are_told_and_end_with_the_database(tmp_path: Path) -> None:
    async def work() -> None:
        async def follow(db: aio.Database, told: list[str]) -> None:
            async for change in db.changes(start, follow=True):
                told.append(change.id)
                if len(told) == 20:
                    all_told.release()

        told: list[list[str]] = [[], [], []]
        all_told = asyncio.Semaphore(0)
        async with audited(tmp_path / "t.amber", read_threads=1) as db:
            events = await db.collection("event")
            start = (await db.stats()).last_lsn
            followers = [asyncio.create_task(follow(db, each)) for each in told]
            for block in range(2):
                await events.put_many([{"id": f"{block}{n}"} for n in range(10)])
            for _ in told:
                await all_told.acquire()
        await asyncio.gather(*followers)
        assert told == [[f"{block}{n}" for block in range(2) for n in range(10)]] * 3

    run(work)


def test_a_follower_goes_on_for_as_long_as_it_is_asked_to(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            await events.put_many([{"id": str(n)} for n in range(600)])
            found = [change async for change in db.changes(follow=True, timeout_s=0.0)]
            assert len(found) == 600

    run(work)


def test_a_subscriber_goes_on_where_it_was(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")
            reader = await db.subscriber("reader")
            await events.put({"id": "a"})
            await events.put({"id": "b"})
            first = [change async for change in reader.changes()]
            assert [change.id for change in first] == ["a", "b"]
            await reader.acknowledge(first[0].lsn)
            assert reader.position == first[0].lsn
            again = await db.subscriber("reader")
            assert [change.id async for change in again.changes()] == ["b"]
            await again.remove()
            assert (await db.stats()).subscribers == {}

    run(work)


def test_progress_is_told_in_the_loop(tmp_path: Path) -> None:
    async def work() -> None:
        threads: set[int] = set()

        def progress(name: str, count: int) -> None:
            threads.add(threading.get_ident())

        async with audited(tmp_path / "t.amber") as db:
            await (await db.collection("event")).put_many([{"n": n} for n in range(50)])
            await db.check(progress)
            await db.check(progress=progress)
        await aio.check(tmp_path / "t.amber", progress)
        await asyncio.sleep(0)
        assert threads == {threading.get_ident()}

    run(work)


def test_functions_of_ones_own_run_in_a_thread(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            events = await db.collection("event")

            def fill(count: int, *, name: str) -> int:
                with db.blocking.transaction() as tx:
                    tx[name].put_many([{"n": n} for n in range(count)])
                return threading.get_ident()

            assert await db.in_thread(fill, 5, name="event") != threading.get_ident()
            assert await events.count() == 5

    run(work)


def test_lock_is_awaited(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            async with db.transaction() as tx:
                assert tx.runs_alone
                await tx.lock("a", "b")
            with pytest.raises(ClosedError):
                await tx.lock("a")

    run(work)


def test_run_awaits_its_work_in_a_transaction(tmp_path: Path) -> None:
    async def work() -> None:
        async with audited(tmp_path / "t.amber") as db:
            await db.collection("event")

            async def fill(tx: aio.Transaction) -> int:
                await tx["event"].put_many([{"n": n} for n in range(5)])
                return await tx["event"].count()

            async def fail(tx: aio.Transaction) -> None:
                await fill(tx)
                raise ZeroDivisionError

            assert await db.run(fill) == 5
            assert await db.run(fill, isolation="serializable", sync="os") == 10
            with pytest.raises(ZeroDivisionError):
                await db.run(fail)
            assert await db["event"].count() == 10

    run(work)


def test_without_a_thread_calls_run_in_the_loop_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, left = threading.Thread.start, 1

    def refuse(thread: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def work(threads: int) -> None:
        nonlocal left
        left = threads
        async with audited(tmp_path / f"{threads}.amber") as db:
            notes = await db.collection("n")
            calls = [notes.insert({"id": str(n)}) for n in range(20)]
            assert len(await asyncio.gather(*calls)) == 20  # a second one would find the id
            async with db.transaction() as tx:
                await tx["n"].put({"id": "tx"})
            assert await notes.count() == 21

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for threads in range(4):  # so many start before there is none to be had
        with pytest.warns(NoThreadWarning) as caught:
            asyncio.run(work(threads))
        assert sum("event loop" in str(each.message) for each in caught) == 1
