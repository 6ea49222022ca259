"""Expiry: invisible at once, removed later, and never by a clock that was wrong for a while."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from amberdb import (
    Collection,
    ConflictError,
    Database,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Unique,
)
from amberdb.engine.maintenance.expiry import ExpiryWorker
from support.databases import FakeClock, OpenDatabase
from support.inside import engine_of

START = 1_700_000_000.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def db(open_db: OpenDatabase, clock: FakeClock) -> Database:
    return open_db(clock=clock)


@pytest.fixture(params=["memtable", "store"])
def notes(db: Database, clock: FakeClock, request: pytest.FixtureRequest) -> Collection:
    """`gone` expires in ten seconds, `kept` never."""
    notes = db.collection(
        "n", indexes=[Ordered("x"), Unique("key", sparse=True)], expires_at="until"
    )
    notes.put({"id": "gone", "x": 1, "key": "k", "until": START + 10})
    notes.put({"id": "kept", "x": 1, "until": None})
    if request.param == "store":
        db.checkpoint()
    return notes


TIMES: dict[str, Any] = {
    "datetime": datetime.fromtimestamp(START + 10, UTC),
    "datetime of another zone": datetime.fromtimestamp(START + 10, timezone(timedelta(hours=-7))),
    "int": int(START) + 10,
    "float": START + 10.0,
}


@pytest.mark.parametrize("until", TIMES.values(), ids=TIMES.keys())
def test_expires_at_its_time_and_not_before(db: Database, clock: FakeClock, until: object) -> None:
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": until})
    clock.advance(9.999)
    assert "a" in notes
    clock.advance(0.001)
    assert "a" not in notes


@pytest.mark.parametrize("until", [{}, {"until": None}], ids=["missing", "None"])
def test_none_is_permanent(db: Database, clock: FakeClock, until: dict[str, Any]) -> None:
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", **until})
    clock.advance(1e9)
    assert "a" in notes
    assert db.expire() == 0


@pytest.mark.parametrize(
    "until", ["2026-01-01", True, [1], {"a": 1}, b"1", float("inf"), 1e13, -1e12], ids=repr
)
def test_what_is_no_time_is_refused(db: Database, until: Any) -> None:
    notes = db.collection("n", expires_at="until")
    with pytest.raises(InvalidDocumentError) as caught:
        notes.put({"id": "a", "until": until})
    assert caught.value.field == "until"


@pytest.mark.parametrize("until", [0, -5.5, datetime.min.replace(tzinfo=UTC), START])
def test_document_may_have_expired_before_it_is_put(db: Database, until: Any) -> None:
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": until})
    assert notes.get("a") is None
    assert db.expire() == 1


def test_field_means_nothing_where_it_was_not_declared(db: Database) -> None:
    notes = db.collection("n")
    notes.put({"id": "a", "until": 5})
    assert "a" in notes


READS: dict[str, tuple[Callable[[Collection], object], object]] = {
    "get": (lambda n: n.get("gone"), None),
    "in": (lambda n: "gone" in n, False),
    "len": (len, 1),
    "count": (lambda n: n.count(), 1),
    "count by index": (lambda n: n.count({"x": 1}), 1),
    "count by scan": (lambda n: n.count({"y": None}), 1),
    "find": (lambda n: len(n.find()), 1),
    "find by index": (lambda n: len(n.find({"x": 1})), 1),
    "find by unique": (lambda n: len(n.find({"key": "k"})), 0),
    "find by id": (lambda n: len(n.find({"id": "gone"})), 0),
    "find in order": (lambda n: len(n.find(order_by="-x")), 1),
    "iteration": (list, ["kept"]),
    "documents": (lambda n: len(list(n.documents())), 1),
}


@pytest.mark.parametrize(("read", "wanted"), READS.values(), ids=READS.keys())
def test_expired_is_invisible_at_once(
    notes: Collection, clock: FakeClock, read: Callable[[Collection], object], wanted: object
) -> None:
    assert read(notes) != wanted
    clock.advance(10)
    assert read(notes) == wanted


def test_expired_is_not_deleted_again(notes: Collection, clock: FakeClock) -> None:
    clock.advance(10)
    assert notes.delete("gone") is False
    assert notes.delete_many({"x": 1}) == 1


MISSES: list[Callable[[Collection], object]] = [
    lambda n: n.record("gone"),
    lambda n: n.update("gone", {"x": 2}),
    lambda n: n.update("gone", {"until": None}),
    lambda n: n.__delitem__("gone"),
]


@pytest.mark.parametrize("call", MISSES)
def test_expired_is_missing_for_what_needs_a_document(
    notes: Collection, clock: FakeClock, call: Callable[[Collection], object]
) -> None:
    clock.advance(10)
    with pytest.raises(MissingKeyError):
        call(notes)
    assert notes.get("gone") is None


def test_insert_and_put_meet_nothing(db: Database, notes: Collection, clock: FakeClock) -> None:
    before = notes.record("gone")
    clock.advance(10)
    notes.insert({"id": "gone", "x": 5, "key": "k"})
    after = notes.record("gone")
    assert after.created_at - before.created_at == timedelta(seconds=10)
    assert (len(notes), notes.count({"x": 1})) == (2, 1)
    assert db.expire() == 0


def test_update_may_put_off_the_end(notes: Collection, clock: FakeClock, db: Database) -> None:
    notes.update("gone", {"until": START + 20})
    clock.advance(15)
    assert "gone" in notes
    assert db.expire() == 0
    notes.update("gone", {"until": None})
    clock.advance(1000)
    assert "gone" in notes


def test_transaction_and_snapshot_have_one_now(
    db: Database, notes: Collection, clock: FakeClock
) -> None:
    with db.transaction() as tx, db.snapshot() as at:
        clock.advance(10)
        assert "gone" in tx["n"]
        assert "gone" in at["n"]
        assert len(at["n"]) == 2
        assert "gone" not in notes
        tx["n"].update("kept", {"x": 7})
    assert list(notes) == ["kept"]


def test_conflict_is_judged_over_live_documents(notes: Collection, clock: FakeClock) -> None:
    version = notes.record("gone").version
    with pytest.raises(ConflictError):
        notes.update("gone", {}, if_version=version - 1)
    clock.advance(10)
    with pytest.raises(MissingKeyError):
        notes.update("gone", {}, if_version=version)


# -- removal ---------------------------------------------------------------------------------


def test_expire_removes_in_batches_and_says_so(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock, reap_batch=10)
    notes = db.collection("n", indexes=[Ordered("x")], expires_at="until")
    notes.put_many({"id": f"{n:02d}", "x": n, "until": START + n} for n in range(40))
    since = db.stats()["last_lsn"]
    clock.advance(24)
    assert db.expire() == 25
    changes = list(db.changes(since))
    assert {change.op for change in changes} == {"expire"}
    assert [change.id for change in changes] == [f"{n:02d}" for n in range(25)]
    assert all(change.document is None for change in changes)
    assert len({change.lsn for change in changes}) == 3, "commits of ten"
    assert db.stats()["collections"]["n"]["documents"] == 15
    assert db.expire() == 0
    assert db.stats()["last_lsn"] == changes[-1].lsn


def test_expire_goes_through_all_collections(db: Database, clock: FakeClock) -> None:
    for name in "abc":
        db.collection(name, expires_at="e").put({"e": START + 1})
    db.collection("d").put({"e": 1})
    clock.advance(5)
    assert db.expire() == 3


@pytest.mark.parametrize("grace_ms", [0, 1])
def test_removed_in_the_background_after_the_grace(
    open_db: OpenDatabase, clock: FakeClock, grace_ms: int
) -> None:
    db = open_db(clock=clock, background=True, reap_grace_ms=grace_ms, reap_interval_ms=0)
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": START + 0.001})
    notes.put({"id": "b", "until": START + 1e6})
    since = db.stats()["last_lsn"]
    clock.advance(10)
    change = next(iter(db.changes(since, follow=True, timeout_s=30)))
    assert (change.op, change.id) == ("expire", "a")
    assert db.stats()["collections"]["n"]["documents"] == 1


def test_what_expired_before_the_open_is_removed_in_the_background(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock)
    db.collection("n", expires_at="until").put({"id": "a", "until": START + 1})
    since = db.stats()["last_lsn"]
    db.close()
    clock.advance(10)
    db = open_db(clock=clock, background=True, reap_grace_ms=0, reap_interval_ms=0)
    change = next(iter(db.changes(since, follow=True, timeout_s=30)))
    assert (change.op, change.id) == ("expire", "a")


def test_nothing_is_removed_within_the_grace(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock, reap_grace_ms=3_600_000)
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": START + 1})
    clock.advance(10)
    reaper = engine_of(db).expiry
    left_s = reaper.step(lambda: False)
    assert left_s is not None
    assert 3590 < left_s < 3600.1
    assert db.stats()["collections"]["n"]["documents"] == 1


def test_clock_that_jumps_and_comes_back_within_the_grace_destroys_nothing(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock, reap_grace_ms=0)
    reaper = engine_of(db).expiry
    notes = db.collection("n", expires_at="until")
    notes.put_many([{"id": "a", "until": START + 1}, {"id": "b", "until": START + 1000}])
    clock.advance(1e6)
    reaper._grace_s = 3600  # pyright: ignore[reportPrivateUsage]
    assert reaper.step(lambda: False), "both are marked"
    assert notes.count() == 0
    clock.advance(-1e6 + 5)
    reaper._grace_s = 0  # pyright: ignore[reportPrivateUsage]  # the grace is over
    reaper.step(lambda: False)
    assert db.stats()["collections"]["n"]["documents"] == 1
    assert list(notes) == ["b"]


def test_what_expires_within_the_grace_of_another_has_its_own_grace(
    open_db: OpenDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = FakeClock(50.0)
    monkeypatch.setattr("amberdb.engine.maintenance.expiry.time.monotonic", monotonic)
    db = open_db(clock=clock, reap_grace_ms=60_000)
    reaper = engine_of(db).expiry  # pyright: ignore[reportPrivateUsage]
    notes = db.collection("n", expires_at="until")
    notes.put_many([{"id": "a", "until": START + 1}, {"id": "b", "until": START + 30}])
    clock.advance(10)
    assert reaper.step(lambda: False) == 60.0
    clock.advance(59)
    monotonic.advance(59)
    assert reaper.step(lambda: False) == 1.0
    clock.advance(1)
    monotonic.advance(1)
    assert reaper.step(lambda: False) == 0.0, "b has expired, and is to be marked"
    assert db.stats()["collections"]["n"]["documents"] == 1
    assert reaper.step(lambda: False) == 60.0
    monotonic.advance(60)
    assert reaper.step(lambda: False) is None
    assert db.stats()["collections"]["n"]["documents"] == 0


@pytest.mark.parametrize("way", ["rollback", "nothing written", "refused write", "read"])
def test_wrong_clock_without_a_commit_leaves_no_trace(
    db: Database, notes: Collection, clock: FakeClock, way: str
) -> None:
    clock.advance(1e6)
    if way == "rollback":
        tx = db.transaction()
        with pytest.raises(ZeroDivisionError), tx:
            raise ZeroDivisionError
    elif way == "nothing written":
        with db.transaction() as tx:
            assert "gone" not in tx["n"]
    elif way == "refused write":
        with pytest.raises(MissingKeyError):
            notes.update("gone", {})
    assert "gone" not in notes
    clock.advance(-1e6)
    assert "gone" in notes


def test_document_put_just_when_the_background_is_done_is_removed_too(
    open_db: OpenDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = open_db(clock=clock, background=True, reap_grace_ms=0, reap_interval_ms=0)
    notes = db.collection("n", expires_at="until")
    step = ExpiryWorker.step
    put = threading.Event()

    def put_then(self: ExpiryWorker, stop: Callable[[], bool]) -> float | None:
        left_s = step(self, stop)
        if left_s is None and not put.is_set():
            notes.put({"id": "late", "until": START + 20})
            clock.advance(20)
            put.set()
        return left_s

    monkeypatch.setattr(ExpiryWorker, "step", put_then)
    since = db.stats()["last_lsn"]
    clock.advance(10)
    notes.put({"id": "first", "until": START + 10})
    assert put.wait(10)
    for change in db.changes(since, follow=True, timeout_s=2):
        if (change.op, change.id) == ("expire", "late"):
            return
    raise AssertionError("it was forgotten")


# -- a clock that goes back ------------------------------------------------------------------


@pytest.mark.parametrize("reopen", ["", "clean", "checkpointed"])
def test_times_never_go_back(open_db: OpenDatabase, clock: FakeClock, reopen: str) -> None:
    db = open_db(clock=clock)
    notes = db.collection("n", expires_at="until")
    notes.put({"id": "a", "until": START + 10})
    clock.advance(100)
    notes.put({"id": "b"})
    first = notes.record("b")
    clock.advance(-1000)
    if reopen:
        if reopen == "checkpointed":
            db.checkpoint()
        db.close()
        db = open_db(clock=clock)
        notes = db.collection("n")
    notes.put({"id": "c"})
    notes.update("b", {"x": 1})
    assert notes.record("c").created_at >= first.updated_at
    assert notes.record("b").updated_at >= first.updated_at
    assert "a" not in notes, "what was seen to have expired stays so"
    times = [change.time for change in db.changes()]
    assert times == sorted(times)


def test_reaper_with_a_stop_does_no_more(db: Database, notes: Collection, clock: FakeClock) -> None:
    clock.advance(10)
    reaper = engine_of(db).expiry
    assert reaper.expire(2**62, lambda: True) == 0
    stopped = threading.Event()
    assert reaper.expire(2**62, stopped.is_set) == 1
