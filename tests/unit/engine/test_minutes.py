"""stats().minutes: what was done in each minute, seen by every process, kept in a fixed ring."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import amberdb
from amberdb import Database, Minute
from amberdb.engine.storage import status as statuses
from amberdb.engine.storage.status import MINUTES, RING_SIZE, MinuteRing, Sample

MINUTE_S = 60.0
START_S = 1_790_000_040.0  # the beginning of a minute


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_here(tmp_path: Path, clock: Clock) -> Callable[..., Database]:
    def open_it(*, read_only: bool = False) -> Database:
        path = tmp_path / "m.amber"
        return amberdb.open(path, read_only=read_only, clock=clock, background=False)

    return open_it


def counts(db: Database) -> list[tuple[float, int]]:
    """By minute since the start the commits, but the one of a declaration."""
    return [((m.time.timestamp() - START_S) / MINUTE_S, m.commits) for m in db.stats().minutes]


def put(db: Database, times: int) -> None:
    for _ in range(times):
        db.collection("n").put({"a": 1})


def test_each_minute_has_its_commits(open_here: Callable[..., Database], clock: Clock) -> None:
    with open_here() as db:
        db.collection("n")
        for minute in (0, 1, 2, 5):
            clock.now_s = START_S + minute * MINUTE_S + 30
            put(db, minute + 2)
        assert counts(db) == [(0, 3), (1, 3), (2, 4), (5, 7)]  # the first with the declaration
        last = db.stats().minutes[-1]
        assert isinstance(last, Minute)
        assert last.syncs == 7
        assert 0 < last.sync_mean_ms <= last.sync_max_ms
        assert last.checkpoints == 0
        assert last.log_bytes > 0
        db.checkpoint()
        last = db.stats().minutes[-1]
        assert last.checkpoints == 1
        assert last.checkpoint_max_ms > 0
        assert last.data_bytes == db.stats().store["file_bytes"]
        (*_, shown) = json.loads(json.dumps(db.stats().to_map()["minutes"]))
        assert datetime.fromisoformat(shown["time"]) == last.time
        assert db.check().ok


def test_only_the_last_hour_is_kept(open_here: Callable[..., Database], clock: Clock) -> None:
    with open_here() as db:
        for minute in range(130):
            clock.now_s = START_S + minute * MINUTE_S
            put(db, 1)
        assert [minute for minute, _ in counts(db)] == list(range(70, 130))
        clock.now_s += 57 * MINUTE_S
        assert [minute for minute, _ in counts(db)] == [127, 128, 129]
        clock.now_s += 10 * MINUTE_S
        assert counts(db) == []
        assert db.check().ok


def test_other_processes_see_the_minutes(open_here: Callable[..., Database], clock: Clock) -> None:
    with open_here() as db:
        put(db, 3)
        with open_here(read_only=True) as reader:
            clock.now_s += MINUTE_S
            put(db, 1)
            assert counts(reader) == [(0, 4)]  # the second is not over
            db.checkpoint()
            assert counts(reader) == [(0, 4), (1, 1)] == counts(db)
    with open_here(read_only=True) as reader:
        assert counts(reader) == [(0, 4), (1, 1)]


def test_the_next_process_continues(open_here: Callable[..., Database]) -> None:
    syncs = 0
    for _ in range(3):
        with open_here() as db:
            put(db, 2)
            syncs = db.stats().minutes[-1].syncs
    with open_here() as db:
        assert counts(db) == [(0, 7)]
        assert db.stats().minutes[-1].syncs >= syncs
        assert db.check().ok


def test_minutes_of_another_boot_are_ignored(
    open_here: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_here() as db:
        put(db, 2)
    monkeypatch.setattr(statuses, "boot_id", lambda: bytes(16))
    with open_here(read_only=True) as reader:
        assert reader.stats().minutes == ()
    with open_here() as db:
        assert counts(db) == [(0, 0)]  # the last commit is of this minute


def test_a_minute_that_is_being_stored_is_no_sample() -> None:
    shared = memoryview(bytearray(os.urandom(RING_SIZE)))
    ring = MinuteRing(shared)
    assert ring.last_hour(59 * 60_000_000) == ()
    ring.store(Sample(7, commits=2**40, syncs=2, sync_us_total=10.0, checkpoint_us_max=1e12))
    whole = bytes(shared)
    found = ring.sample(7)
    assert found is not None
    assert (found.commits, found.sync_us_mean, found.checkpoint_us_max) == (2**40, 5, 2**32 - 1)
    assert ring.sample(7 + MINUTES) is None
    size = RING_SIZE // MINUTES
    for place in range(7 * size, 8 * size):
        shared[place] ^= 1
        assert ring.sample(7) is None, place
        shared[:] = whole
    assert ring.sample(7) == found
