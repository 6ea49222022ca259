"""Repair keeps what comes before the damage, and every byte of the rest."""

import os

import pytest

from amberdb._errors import CorruptionError, LogTruncatedError
from amberdb._types import NO_LSN
from amberdb.wal import Log, LogOptions, repair
from amberdb.wal.segment import segment_name
from unit.wal.helpers import DATABASE_ID, LogDirectory, fill, lsn

FIXED = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)


def make(directory: LogDirectory, count: int = 200) -> tuple[Log, list[bytes]]:
    log = directory.create(FIXED)
    payloads: list[bytes] = []
    for number in range(1, count + 1):
        payloads += fill(log, range(number, number + 1))
    log.close()
    return log, payloads


def test_whole_log_is_left_alone(directory: LogDirectory) -> None:
    _, payloads = make(directory)
    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert (report.last_lsn, report.cuts) == (lsn(200), [])
    assert directory.names("broken") == []
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_damage_is_cut_and_later_segments_are_set_aside(directory: LogDirectory) -> None:
    _, payloads = make(directory)
    paths = directory.segments()
    assert len(paths) > 3
    bad = directory.headers(paths[1])[5]
    end = directory.headers(paths[1])[-1]
    directory.damage(paths[1], bad.offset)
    rest = directory.fs.read(paths[1])[bad.offset :].rstrip(b"\0")
    with pytest.raises(CorruptionError):
        directory.reopen()
    later = [directory.fs.read(path) for path in paths[2:]]

    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert report.last_lsn == bad.lsn - 1
    first, *others = report.cuts
    assert (first.segment, first.offset, first.size) == (paths[1], bad.offset, len(rest))
    assert (first.first_lost, first.last_lost) == (bad.lsn + 1, end.lsn)
    assert directory.fs.read(first.broken) == rest
    assert [cut.segment for cut in others] == paths[2:]
    assert [directory.fs.read(cut.broken) for cut in others] == later
    assert others[-1].last_lost == lsn(200)
    assert others[0].first_lost == end.lsn + 1

    log, recovery = directory.reopen()
    count = bad.lsn - 1 - lsn(0)
    assert directory.payloads() == payloads[:count]
    assert recovery.last_lsn == lsn(count)
    again = fill(log, range(2))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads[:count] + again


def test_repair_twice_is_repair_once(directory: LogDirectory) -> None:
    make(directory)
    path = directory.segments()[1]
    directory.damage(path, directory.headers(path)[5].offset)
    report = repair(directory.fs, directory.path, DATABASE_ID)
    again = repair(directory.fs, directory.path, DATABASE_ID)
    assert (again.last_lsn, again.cuts) == (report.last_lsn, [])


def test_missing_segment(directory: LogDirectory) -> None:
    _, payloads = make(directory)
    paths = directory.segments()
    last = directory.headers(paths[0])[-1].lsn
    os.unlink(paths[1])
    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert report.last_lsn == last
    assert [cut.segment for cut in report.cuts] == paths[2:]
    directory.reopen()[0].close()
    assert directory.payloads() == payloads[: last - lsn(0)]


def test_damaged_header(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    last = directory.headers(paths[0])[-1].lsn
    directory.damage(paths[1], 40)
    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert report.last_lsn == last
    assert (report.cuts[0].segment, report.cuts[0].first_lost) == (paths[1], None)
    directory.reopen()[0].close()


def test_damage_before_what_was_applied_costs_nothing(directory: LogDirectory) -> None:
    _, payloads = make(directory)
    paths = directory.segments()
    applied = directory.headers(paths[2])[3].lsn
    directory.damage(paths[1], 40)
    with pytest.raises(CorruptionError):
        directory.reopen(applied=applied)
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=applied)
    assert report.last_lsn == lsn(200)
    assert [cut.segment for cut in report.cuts] == paths[:2]
    directory.reopen(applied=applied)[0].close()
    assert directory.payloads() == payloads[applied - lsn(0) :]


def test_gap_before_what_was_applied_costs_what_is_older(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    applied = directory.headers(paths[3])[3].lsn
    os.unlink(paths[1])
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=applied)
    assert report.last_lsn == lsn(200)
    assert [cut.segment for cut in report.cuts] == paths[:1]
    directory.reopen(applied=applied)[0].close()


def test_records_before_the_applied_lsn_are_kept(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    applied = directory.headers(paths[2])[3].lsn
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=applied)
    assert report.cuts == []
    assert directory.segments() == paths


def test_log_cut_below_the_applied_lsn_starts_anew(directory: LogDirectory) -> None:
    """What could be kept is not needed, and nobody may read from it over the hole."""
    make(directory, 30)
    (path,) = directory.segments()
    directory.damage(path, directory.headers(path)[9].offset)
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=lsn(20))
    assert (report.last_lsn, report.is_restarted) == (lsn(20), True)
    assert [cut.last_lost for cut in report.cuts] == [lsn(30)]
    log, recovery = directory.reopen(applied=lsn(20))
    assert (recovery.last_lsn, directory.replayed) == (lsn(20), [])
    assert log.next_lsn == lsn(21, 2)
    with pytest.raises(LogTruncatedError):
        list(log.read(lsn(5)))
    log.close()
    log, _ = directory.reopen(clean=lsn(20), applied=lsn(20))
    payloads = fill(log, range(3))
    log.close()
    directory.reopen(applied=lsn(20))[0].close()
    assert directory.payloads() == payloads


@pytest.mark.parametrize("applied", [None, lsn(30), lsn(180)])
def test_without_apply_it_says_the_same_and_changes_nothing(
    directory: LogDirectory, applied: int | None
) -> None:
    make(directory)
    paths = directory.segments()
    directory.damage(paths[2], directory.headers(paths[2])[5].offset)
    before = {name: directory.fs.read(name) for name in directory.segments()}
    found = None if applied is None else lsn(applied - lsn(0))
    said: list[int] = []
    plan = repair(
        directory.fs,
        directory.path,
        DATABASE_ID,
        applied=found,
        apply=False,
        replay=lambda record: said.append(record.lsn),
    )
    assert {name: directory.fs.read(name) for name in directory.segments()} == before
    assert directory.names("broken") == []
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=found)
    assert report == plan
    assert said == ([] if report.is_restarted else list(range(lsn(1), report.last_lsn + 1)))


@pytest.mark.parametrize("applied", [None, NO_LSN, lsn(7)])
def test_nothing_readable_leaves_an_empty_log(directory: LogDirectory, applied: int | None) -> None:
    make(directory, 3)
    (path,) = directory.segments()
    directory.damage(path, 40)
    found = None if applied is None else lsn(applied - lsn(0)) if applied else NO_LSN
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=found)
    assert directory.fs.calls[-1][0] == "sync_dir"
    assert report.last_lsn == (found or NO_LSN)
    (cut,) = report.cuts
    assert (cut.segment, cut.offset, cut.size) == (path, 0, 4096)
    assert segment_name((found or NO_LSN) + 1) in directory.names(".wal")
    log, _ = directory.reopen(applied=found or NO_LSN)
    fill(log, range(3))
    log.close()
    directory.reopen(applied=found or NO_LSN)[0].close()
    assert len(directory.replayed) == 3


def test_log_that_begins_behind_the_applied_lsn_starts_anew(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    os.unlink(paths[0])
    report = repair(directory.fs, directory.path, DATABASE_ID, applied=lsn(3))
    assert report.last_lsn == lsn(3)
    assert [cut.segment for cut in report.cuts] == paths[1:]
    directory.reopen(applied=lsn(3))[0].close()
    assert directory.replayed == []


def test_chain_that_does_not_lead_to_the_next_segment(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    last = directory.headers(paths[0])[-1]
    directory.damage(paths[0], last.offset, bytes(last.end - last.offset))
    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert report.last_lsn == last.lsn - 1
    assert [cut.segment for cut in report.cuts] == paths[1:]


def test_wrong_database_is_not_taken_apart(directory: LogDirectory) -> None:
    make(directory)
    with pytest.raises(CorruptionError, match="another database"):
        repair(directory.fs, directory.path, b"f" * 16)
    assert directory.names("broken") == []


def test_foreign_segment_among_own_ones(directory: LogDirectory) -> None:
    make(directory)
    paths = directory.segments()
    foreign = LogDirectory(directory.fs, os.path.join(directory.path, "other"))
    directory.fs.mkdir(foreign.path)
    log = Log.create(directory.fs, foreign.path, database_id=b"f" * 16, options=FIXED, epoch=9)
    log.close()
    (path,) = foreign.segments()
    os.rename(path, os.path.join(directory.path, os.path.basename(path)))
    report = repair(directory.fs, directory.path, DATABASE_ID)
    assert report.last_lsn == lsn(200)
    assert len(report.cuts) == 1
    assert directory.segments() == paths
