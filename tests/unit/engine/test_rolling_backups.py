"""Rolling backups: when one is due, its base, and which are kept."""

import logging
import os
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import amberdb
from amberdb import BackupError, ClockWarning, Database, RollingBackups
from amberdb import _failpoints as failpoints
from amberdb._fs import staging_name
from amberdb.engine.backup import schedule as rolling_backups
from amberdb.engine.backup.archive import Header
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.folder import ArchiveFile, chains_of, to_prune
from amberdb.engine.backup.history import BackupHistory
from support.databases import FakeClock, OpenDatabase, assert_sound, audited
from support.faulty_fs import FaultyFileSystem

WAIT_S = 60
HOUR_S = 3600
DAY_S = 86_400
START = datetime(2026, 2, 23, tzinfo=UTC).timestamp()


def put(db: Database, count: int = 1) -> None:
    notes = db.collection("n")
    for _ in range(count):
        notes.put({"text": "x" * 200})


def names(db: Database) -> list[str]:
    return sorted(os.listdir(f"{db.path}.backups"))


def kinds(db: Database) -> list[str]:
    return [name.rpartition("-")[2].partition(".")[0] for name in names(db)]


def rolling(db: Database) -> dict[str, Any]:
    found: dict[str, Any] = db.stats()["backups"]
    return found


def restored(tmp_path: Path, name: str, chain: list[Path]) -> int:
    amberdb.restore(chain, tmp_path / name)
    with audited(tmp_path / name) as db:
        assert_sound(db)
        return len(db.collection("n"))


@pytest.fixture
def done() -> Generator[threading.Semaphore]:
    """Released after each backup in the background, taken or failed."""
    found = threading.Semaphore(0)
    failpoints.install(lambda name: found.release() if name == "rolling.done" else None)
    yield found
    failpoints.install(None)


# -- taking them -----------------------------------------------------------------------------


def test_the_commit_that_reaches_the_number_makes_it_due(
    open_db: OpenDatabase, done: threading.Semaphore
) -> None:
    """No checkpoint and no time comes to its help."""
    schedule = RollingBackups(every_minutes=None, every_commits=10)
    db = open_db(background=True, backups=schedule, checkpoint_interval_ms=3_600_000)
    put(db)
    assert done.acquire(timeout=WAIT_S), "the first commit makes the first one due"
    for taken in (2, 3):
        put(db, 9)
        assert not done.acquire(timeout=0)
        put(db, 2)
        assert done.acquire(timeout=WAIT_S)
        assert rolling(db)["taken"] == taken
    assert db.stats().failures == []


def test_one_that_fails_for_any_reason_is_listed_and_paused(
    open_db: OpenDatabase, done: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: rolling_backups.BackupSchedule, progress: Any = None) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(rolling_backups.BackupSchedule, "take", fails)
    db = open_db(background=True, backups=RollingBackups(every_commits=1))
    put(db)
    assert done.acquire(timeout=WAIT_S)
    put(db, 5)
    assert rolling(db)["failed"] == 1
    assert rolling(db)["due_in_s"] > rolling_backups.RETRY_S / 2
    (failure,) = db.stats().failures
    assert "a rolling backup" in failure.job
    assert "a defect" in failure.error


def test_one_that_a_process_died_behind_is_no_obstacle_in_the_same_second(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_commit(self: BackupHistory, report: BackupReport, *, hold_log: bool) -> None: ...

    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups())
    put(db, 50)
    taken = [db.backup()]
    put(db)
    with monkeypatch.context() as died:  # before its commit, which would have been another Lsn
        died.setattr("amberdb.engine.backup.history.BackupHistory.record", no_commit)
        for _ in range(3):
            clock.advance(0.1)
            taken.append(db.backup())
    assert len({report.path for report in taken}) == len(names(db)) == 4
    assert len({report.lsn for report in taken[1:]}) == 1
    assert len(amberdb.verify_backup([report.path for report in taken])) == 4


def test_each_goes_on_from_the_one_before(open_db: OpenDatabase, tmp_path: Path) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups(keep_hourly=100))
    put(db, 20)
    for _ in range(3):
        db.backup()
        put(db)
        clock.advance(60)
    assert kinds(db) == ["full", "more", "more"]
    chain = [Path(f"{db.path}.backups", name) for name in names(db)]
    assert restored(tmp_path, "again.amber", chain) == 22
    assert rolling(db)["taken"] == 3


def test_a_chain_ends_after_a_day_and_when_it_is_larger_than_its_base(
    open_db: OpenDatabase,
) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups(keep_hourly=100))
    put(db, 20)
    db.backup()
    put(db, 60)
    clock.advance(HOUR_S)
    db.backup()
    clock.advance(HOUR_S)
    put(db)
    db.backup()
    assert kinds(db) == ["full", "more", "full"]
    clock.advance(DAY_S)
    put(db)
    db.backup()
    assert kinds(db) == ["full", "more", "full", "full"]


def test_a_chain_of_many_small_archives_ends(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore reads them all."""
    assert rolling_backups.CHAIN_MAX == 100
    monkeypatch.setattr(rolling_backups, "CHAIN_MAX", 4)
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups())
    put(db, 100)
    full: list[bool] = []
    for _ in range(9):
        put(db)
        full.append(db.backup().is_full)
        clock.advance(1)
    assert full == [True, False, False, False] * 2 + [True]


def test_what_ends_the_log_begins_a_chain(open_db: OpenDatabase) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups(keep_hourly=100))
    put(db, 20)
    db.backup()
    db.compact()
    clock.advance(HOUR_S)
    db.backup()
    assert kinds(db) == ["full", "full"]


def test_what_a_crash_left_of_a_backup_goes_with_the_next(open_db: OpenDatabase) -> None:
    db = open_db(backups=RollingBackups())
    put(db)
    left = Path(staging_name(db.backup().path))
    left.write_bytes(b"half")
    other = Path(staging_name(str(left.with_name("20260223T000000Z-00000000-0-full.amberbak"))))
    other.write_bytes(b"of another database")
    put(db)
    db.backup()
    assert (left.exists(), other.exists()) == (False, True)


def test_without_a_schedule_a_path_is_wanted(db: Database) -> None:
    with pytest.raises(BackupError, match="name the file"):
        db.backup()
    assert db.stats()["backups"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"every_minutes": 0},
        {"every_minutes": None},
        {"every_commits": -1},
        {"keep_hourly": -1},
        {"keep_daily": 1.5},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        RollingBackups(**wrong)


def test_another_object_is_refused(open_db: OpenDatabase) -> None:
    with pytest.raises(ValueError, match="RollingBackups"):
        open_db(backups=True)


def test_in_memory_there_are_none() -> None:
    with amberdb.open(":memory:", backups=RollingBackups()) as db:
        assert db.stats()["backups"] is None


# -- by themselves ---------------------------------------------------------------------------


def test_the_first_is_taken_at_the_first_commit_and_none_of_an_idle_database(
    open_db: OpenDatabase, done: threading.Semaphore
) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, background=True, backups=RollingBackups())
    assert rolling(db)["due_in_s"] is None
    put(db)
    assert done.acquire(timeout=WAIT_S)
    assert kinds(db) == ["full"]
    db.close()
    db = open_db(clock=clock, background=False, backups=RollingBackups())
    clock.advance(10 * DAY_S)
    assert rolling(db)["due_in_s"] in (None, 0.0), "a commit may follow the first backup"
    db.backup()
    assert rolling(db)["due_in_s"] is None
    clock.advance(10 * DAY_S)
    assert rolling(db)["due_in_s"] is None


def test_it_is_due_after_so_many_minutes_also_across_closing(open_db: OpenDatabase) -> None:
    clock = FakeClock(START)
    options: dict[str, Any] = {"clock": clock, "backups": RollingBackups(every_minutes=30)}
    db = open_db(**options)
    put(db)
    assert rolling(db)["due_in_s"] == 0
    db.backup()
    put(db)
    assert rolling(db)["due_in_s"] == 1800
    clock.advance(600)
    db.close()
    db = open_db(**options)
    assert rolling(db)["due_in_s"] == 1200
    clock.advance(5000)
    assert rolling(db)["due_in_s"] == 0
    clock.advance(-DAY_S)
    with pytest.warns(ClockWarning):
        due_in_s = rolling(db)["due_in_s"]
    assert due_in_s == 1800, "a clock that was set back puts it off by one period"


def test_it_is_due_after_so_many_commits(open_db: OpenDatabase) -> None:
    schedule = RollingBackups(every_minutes=None, every_commits=5)
    db = open_db(backups=schedule)
    put(db)
    db.backup()
    put(db, 4)
    assert rolling(db)["due_in_s"] is None
    put(db)
    assert rolling(db)["due_in_s"] == 0


def test_the_background_takes_what_is_due(open_db: OpenDatabase, done: threading.Semaphore) -> None:
    options: dict[str, Any] = {
        "background": True,
        "checkpoint_interval_ms": 1,
        "backups": RollingBackups(every_minutes=None, every_commits=10),
    }
    db = open_db(**options)
    put(db, 20)
    assert done.acquire(timeout=WAIT_S)
    while rolling(db)["taken"] < 3:
        put(db, 11)
        assert done.acquire(timeout=WAIT_S)
    db.close()
    assert not [name for name in names(db) if name.endswith(".tmp")]


def test_a_close_does_not_wait_for_a_slow_one(open_db: OpenDatabase) -> None:
    begun = threading.Event()

    def hook(kind: str, path: str) -> None:
        if path.endswith(".amberbak.tmp"):
            begun.set()

    db = open_db(
        background=True,
        fs=FaultyFileSystem(hook=hook),
        backups=RollingBackups(rate_bytes_s=0.01),
    )
    put(db)
    assert begun.wait(WAIT_S)
    closer = threading.Thread(target=db.close, daemon=True)
    closer.start()
    closer.join(WAIT_S)
    assert not closer.is_alive()
    assert names(db) == []


def test_what_fails_is_told_and_tried_again(
    open_db: OpenDatabase, done: threading.Semaphore, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("amberdb.engine.backup.schedule.RETRY_S", 0.0)
    folder = tmp_path / "elsewhere" / "deep"
    db = open_db(background=True, backups=RollingBackups(directory=folder))
    with caplog.at_level(logging.WARNING, "amberdb.engine"):
        put(db)
        assert done.acquire(timeout=WAIT_S)
    assert "tried again" in caplog.text
    found = rolling(db)
    assert found["failed"] >= 1
    assert str(folder) in found["last_error"]
    folder.parent.mkdir()
    while not rolling(db)["taken"]:
        assert done.acquire(timeout=WAIT_S)
    assert rolling(db)["last_error"] is None
    assert len(db.collection("n")) == 1


# -- keeping them ----------------------------------------------------------------------------


def test_old_ones_are_pruned_and_every_kept_one_can_be_restored(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups(keep_hourly=3, keep_daily=2))
    put(db, 30)
    counts: dict[str, int] = {}
    for _ in range(60):
        put(db)
        taken = db.backup()
        counts[taken.path] = len(db.collection("n"))
        clock.advance(HOUR_S / 1.3)
    folder = Path(f"{db.path}.backups")
    assert len(list(folder.iterdir())) < 30
    found = _chains(folder)
    assert found[-1][-1] == Path(max(counts, key=counts.__getitem__))
    assert sum(map(len, found)) == len(list(folder.iterdir())), "none is without its base"
    for number, chain in enumerate(found):
        assert restored(tmp_path, f"{number}.amber", chain) == counts[str(chain[-1])]
    receipt = db.erase("n", {"text": "nothing"}, reason="x")
    assert {Path(each.path) for each in receipt.backups} == set(folder.iterdir())


def _chains(folder: Path) -> list[list[Path]]:
    reports = {path: amberdb.verify_backup(path)[0] for path in sorted(folder.iterdir())}
    chains: list[list[Path]] = []
    for path, report in sorted(reports.items(), key=lambda item: item[1].created):
        if report.is_full:
            chains.append([path])
        else:
            (chain,) = [c for c in chains if reports[c[-1]].lsn == report.after_lsn]
            chain.append(path)
    return chains


def test_a_clock_that_is_set_back_prunes_no_new_one(open_db: OpenDatabase) -> None:
    clock = FakeClock(START)
    db = open_db(clock=clock, backups=RollingBackups(keep_hourly=1, keep_daily=1))
    put(db)
    db.backup()
    clock.advance(-40 * DAY_S)
    with pytest.warns(ClockWarning):
        put(db)
    before = names(db)
    for _ in range(2):
        put(db)
        db.compact()
        db.backup()
    assert set(before) < set(names(db)), "nothing is pruned while the clock is in doubt"
    db.accept_clock()
    for _ in range(2):
        put(db)
        db.compact()
        taken = db.backup()
        assert os.path.basename(taken.path) in names(db)
    assert len(names(db)) == 2, "the newest, and the newest of the last day by its own time"


def test_backups_of_a_wrong_clock_take_no_place_of_others() -> None:
    hours = [archive(number, None, number * 3600) for number in range(1, 30)]
    ahead = [archive(30 + number, None, (9000 + number) * 3600) for number in range(5)]
    after = [archive(40 + number, None, (36 + number) * 3600) for number in range(3)]
    gone = to_prune(chains_of([*hours, *ahead, *after]), "42", 5, 0)
    kept = {each.path for each in (*hours, *ahead, *after)} - set(gone)
    assert {"42", "41", "40", "29", "28"} <= kept, "the newest five hours as they were"
    behind = [archive(30 + number, None, number * 3600) for number in range(5)]
    gone = to_prune(chains_of([*hours, *behind, *after]), "42", 5, 0)
    assert not {"42", "41", "40", "29", "28"} & set(gone)


def test_backups_of_another_database_are_left_alone(open_db: OpenDatabase, tmp_path: Path) -> None:
    clock = FakeClock(START)
    schedule = RollingBackups(directory=tmp_path / "shared", keep_hourly=1, keep_daily=0)
    other = open_db("other.amber", clock=clock, backups=schedule)
    put(other)
    kept = other.backup()
    db = open_db(clock=clock, backups=schedule)
    taken = ""
    for _ in range(5):
        put(db)
        db.compact()
        clock.advance(2 * HOUR_S)
        taken = db.backup().path
    assert set(os.listdir(tmp_path / "shared")) == {
        os.path.basename(kept.path), os.path.basename(taken),
    }  # fmt: skip


def test_what_cannot_be_removed_is_removed_later(tmp_path: Path) -> None:
    clock = FakeClock(START)
    fs = FaultyFileSystem()
    schedule = RollingBackups(keep_hourly=1, keep_daily=0)
    with audited(tmp_path / "t.amber", clock=clock, fs=fs, backups=schedule) as db:
        for number in range(3):
            put(db)
            db.compact()
            clock.advance(2 * HOUR_S)
            if number == 1:
                failpoints.install(
                    lambda name: fs.arm(("unlink",), 1) if name == "rolling.taken" else None
                )
            db.backup()
            failpoints.install(None)
            assert len(names(db)) == (1, 2, 1)[number]
            told = rolling(db)["last_error"]
            assert told is None if number != 1 else "could not be removed" in told


def archive(number: int, base: int | None, created_s: int) -> ArchiveFile:
    header = Header(
        id=number.to_bytes(16),
        database_id=bytes(16),
        base=b"" if base is None else base.to_bytes(16),
        after_lsn=0,
        last_lsn=number,
        time_us=0,
        created_us=created_s * 1_000_000,
        documents={},
    )
    return ArchiveFile(f"{number}", header)


@given(
    st.lists(st.tuples(st.integers(60, 3 * DAY_S), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_pruning_keeps_every_base_of_what_it_keeps(
    steps: list[tuple[int, bool]], hourly: int, daily: int
) -> None:
    found: list[ArchiveFile] = []
    now = int(START)
    for number, (seconds, is_full) in enumerate(steps, start=1):
        now += seconds
        found.append(archive(number, None if is_full or number == 1 else number - 1, now))
    gone = to_prune(chains_of(found), str(len(found)), hourly, daily)
    assert len(set(gone)) == len(gone)
    assert str(len(found)) not in gone, "the newest"
    left = {each.path for each in found}
    for path in gone:  # at any step of it
        left.remove(path)
        for each in found:
            if each.path in left and each.header.base:
                assert str(int.from_bytes(each.header.base)) in left
    hours = {each.created.strftime("%Y%m%d%H") for each in found}
    kept = {each.created.strftime("%Y%m%d%H") for each in found if each.path in left}
    assert set(sorted(hours)[len(hours) - min(hourly, len(hours)) :]) <= kept
