"""A LogTail beside the Log that writes: what it reads, and what it says of what has gone."""

import pytest

from amberdb._errors import CorruptionError, LogTruncatedError
from amberdb._types import NO_LSN, Lsn
from amberdb.wal import ForeignLogReader
from unit.wal.helpers import DATABASE_ID, LogDirectory, fill, lsn


def payloads(tail: ForeignLogReader, after: int, upto: int) -> list[bytes]:
    start = lsn(after) if after else NO_LSN
    return [record.payload for record in tail.read(start, lsn(upto))]


def test_what_is_appended_is_read_from_any_place(directory: LogDirectory) -> None:
    log = directory.create()
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    written: list[bytes] = []
    for first in range(1, 300, 23):  # over many segments
        written += fill(log, range(first, first + 23), sync=False, size=50)
        last = first + 22
        for after in (0, last // 2, first - 1, last - 1, last):
            assert payloads(tail, after, last) == written[after:]
    log.close()


def test_recycled_and_used_again_it_says_where_to_go_on(directory: LogDirectory) -> None:
    log = directory.create()
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    written = fill(log, range(1, 200), size=50)
    assert payloads(tail, 0, 199) == written
    for last in range(250, 1000, 50):  # spare files are segments again
        log.recycle(lsn(last - 60))
        written += fill(log, range(last - 50, last), size=50)
        with pytest.raises(LogTruncatedError) as caught:
            payloads(tail, 1, last - 1)
        resume: Lsn = caught.value.resume
        assert resume <= lsn(last - 60)
        found = [record.payload for record in tail.read(resume, lsn(last - 1))]
        assert found == written[resume - lsn(0) :]
    log.close()


def test_recycled_while_it_reads(directory: LogDirectory) -> None:
    log = directory.create()
    written = fill(log, range(1, 300), size=100)
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    records = tail.read(NO_LSN, lsn(299))
    found = [next(records).payload for _ in range(3)]
    log.recycle(lsn(200))
    fill(log, range(300, 500), size=100)
    with pytest.raises(LogTruncatedError):
        found.extend(record.payload for record in records)
    assert found == written[: len(found)]
    log.close()


def test_damage_is_no_change(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 100))
    log.close()
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    second = directory.headers(directory.segments()[0])[1]
    directory.damage(directory.segments()[0], second.offset + 44)
    with pytest.raises(CorruptionError):
        payloads(tail, 0, 99)
    directory.damage(directory.segments()[0], 20)
    with pytest.raises(CorruptionError):
        ForeignLogReader(directory.fs, directory.path, DATABASE_ID).segments()


def test_the_end_is_the_one_that_recovery_finds(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 100), size=50)
    fill(log, range(100, 103), sync=False)
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    assert tail.end(NO_LSN) == tail.end(lsn(50)) == lsn(102)
    log.close()
    last = directory.headers(directory.segments()[-1])[-1]
    directory.damage(directory.segments()[-1], last.offset + 44)  # as a torn write
    before = {path: directory.fs.read(path) for path in directory.segments()}
    assert tail.end(NO_LSN) == lsn(101)
    assert {path: directory.fs.read(path) for path in directory.segments()} == before
    _, recovery = directory.reopen()
    assert recovery.last_lsn == lsn(101)
    first = directory.headers(directory.segments()[0])[0]
    directory.damage(directory.segments()[0], first.offset + 44)
    with pytest.raises(CorruptionError):
        tail.end(NO_LSN)


def test_the_next_epoch_is_read_behind_the_last(directory: LogDirectory) -> None:
    log = directory.create()
    written = fill(log, range(1, 20))
    tail = ForeignLogReader(directory.fs, directory.path, DATABASE_ID)
    assert payloads(tail, 0, 19) == written
    log.close()
    log, _ = directory.reopen()
    more = fill(log, range(20, 40))
    upto = lsn(39, epoch=2)
    assert [record.payload for record in tail.read(lsn(10), upto)] == written[10:] + more
    assert [record.payload for record in tail.read(lsn(19), upto)] == more
    log.close()
