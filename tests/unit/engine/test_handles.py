"""Handles: one database per directory in a process, however often it is opened."""

import gc
import os
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import amberdb
from amberdb import (
    BusyError,
    ClosedError,
    Collection,
    Database,
    LockedError,
    OptionsDifferError,
    Ordered,
    ReadOnlyError,
    Snapshot,
    TransactionError,
)
from amberdb import _failpoints as failpoints
from support.databases import SMALL, OpenDatabase, assert_sound
from support.inside import engine_of


def lock_is_free(path: str) -> bool:
    """Whether the directory's lock can be taken; a repair takes it."""
    try:
        amberdb.repair(path)
    except LockedError:
        return False
    return True


def test_a_second_open_is_a_handle_on_the_same_database(open_db: OpenDatabase) -> None:
    first = open_db()
    second = open_db()
    assert first is not second
    first.collection("n", indexes=[Ordered("x")]).put({"id": "a", "x": 1})
    assert second["n"]["a"] == {"id": "a", "x": 1}
    second["n"].put({"id": "b", "x": 2})
    assert [note["id"] for note in first["n"].find({"x": {"$gte": 1}})] == ["a", "b"]
    assert engine_of(first) is engine_of(second)


def test_closing_one_handle_leaves_the_others(open_db: OpenDatabase) -> None:
    first, second = open_db(), open_db()
    mine, others = first.collection("n"), second["n"]
    at, other_at = first.snapshot(), second.snapshot()
    feed, other_feed = first.subscriber("f"), second.subscriber("f")
    mine.put({"id": "a"})
    first.close()
    for use in (
        lambda: mine.get("a"),
        lambda: mine.put({"id": "b"}),
        lambda: mine.find(),
        lambda: first["n"],
        lambda: first.collection("n"),
        lambda: first.transaction().__enter__(),
        lambda: first.snapshot(),
        lambda: first.compact(),
        lambda: list(first.changes()),
        lambda: feed.acknowledge(feed.position),
        lambda: list(feed.changes()),
        lambda: at["n"],
        lambda: first.stats(),
    ):
        with pytest.raises(ClosedError):
            use()
    first.close()
    others.put({"id": "b"})
    assert list(others) == ["a", "b"]
    assert [change.id for change in other_feed.changes()] == ["a", "b"]
    assert list(other_at["n"]) == []
    assert not lock_is_free(second.path)
    assert_sound(second)
    second.close()
    assert lock_is_free(second.path)
    assert list(open_db()["n"]) == ["a", "b"]


def test_two_names_of_one_directory_are_one_database(
    open_db: OpenDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db()
    link = tmp_path / "link"
    link.symlink_to(db.path)
    monkeypatch.chdir(tmp_path)
    for name in ("link", "t.amber", f"{tmp_path}/./t.amber/"):
        with amberdb.open(name) as other:
            assert engine_of(other) is engine_of(db)
    os.rename(db.path, tmp_path / "moved")
    with amberdb.open("moved") as other:
        assert engine_of(other) is engine_of(db)
    os.rename(tmp_path / "moved", db.path)


def test_another_database_at_the_path_is_another_database(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    db.collection("n").put({"id": "old"})
    os.rename(db.path, tmp_path / "moved")
    with amberdb.open(db.path, **SMALL) as new:
        assert engine_of(new) is not engine_of(db)
        assert new.collections() == []
    os.rename(db.path, tmp_path / "new")
    os.rename(tmp_path / "moved", db.path)
    assert list(db["n"]) == ["old"]


def test_only_options_that_are_given_are_compared(open_db: OpenDatabase) -> None:
    db = open_db(sync="interval", busy_timeout_ms=500)
    with amberdb.open(db.path) as other:
        assert other.options.sync == "interval"
    with amberdb.open(db.path, busy_timeout_ms=500, create=False):
        pass
    with pytest.raises(OptionsDifferError, match="sync='interval', not 'always'") as caught:
        amberdb.open(db.path, sync="always")
    assert caught.value.option == "sync"
    with pytest.raises(OptionsDifferError):
        amberdb.open(db.path, busy_timeout_ms=501)
    db.collection("n").put({"id": "a"})


def test_databases_in_memory_are_never_shared() -> None:
    with amberdb.open(":memory:") as first, amberdb.open(":memory:") as second:
        first.collection("n").put({"id": "a"})
        assert second.collections() == []


def test_a_read_only_handle_sees_every_commit_and_writes_nothing(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n")
    notes.put({"id": "a"})
    with amberdb.open(db.path, read_only=True) as reading:
        notes.put({"id": "b"})
        assert list(reading["n"]) == ["a", "b"]
        with pytest.raises(ReadOnlyError):
            reading["n"].put({"id": "c"})
        with pytest.raises(ReadOnlyError):
            reading.compact()
    assert list(notes) == ["a", "b"]
    with amberdb.open(db.path, read_only=True) as reading:
        db.close()
        assert list(reading["n"]) == ["a", "b"]
        with amberdb.open(db.path, **SMALL) as again:
            again["n"].put({"id": "c"})
            assert list(reading["n"]) == ["a", "b", "c"]


def test_a_handle_is_not_closed_during_its_own_transaction(open_db: OpenDatabase) -> None:
    first, second = open_db(busy_timeout_ms=50), open_db()
    first.collection("n")
    with first.transaction() as tx:
        tx["n"].put({"id": "a"})
        with pytest.raises(TransactionError):
            first.close()
        second.close()  # the transaction is not of this handle
    assert list(first["n"]) == ["a"]
    second = open_db()

    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with first.transaction() as tx:
            tx["n"].put({"id": "b"})
            entered.set()
            assert leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(60)
    with pytest.raises(BusyError):
        first.close()
    leave.set()
    thread.join()
    assert list(first["n"]) == ["a", "b"]


def test_a_follower_ends_when_its_handle_is_closed(open_db: OpenDatabase) -> None:
    first, second = open_db(), open_db()
    second.collection("n").put({"id": "a"})
    seen: list[str] = []
    reached = threading.Event()

    def follow() -> None:
        for change in first.changes(follow=True):
            seen.append(change.id)
            reached.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert reached.wait(60)
    first.close()
    thread.join(60)
    assert not thread.is_alive()
    second["n"].put({"id": "b"})
    assert seen == ["a"]


@contextmanager
def forgetting() -> Generator[None]:
    """Expects the block to drop the last reference to an open handle."""
    with (  # noqa: PT031
        pytest.warns(ResourceWarning, match="was not closed"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("always", ResourceWarning)  # a finalizer cannot raise
        yield
        gc.collect()


def test_a_forgotten_handle_warns_and_lets_the_lock_go(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with forgetting():
        amberdb.open(path, **SMALL).collection("n").put({"id": "a"})
    # With other options: the database of the forgotten handle is closed.
    with amberdb.open(path, **SMALL, sync="os") as db:
        assert db.recovery is None
        assert list(db["n"]) == ["a"]


def test_a_notebook_cell_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    db = amberdb.open(path, **SMALL)
    for number in range(3):
        with forgetting():
            db = amberdb.open(path, **SMALL)
        db.collection("n").put({"id": str(number)})
    assert list(db["n"]) == ["0", "1", "2"]
    db.close()
    assert lock_is_free(str(path))


def test_what_belongs_to_a_handle_keeps_it_open(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    notes: list[Collection] = [amberdb.open(path, **SMALL).collection("n")]
    gc.collect()
    notes[0].put({"id": "a"})
    at: list[Snapshot] = [amberdb.open(path).snapshot()]
    gc.collect()
    assert list(at[0]["n"]) == ["a"]
    with forgetting():
        at.clear()
    assert list(notes[0]) == ["a"]
    with forgetting():
        notes.clear()
    with amberdb.open(path, **SMALL, sync="os") as db:
        assert_sound(db)


def test_threads_that_open_and_close_at_once_share_or_wait(tmp_path: Path) -> None:
    """Nobody gets LockedError, and nobody loses a count."""
    path, failed = tmp_path / "t.amber", list[BaseException]()
    barrier = threading.Barrier(4)

    def run() -> None:
        try:
            barrier.wait(60)
            for _ in range(25):
                with amberdb.open(path, **SMALL) as db, db.transaction() as tx:
                    counts = tx["n"]
                    counts.put({"id": "x", "n": counts.get("x", {"n": 0})["n"] + 1})
        except BaseException as error:
            failed.append(error)

    with amberdb.open(path, **SMALL) as db:
        db.collection("n")
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with amberdb.open(path, **SMALL) as db:
        assert db["n"]["x"]["n"] == 100
        assert_sound(db)


def test_open_waits_for_the_end_of_a_close(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("n").put({"id": "a"})
    reached, go = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == "close.checkpointed":
            reached.set()
            assert go.wait(60)

    failpoints.install(reach)
    closing = threading.Thread(target=db.close)
    closing.start()
    assert reached.wait(60)
    failpoints.install(None)
    opened: list[Database] = []
    opening = threading.Thread(target=lambda: opened.append(open_db(sync="os")))
    opening.start()
    opening.join(0.05)
    assert not opened
    go.set()
    opening.join(60)
    closing.join(60)
    assert list(opened[0]["n"]) == ["a"]


def test_use_by_another_call_of_this_process_is_named_as_such(open_db: OpenDatabase) -> None:
    db = open_db()
    with pytest.raises(LockedError, match="in use by this process") as caught:
        amberdb.repair(db.path)
    assert caught.value.pid == os.getpid()
