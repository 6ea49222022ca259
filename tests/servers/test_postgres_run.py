"""db.run(), serializable transactions, and an event loop, on a server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any, cast

import pytest

import amberdb
from amberdb import ConflictError, Database, Isolation, Ordered, Transaction, aio
from support.servers import PostgreSQL


class Doctors:
    """Two doctors are on call. Each goes home if another one stays."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.doctors = db.collection("doctor", indexes=[Ordered("on_call")])
        self.doctors.put_many({"id": id, "on_call": 1} for id in ("a", "b"))
        self._both_have_looked = Barrier(2)
        self.calls = 0

    def go_home(self, id: str, tx: Transaction) -> None:
        self.calls += 1
        others = tx["doctor"].count({"on_call": 1}) - 1
        if self.calls <= 2:
            self._both_have_looked.wait(30)
        if others:
            tx["doctor"].update(id, {"on_call": 0})

    def both(self, isolation: Isolation | None) -> int:
        """How many are on call after both have tried."""

        def leave(id: str) -> None:
            self.db.run(lambda tx: self.go_home(id, tx), isolation=isolation)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(leave, "ab"))
        return self.doctors.count({"on_call": 1})


def test_write_skew_is_there_unless_transactions_are_serializable(db: Database) -> None:
    """What count() has read is not locked."""
    doctors = Doctors(db)
    assert doctors.both(None) == 0
    assert doctors.calls == 2
    db.drop_collection("doctor")
    doctors = Doctors(db)
    assert doctors.both("serializable") == 1
    assert doctors.calls == 3


def test_serializable_transaction_raises_a_conflict(db: Database, url: str) -> None:
    """Without run() the program begins it again by itself."""
    doctors = db.collection("doctor", indexes=[Ordered("on_call")])
    doctors.put_many({"id": id, "on_call": 1} for id in ("a", "b"))

    def both_leave(other: Database) -> None:
        with db.transaction(isolation="serializable") as tx:
            assert tx["doctor"].count({"on_call": 1}) == 2
            with other.transaction(isolation="serializable") as theirs:
                assert theirs["doctor"].count({"on_call": 1}) == 2
                theirs["doctor"].update("b", {"on_call": 0})
            tx["doctor"].update("a", {"on_call": 0})

    with (
        amberdb.connect(url) as other,
        pytest.raises(ConflictError, match="another writer was in the way"),
    ):
        both_leave(other)
    assert doctors.find({"on_call": 1}) == [{"id": "a", "on_call": 1}]


def test_run_begins_again_until_it_is_done(db: Database, url: str) -> None:
    """Two transactions that take two documents in opposite orders wait for each other."""
    db.collection("account").put_many({"id": id, "left": 0} for id in ("a", "b"))
    both_have_one = Barrier(2)
    calls: list[str] = []

    def work(tx: Transaction, ids: str) -> str:
        calls.append(ids)
        tx["account"].update(ids[0], {"$inc": {"left": 1}})
        tx["account"].count()  # it is sent to the server
        if len(calls) <= 2:
            both_have_one.wait(30)
        tx["account"].update(ids[1], {"$inc": {"left": 1}})
        return ids

    def move(ids: str) -> str:
        with amberdb.connect(url) as mine:
            return mine.run(lambda tx: work(tx, ids))

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(move, ("ab", "ba"))) == ["ab", "ba"]
    assert len(calls) == 3
    assert [each["left"] for each in db["account"].find()] == [2, 2]


def test_the_last_attempt_raises(db: Database, url: str) -> None:
    notes = db.collection("note")
    notes.put({"id": "a", "n": 0})
    calls: list[int] = []
    with amberdb.connect(url) as other:

        def overtaken(tx: Transaction) -> None:
            calls.append(tx["note"].count())
            other["note"].update("a", {"$inc": {"n": 1}})
            tx["note"].update("a", {"n": -1})

        with pytest.raises(ConflictError, match="run it again"):
            db.run(overtaken, isolation="serializable", attempts=3)
    assert len(calls) == 3
    assert notes["a"]["n"] == 3


def test_what_the_work_raises_is_raised_at_once(db: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a"})
    calls: list[int] = []

    def work(tx: Transaction) -> None:
        calls.append(1)
        tx["note"].put({"id": "b"})
        tx["note"].update("a", {"n": 1}, if_version=1)

    with pytest.raises(ConflictError, match="at version"):
        db.run(work)
    assert calls == [1]
    assert list(notes) == ["a"]
    for call in (
        lambda: db.run(work, attempts=0),
        lambda: db.run(work, isolation=cast(Any, "snapshot")),
        lambda: db.transaction(isolation=cast(Any, "snapshot")),
    ):
        with pytest.raises(ValueError, match=r"give 1 or more|use 'serializable'"):
            call()
    assert calls == [1]


def test_serializable_transaction_goes_by_the_newest_declaration(
    postgres18: PostgreSQL, db: Database, url: str
) -> None:
    """It waits for a declaration before the server gives it its state."""
    db.collection("note").put({"id": "a", "n": 1})
    started, inside = Event(), Event()
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"

    def slow(document: amberdb.Document) -> amberdb.Document:
        assert started.wait(30)
        inside.set()
        while postgres18.execute(waits).strip() == "0":
            assert not done.done()  # it waits for the fence
        return {**document, "m": 2}

    with amberdb.connect(url) as other, ThreadPoolExecutor(2) as threads:
        declared = threads.submit(
            db.collection, "note", version=2, migrate={2: slow}, indexes=[Ordered("n")]
        )
        done = threads.submit(
            lambda: (
                inside.wait(30)
                and other.run(
                    lambda tx: tx["note"].put({"id": "b", "n": 1}), isolation="serializable"
                )
            )
        )
        started.set()
        assert done.result(30) == "b"
        declared.result(30)
    assert [each["id"] for each in db["note"].find({"n": 1})] == ["a", "b"]
    assert db["note"].explain({"n": 1})["index"] == "ordered:n"


# -- an event loop ---------------------------------------------------------------------------------


def test_thirty_tasks(url: str) -> None:
    async def work() -> None:
        async with aio.connect(url) as db:
            notes = await db.collection("note", indexes=[Ordered("n")])

            async def task(number: int) -> None:
                await notes.put({"id": f"{number}", "n": number})
                for _ in range(3):
                    async with db.transaction() as tx:
                        known = await tx["note"].get("all") or {"id": "all", "sum": 0}
                        await tx["note"].put({**known, "sum": known["sum"] + number})
                assert await db.run(lambda tx: tx["note"].count({"n": number})) == 1
                assert (await notes.find({"n": number}))[0]["id"] == f"{number}"

            await asyncio.gather(*map(task, range(30)))
            assert await notes.count() == 31
            assert await notes.get("all") == {"id": "all", "sum": 3 * sum(range(30))}
            feed = await db.subscriber("reader")
            await notes.put({"id": "last"})
            changes = [change.id async for change in feed.changes()]
            assert changes == ["last"]
            async with db.snapshot() as at:
                assert await at["note"].count() == 32

    asyncio.run(asyncio.wait_for(work(), 60))
