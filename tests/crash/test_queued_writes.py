"""Writes that the thread with the writer lock executes for the threads that wait for it."""

import ctypes
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from amberdb import (
    BusyError,
    Collection,
    ConflictError,
    Database,
    DuplicateKeyError,
    MissingKeyError,
    Ordered,
    TransactionError,
    Unique,
    _call_lock,
    _failpoints,
)
from amberdb._call_lock import CallLock
from support import slices
from support.databases import OpenDatabase
from support.inside import engine_of
from support.interrupts import interrupted_at

LIMIT_S = 30


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption a thread that waits finds out by itself: in dozens of rounds here."""
    monkeypatch.setattr(_call_lock, "_LOOK_S", 0.005)


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._call = call
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def outcome(self) -> object:
        """What it returned, or the type of its error."""
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive(), "it hangs"
        return self.result if self.error is None else type(self.error)


class Places:
    """What is called at failpoints, once each."""

    def __init__(self) -> None:
        self.calls: dict[str, Callable[[], None]] = {}
        self.threads: dict[str, list[int]] = {}
        """By failpoint, the threads that reached it."""

    def reached(self, name: str) -> None:
        self.threads.setdefault(name, []).append(threading.get_ident())
        if call := self.calls.pop(name, None):
            call()


@pytest.fixture
def places() -> Generator[Places]:
    places = Places()
    _failpoints.install(places.reached)
    yield places
    _failpoints.install(None)


def lock_of(db: Database) -> CallLock:
    """The writer lock."""
    return engine_of(db).committer._lock  # pyright: ignore[reportPrivateUsage]


def queued(lock: CallLock, *calls: Callable[[], object]) -> list[Call]:
    """The calls, which wait for the lock in this order."""
    waiting = lock._waiting  # pyright: ignore[reportPrivateUsage]  # no line of the package
    begun: list[Call] = []
    for call in calls:
        begun.append(Call(call))
        for _ in range(LIMIT_S * 1000):
            if len(waiting) == len(begun):
                break
            begun[-1].thread.join(0.001)
        else:
            pytest.fail("it does not wait")
    return begun


def made(open_db: OpenDatabase, **options: Any) -> tuple[Database, Collection]:
    db = open_db(busy_timeout_ms=LIMIT_S * 1000, **options)
    notes = db.collection("n", indexes=[Unique("u", sparse=True), Ordered("v")])
    notes.put_many([{"id": "a", "v": 0, "u": "a"}, {"id": "b", "v": 0}])
    return db, notes


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_each_write_has_its_own_result_and_errors_in_the_order_of_the_queue(
    open_db: OpenDatabase, places: Places, sync: str
) -> None:
    db, notes = made(open_db, sync=sync)
    calls: list[Call] = []
    places.calls["commit.encoded"] = lambda: calls.extend(
        queued(
            lock_of(db),
            lambda: notes.put({"id": "c", "u": "c"}),
            lambda: notes.put({"id": "d", "u": "c"}),  # c has it by now
            lambda: notes.insert({"id": "c"}),
            lambda: notes.delete("c"),
            lambda: notes.put({"id": "d", "u": "c"}),
            lambda: notes.delete("c"),
            lambda: notes.update("b", {"$inc": {"v": 1}}),
            lambda: notes.update("b", {"v": 5}, if_version=1),
            lambda: notes.update("gone", {"v": 5}),
        )
    )
    before = db.stats().log["syncs"]
    notes.put({"id": "a", "v": 1, "u": "a"})
    lsn = calls[6].outcome()
    assert [call.outcome() for call in calls] == [
        *("c", DuplicateKeyError, DuplicateKeyError, True, "d", False, lsn),
        *(ConflictError, MissingKeyError),
    ]
    assert notes.find(order_by="id") == [
        {"id": "a", "v": 1, "u": "a"},
        {"id": "b", "v": 1},
        {"id": "d", "u": "c"},
    ]
    record = notes.record("b")
    assert record is not None
    assert record.version == lsn
    if sync == "always":  # one for all that were executed together
        assert db.stats().log["syncs"] - before == 1
    place = places.threads["commit.encoded"]
    assert place == [threading.get_ident()] * len(place)


@pytest.mark.parametrize(("first", "second"), [("os", "always"), ("always", "os")])
def test_each_write_waits_for_its_own_durability(
    open_db: OpenDatabase, places: Places, first: Any, second: Any
) -> None:
    db, notes = made(open_db)
    calls: list[Call] = []
    places.calls["commit.encoded"] = lambda: calls.extend(
        queued(lock_of(db), lambda: notes.put({"id": "c"}, sync=second))
    )
    durable: list[int] = []
    places.calls["commit.synced"] = lambda: durable.append(threading.get_ident())
    notes.put({"id": "a"}, sync=first)
    assert calls[0].outcome() == "c"
    leader = threading.get_ident() if first == "always" else calls[0].thread.ident
    assert durable == [leader]


def test_a_write_that_is_late_is_not_executed_later(open_db: OpenDatabase) -> None:
    db = open_db(busy_timeout_ms=50)
    notes = db.collection("n")
    with db.transaction() as tx:
        tx["n"].put({"id": "a"})
        with pytest.raises(TransactionError, match="open transaction"):
            notes.put({"id": "mine"})
        assert Call(lambda: notes.put({"id": "late"})).outcome() is BusyError
    notes.put({"id": "b"})
    assert [each["id"] for each in notes.find(order_by="id")] == ["a", "b"]


def test_a_write_whose_call_was_interrupted_does_not_replace_a_newer_one(
    open_db: OpenDatabase,
) -> None:
    db, notes = made(open_db)
    with db.transaction() as tx:
        tx["n"].update("b", {"v": 1})
        calls = queued(lock_of(db), *[lambda: notes.put({"id": "a", "v": "old"})] * 3)
        for call in calls:
            assert call.thread.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(call.thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
            assert call.outcome() is KeyboardInterrupt
    notes.put({"id": "a", "v": "new"})
    notes.put({"id": "c"})
    assert notes["a"]["v"] == "new"


def test_close_waits_for_the_writes_that_are_executed(open_db: OpenDatabase) -> None:
    db, notes = made(open_db)
    lock = lock_of(db)
    others: list[Call] = []

    def come() -> None:
        others.extend(queued(lock, lambda: notes.put({"id": "c"}), db.close))

    _failpoints.install(lambda name: come() if name == "commit.encoded" and not others else None)
    try:
        notes.put({"id": "d"})
    finally:
        _failpoints.install(None)
    assert [call.outcome() for call in others] == ["c", None]
    assert [each["id"] for each in open_db()["n"].find(order_by="id")] == ["a", "b", "c", "d"]


@pytest.mark.sliced
@pytest.mark.parametrize("sync", ["always", "os"])
def test_whoever_is_interrupted_each_write_is_made_once(
    open_db: OpenDatabase, places: Places, sync: str
) -> None:
    """The thread that executes the writes of two others is interrupted at any line."""
    db, notes = made(open_db, sync=sync, segment_bytes_max=8192)
    number = rounds = 0
    while True:
        calls: list[Call] = []

        def come(calls: list[Call] = calls) -> None:
            add = {"$inc": {"v": 1}}
            calls.extend(queued(lock_of(db), *[lambda: notes.update("b", add)] * 2))

        places.calls["commit.encoded"] = come
        place = interrupted_at(number, lambda: notes.put({"id": "a"}))
        places.calls.clear()
        if calls:
            rounds += 1
        for call in calls:
            assert isinstance(call.outcome(), int), (place, call.error)
        assert notes["b"]["v"] == 2 * rounds, place
        notes.put({"id": "c"})
        if place is None:
            break
        number += slices.size(1, 12)
    assert rounds > 100 // slices.size(1, 12)


@pytest.mark.sliced
def test_a_write_that_is_interrupted_while_another_thread_executes_it(
    open_db: OpenDatabase,
) -> None:
    """One that waits is interrupted at any line: it is made once or not at all, and what its thread
    writes afterwards is newer."""
    db, notes = made(open_db, sync="os")
    counts: list[int] = []
    number = 0
    places: list[str | None] = [""]
    while places[-1] is not None:

        def interrupted(number: int = number) -> None:
            places.append(interrupted_at(number, lambda: notes.update("b", {"v": f"old {number}"})))
            notes.update("b", {"v": number})

        other: list[Call] = []

        def come(name: str, other: list[Call] = other) -> None:
            if name == "commit.encoded" and not other:
                other.append(Call(interrupted))
                for _ in range(1000):  # it waits, or was interrupted before that and waits again
                    if lock_of(db).waiters():
                        break
                    other[0].thread.join(0.001)

        _failpoints.install(come)
        try:
            notes.put({"id": "a", "v": number})
        finally:
            _failpoints.install(None)
        assert other[0].outcome() is None, (places[-1], other[0].error)
        assert notes["b"]["v"] == number, places[-1]
        number += slices.size(1, 3)
        counts.append(number)
    assert len(counts) > 20
