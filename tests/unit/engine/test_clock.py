"""A clock that was wrong once, or is wrong now: both look alike, and neither destroys anything."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    ClockWarning,
    Collection,
    Database,
    DuplicateKeyError,
    Ordered,
    ReadOnlyError,
    Recency,
    Text,
    Unique,
)
from amberdb.engine.commit.clock import LOOK_AGAIN_S
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound
from support.inside import engine_of
from unit.engine.helpers import abandon

START = 1_800_000_000.0
DAY_S = 86_400.0
AHEAD_S = 400 * DAY_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


def notes_of(db: Database) -> Collection:
    return db.collection(
        "note",
        indexes=[Ordered("n"), Unique("key", sparse=True), Text("text")],
        expires_at="until",
    )


def wrong_once(db: Database, clock: FakeClock) -> None:
    """One commit, of something else, by a clock that is ahead; then the clock is right again."""
    clock.advance(AHEAD_S)
    db.collection("other").put({"x": 1})
    clock.advance(-AHEAD_S)


def reopened(open_db: OpenDatabase, db: Database, clock: FakeClock, how: str) -> Database:
    if how == "open":
        return db
    if how == "checkpointed":
        db.checkpoint()
    db.close()
    with pytest.warns(ClockWarning):
        return open_db(clock=clock)


# -- a commit by a clock that was ahead ------------------------------------------------------


@pytest.mark.parametrize("how", ["open", "closed", "checkpointed"])
def test_what_is_not_due_is_seen_after_the_clock_is_right_again(
    open_db: OpenDatabase, clock: FakeClock, how: str
) -> None:
    db = open_db(clock=clock)
    notes_of(db).put({"id": "before", "until": at(30 * DAY_S), "n": 1, "text": "umbrella"})
    wrong_once(db, clock)
    if how == "open":
        with pytest.warns(ClockWarning, match=r"2027-01-15T08:00:00.*2028-02-19T08:00:00.*set the"):
            assert "before" in notes_of(db)
    db = reopened(open_db, db, clock, how)
    notes = notes_of(db)
    notes.put({"id": "after", "until": at(30 * DAY_S), "n": 2, "text": "umbrella", "key": "k"})
    assert notes.get("after") is not None
    assert "before" in notes
    assert (len(notes), list(notes), notes.count({"n": {"$gt": 0}})) == (
        2, ["after", "before"], 2,
    )  # fmt: skip
    assert {hit.id for hit in notes.search("umbrella")} == {"after", "before"}
    with pytest.raises(DuplicateKeyError):
        notes.insert({"id": "other", "key": "k"})
    record = notes.record("after")
    assert record.created_at == record.updated_at == at(0)
    notes.update("before", {"n": 3})
    assert notes.record("before").updated_at == at(0)
    assert db.expire() == 0
    assert len(notes) == 2


def test_the_times_of_commits_never_go_back(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    notes_of(db).put({"id": "a"})
    wrong_once(db, clock)
    with pytest.warns(ClockWarning):
        notes_of(db).put({"id": "b"})
    db.accept_clock()
    notes_of(db).put({"id": "c"})
    clock.advance(AHEAD_S + 1)
    notes_of(db).put({"id": "d"})
    changes = list(db.changes())
    assert [change.id for change in changes if change.collection == "note"] == list("abcd")
    times = [change.time for change in changes]
    assert times == sorted(times)
    assert times[-1] == at(AHEAD_S + 1)


def test_within_the_slack_what_has_expired_stays_so(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock, clock_slack_ms=5000)
    notes = notes_of(db)
    notes.put({"id": "a", "until": at(3)})
    clock.advance(5)
    notes.put({"id": "b"})
    clock.advance(-5)
    assert "a" not in notes
    assert db.stats().clock_behind_ms == 5000
    assert db.expire() == 1
    clock.advance(-1)
    with pytest.warns(ClockWarning):
        assert db.expire() == 0


@pytest.mark.parametrize("slack_ms", [0, 1, 10**12])
def test_the_slack_is_an_option(open_db: OpenDatabase, clock: FakeClock, slack_ms: int) -> None:
    db = open_db(clock=clock, clock_slack_ms=slack_ms)
    notes = notes_of(db)
    notes.put({"id": "a", "until": at(30 * DAY_S)})
    wrong_once(db, clock)
    if slack_ms > AHEAD_S * 1000:
        assert "a" not in notes
    else:
        with pytest.warns(ClockWarning):
            assert "a" in notes
    with pytest.raises(ValueError, match="clock_slack_ms"):
        open_db("other.amber", clock_slack_ms=-1)


def test_scores_decay_by_the_time_of_reads(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    notes = notes_of(db)
    notes.put({"id": "a", "text": "umbrella", "at": at(-DAY_S)})
    recency = Recency(field="at", half_life=timedelta(days=1))
    before = notes.search("umbrella", recency=recency)[0].score
    wrong_once(db, clock)
    with pytest.warns(ClockWarning):
        after = notes.search("umbrella", recency=recency)[0].score
    assert after == before


# -- a clock that is wrong now ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "checkpointed"])
def test_a_board_that_starts_in_1970_destroys_nothing(
    open_db: OpenDatabase, clock: FakeClock, how: str
) -> None:
    db = open_db(clock=clock)
    notes_of(db).put_many(
        [
            {"id": "expired", "until": at(10), "key": "k"},
            {"id": "due in an hour", "until": at(3600)},
            {"id": "kept"},
        ]
    )
    clock.advance(20)
    notes_of(db).put({"id": "last"})
    clock.now = 5.0
    db = reopened(open_db, db, clock, how)
    notes = notes_of(db)
    assert "expired" in notes, "it shows again, since this clock may be the right one"
    assert db.expire() == 0
    notes.put({"id": "of 1970", "until": 10})
    assert notes.record("of 1970").created_at == datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)
    clock.now = START + 30
    assert sorted(notes) == ["due in an hour", "kept", "last"]
    notes.insert({"id": "new", "key": "k"})
    assert notes.record("new").created_at == at(30)
    assert db.expire() == 1, "the other one left when its value was taken"
    assert db.stats().clock_behind_ms == 0
    times = [change.time for change in db.changes()]
    assert times == sorted(times)


def test_a_database_that_began_in_1970_follows_its_clock(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    clock.now = 0.0
    db = open_db(clock=clock)
    notes_of(db).put({"id": "a", "until": 10})
    clock.now = START
    db.close()
    db = open_db(clock=clock)
    notes = notes_of(db)
    notes.put({"id": "b", "until": at(10)})
    assert list(notes) == ["b"]
    assert notes.record("b").created_at == at(0)
    assert db.expire() == 1


def test_the_removal_in_the_background_looks_again(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock, reap_grace_ms=0)
    notes_of(db).put({"id": "a", "until": at(1)})
    clock.advance(2)
    notes_of(db).put({"id": "b"})
    reaper = engine_of(db).expiry
    clock.advance(-DAY_S)
    with pytest.warns(ClockWarning):
        assert reaper.step(lambda: False) is None
    assert reaper.due_in_s(reaper.next_expiry_us()) == LOOK_AGAIN_S
    clock.advance(DAY_S)
    assert reaper.due_in_s(reaper.next_expiry_us()) == 0
    clock_before, reaper._grace_s = clock.now, 3600  # pyright: ignore[reportPrivateUsage]
    assert reaper.step(lambda: False), "marked"
    reaper._grace_s = 0  # pyright: ignore[reportPrivateUsage]  # the grace is over
    clock.advance(-DAY_S)
    reaper.step(lambda: False)
    clock.now = clock_before
    assert db.stats()["collections"]["note"]["documents"] == 2
    reaper.step(lambda: False)
    assert db.stats()["collections"]["note"]["documents"] == 1


# -- accepting it ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["open", "closed", "checkpointed", "killed"])
def test_an_accepted_clock_counts_for_good(
    open_db: OpenDatabase, clock: FakeClock, tmp_path: Path, how: str
) -> None:
    db = open_db(clock=clock)
    wrong_once(db, clock)
    with pytest.warns(ClockWarning):
        notes_of(db).put_many([{"id": "a", "until": at(5)}, {"id": "b", "until": at(DAY_S)}])
    clock.advance(10)
    assert db.expire() == 0
    db.accept_clock()
    assert db.stats().clock_behind_ms == 0
    if how == "killed":
        abandon(db, tmp_path / "copy.amber")
        db = open_db("copy.amber", clock=clock)
    elif how != "open":
        if how == "checkpointed":
            db.checkpoint()
        db.close()
        db = open_db(clock=clock)
    notes = notes_of(db)
    assert list(notes) == ["b"]
    assert db.expire() == 1
    clock.advance(DAY_S)
    notes.put({"id": "c"})
    clock.advance(-3600)
    assert "b" not in notes, "within the slack the last commit counts, as ever"
    clock.advance(-1)
    with pytest.warns(ClockWarning):
        assert "b" in notes
    clock.advance(AHEAD_S + DAY_S)
    notes.put({"id": "d"})
    assert notes.record("d").created_at == next(iter(reversed(list(db.changes())))).time
    clock.advance(-2 * DAY_S)
    with pytest.warns(ClockWarning):
        notes.put({"id": "e"})


def test_a_clock_that_nobody_doubts_may_be_accepted_too(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock)
    notes = notes_of(db)
    notes.put({"id": "a", "until": at(2)})
    clock.advance(5)
    notes.put({"id": "b"})
    db.accept_clock()
    clock.advance(-5)
    assert "a" not in notes
    db.accept_clock()
    assert "a" in notes, "the clock was set back by five seconds, and that was right"
    db.close()
    db = open_db(clock=clock)
    assert "a" in notes_of(db)


def test_an_accepted_clock_is_in_backups(
    open_db: OpenDatabase, clock: FakeClock, tmp_path: Path
) -> None:
    db = open_db(clock=clock)
    wrong_once(db, clock)
    with pytest.warns(ClockWarning):
        notes_of(db).put({"id": "a", "until": at(5)})
    db.backup(tmp_path / "full.amberbak")
    db.accept_clock()
    db.backup(tmp_path / "more.amberbak", base=tmp_path / "full.amberbak")
    clock.advance(10)
    chain = [tmp_path / "full.amberbak", tmp_path / "more.amberbak"]
    amberdb.restore(chain, tmp_path / "restored.amber", clock=clock)
    restored = open_db("restored.amber", clock=clock)
    assert restored.expire() == 1
    amberdb.restore(chain[:1], tmp_path / "before.amber", clock=clock)
    with pytest.warns(ClockWarning):
        before = open_db("before.amber", clock=clock)
    assert before.expire() == 0


# -- other processes, other threads ----------------------------------------------------------


def test_a_reader_judges_as_the_writer_does(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    notes_of(db).put({"id": "a", "until": at(DAY_S), "text": "umbrella"})
    wrong_once(db, clock)
    with pytest.warns(ClockWarning):
        reader = amberdb.open(db.path, read_only=True, clock=clock, **SMALL)
    try:
        assert list(reader["note"]) == ["a"]
        assert len(reader["note"].search("umbrella")) == 1
        assert reader.stats().clock_behind_ms == AHEAD_S * 1000
        with pytest.raises(ReadOnlyError, match="accept_clock"):
            reader.accept_clock()
        with pytest.warns(ClockWarning):
            db.accept_clock()
        assert list(reader["note"]) == ["a"]
        assert reader.stats().clock_behind_ms == 0
        assert_sound(reader)
    finally:
        reader.close()


@pytest.mark.filterwarnings("error::amberdb.ClockWarning")
def test_a_warning_that_is_an_error_fails_no_call(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    notes = notes_of(db)
    wrong_once(db, clock)
    notes.put({"id": "b"})
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(notes.put({"id": "a"})))
    thread.start()
    thread.join()
    assert done == ["a"]
    assert "a" in notes
