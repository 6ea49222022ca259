"""Interrupted calls: an exception at any line of a call stops nobody else, and poisons nothing.

Each call is interrupted at every line that its thread executes inside the package. After each
interruption the same call, a write and a read succeed in this thread and in another one.
"""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Database, IndexSpec, Ordered, Text, Unique
from support import slices
from support.databases import SMALL, OpenDatabase, assert_sound
from support.interrupts import interrupted_at

pytestmark = pytest.mark.sliced
STRIDE = slices.size(1, 11)
"""One line of so many is interrupted in the short run."""
INDEXES: list[IndexSpec] = [Ordered("n"), Unique("k", sparse=True), Text("t")]


def put(db: Database) -> None:
    db["m"].put({"id": "b", "n": 2, "k": "x", "t": "hello world"})


def update(db: Database) -> None:
    db["m"].update("a", {"n": 3})


def delete(db: Database) -> None:
    db["m"].put({"id": "d", "n": 1, "k": "d"})
    db["m"].delete("d")


def transaction(db: Database) -> None:
    with db.transaction() as tx:
        tx["m"].put({"id": "e", "n": 1, "k": "e"})
        tx["m"].update("a", {"n": 4})


def snapshot(db: Database) -> None:
    with db.snapshot() as at:
        at["m"].get("a")
        at["m"].find({"n": {"$gte": 0}})


def read(db: Database) -> None:
    db["m"].get("a")
    db["m"].find({"n": {"$gte": 1}}, order_by="n")


def search(db: Database) -> None:
    db["m"].search("hello")


def checkpoint(db: Database) -> None:
    put(db)
    db.checkpoint()


def declare(db: Database) -> None:
    db.collection("m", indexes=[*INDEXES, Ordered("z")])
    db.collection("m", indexes=INDEXES)


CALLS: list[Callable[[Database], None]] = [
    put,
    update,
    delete,
    transaction,
    snapshot,
    read,
    search,
    checkpoint,
    declare,
]


def made(open_db: OpenDatabase, **options: Any) -> Database:
    db = open_db(busy_timeout_ms=2000, segment_bytes_max=8192, **options)
    db.collection("m", indexes=INDEXES).put({"id": "a", "n": 1, "k": "a", "t": "hello"})
    return db


def failure_in_thread(call: Callable[[], object]) -> str | None:
    """What a call in another thread raised; "it hangs"; None when it succeeded."""
    result: list[str | None] = []

    def run() -> None:
        try:
            call()
            result.append(None)
        except BaseException as error:
            result.append(repr(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    return result[0] if result else "it hangs"


@pytest.mark.parametrize(
    ("call", "sync"),
    slices.every(4, [(call, sync) for sync in ("always", "interval", "os") for call in CALLS]),
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_call_that_is_interrupted_at_any_line_stops_nobody(
    open_db: OpenDatabase, call: Callable[[Database], None], sync: str
) -> None:
    db = made(open_db, sync=sync)
    number = 0
    while (place := interrupted_at(number, lambda: call(db))) is not None:

        def after(number: int = number) -> None:
            db["m"].put({"id": f"after {number % 5}", "n": number})
            db["m"].get("a")
            call(db)

        try:
            after()
        except BaseException as error:
            pytest.fail(f"after an interruption at {place}: {error!r}")
        assert failure_in_thread(after) is None, place
        number += STRIDE
        if number // STRIDE % 10 == 0:
            db.checkpoint()  # else thousands of versions and of dropped indexes take long
            db.build_indexes()
    assert number > 100
    assert_sound(db)
    kept = db["m"].find(order_by="id")
    db.close()
    assert open_db()["m"].find(order_by="id") == kept


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of files left open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_close_that_is_interrupted_at_any_line_is_completed_by_the_next(
    tmp_path: Path, sync: str
) -> None:
    number = 0
    path = tmp_path / "t.amber"
    while True:
        options: dict[str, Any] = {**SMALL, "sync": sync, "busy_timeout_ms": 2000}
        db = amberdb.open(path, **options)
        db.collection("m", indexes=INDEXES).put({"id": str(number), "n": number, "t": "hello"})
        place = interrupted_at(number, db.close)

        def after(db: Database = db, number: int = number) -> None:
            db.close()
            with amberdb.open(path, **SMALL) as again:
                assert again["m"][str(number)]["n"] == number

        if number % 2:
            after()
        else:
            assert failure_in_thread(after) is None, place
        if place is None:
            break
        number += STRIDE
    with amberdb.open(path, **SMALL) as db:
        assert_sound(db)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("sync", ["always", "os"])
def test_real_signals_among_writers_stop_nobody(open_db: OpenDatabase, sync: str) -> None:
    """The main thread is interrupted by signals at arbitrary places while others write."""
    db = made(open_db, sync=sync)
    notes, interruptions, stop = db["m"], 0, threading.Event()
    acknowledged: list[list[str]] = [[], []]
    failed: list[BaseException] = []

    def write(mine: list[str], name: str) -> None:
        number = 0
        while not stop.is_set():
            try:
                mine.append(notes.put({"id": f"{name}{number % 50}", "n": number}))
            except BaseException as error:
                failed.append(error)
                return
            number += 1

    rang = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        rang.set()
        raise KeyboardInterrupt

    threads = [
        threading.Thread(target=write, args=(mine, name))
        for mine, name in zip(acknowledged, "xy", strict=True)
    ]
    for thread in threads:
        thread.start()
    handler = signal.signal(signal.SIGALRM, interrupt)
    timer = signal.setitimer(signal.ITIMER_REAL, 0)  # pytest-timeout has one
    try:
        while interruptions < slices.size(2000, 200):
            rang.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + interruptions % 37 * 0.00005)
                while not rang.is_set():  # Python drops what is raised in a weakref's callback
                    transaction(db)
                    put(db)
                    snapshot(db)
            except KeyboardInterrupt:
                pass
            interruptions += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not failed, failed
    assert not any(thread.is_alive() for thread in threads)
    put(db)
    for mine in acknowledged:
        assert mine
        assert all(id in notes for id in mine)
    assert_sound(db)
