"""Reading from any Lsn, beside writers."""

import os
import threading

import pytest

from amberdb._errors import CorruptionError, LogTruncatedError
from amberdb._types import NO_LSN, Lsn
from amberdb.wal import LogOptions
from amberdb.wal.segment import RECORDS_START
from unit.wal.helpers import LogDirectory, fill, lsn

FIXED = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)


def test_any_start_and_end(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 300))
    for after in (*range(0, 299, 7), 299):
        start = Lsn(lsn(after)) if after else NO_LSN
        assert [r.payload for r in log.read(start)] == payloads[after:]
        upto = lsn(after + 3)
        assert [r.payload for r in log.read(start, upto=upto)] == payloads[after : after + 3]
    records = list(log.read(NO_LSN))
    assert [r.lsn for r in records] == [lsn(n) for n in range(1, 300)]
    log.close()


def test_only_durable_records_unless_asked(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    payloads += fill(log, range(4, 6), sync=False)
    assert [r.payload for r in log.read(NO_LSN)] == payloads[:3]
    assert [r.payload for r in log.read(NO_LSN, upto=log.last_lsn)] == payloads
    assert [r.payload for r in log.read(NO_LSN, upto=lsn(10**6))] == payloads
    assert list(log.read(lsn(3))) == []
    log.close()


def test_records_larger_than_the_window(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4), size=700_000)
    payloads += fill(log, range(4, 6))
    assert [r.payload for r in log.read(NO_LSN)] == payloads
    assert [r.payload for r in log.read(lsn(2))] == payloads[2:]
    log.close()


def test_many_windows_in_one_segment(
    directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE_MIN", 512)
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE", 1024)
    log = directory.create(FIXED)
    payloads = fill(log, range(1, 200))
    assert [record.payload for record in log.read(NO_LSN)] == payloads
    log.close()


def test_record_that_ends_with_the_file(
    directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE_MIN", 64)
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE", 64)
    payloads = fill(directory.create(), range(1, 3), size=500)
    log, _ = directory.reopen()  # cuts the file after its last record
    assert [record.payload for record in log.read(NO_LSN)] == payloads
    log.close()


def test_record_that_the_file_has_no_room_for_is_damage(
    directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE_MIN", 64)
    monkeypatch.setattr("amberdb.wal.segment._WINDOW_SIZE", 64)
    log = directory.create()
    payloads = fill(log, range(1, 3), size=500)
    (path,) = directory.segments()
    last = directory.headers(path)[1]
    os.truncate(path, last.offset + 100)
    reader = log.read(NO_LSN)
    assert next(reader).payload == payloads[0]
    with pytest.raises(CorruptionError) as caught:
        next(reader)
    assert (caught.value.path, caught.value.offset) == (path, last.offset)
    log.close()


def test_follower_goes_on_where_it_was(directory: LogDirectory) -> None:
    log = directory.create(LogOptions(segment_bytes_min=1 << 20))
    after = NO_LSN
    ends: list[int] = []
    for number in range(1, 60):
        payloads = fill(log, range(number, number + 1))
        directory.fs.reads.clear()
        records = list(log.read(after))
        assert [r.payload for r in records] == payloads
        assert directory.fs.reads == (ends[-1:] or [RECORDS_START])
        after = records[-1].lsn
        ends.append(records[-1].end)
    log.close()


def test_epochs_are_read_through(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    for _ in range(3):
        log.close()
        log, _ = directory.reopen()
        payloads += fill(log, range(3))
    assert [r.payload for r in log.read(NO_LSN)] == payloads
    assert [r.payload for r in log.read(lsn(5, 2))] == payloads[5:]
    log.close()


def test_too_old_a_start_says_where_to_go_on(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    payloads = fill(log, range(1, 300))
    log.recycle(lsn(100))
    assert len(directory.segments()) > 2
    with pytest.raises(LogTruncatedError) as caught:
        log.read(NO_LSN)
    resume = caught.value.resume
    kept = list(log.read(resume))
    assert kept[0].lsn == log.first_lsn
    assert [r.payload for r in kept] == payloads[resume - lsn(0) :]
    log.close()


def test_empty_log_without_segments(directory: LogDirectory) -> None:
    log, _ = directory.reopen(clean=NO_LSN)
    assert list(log.read(NO_LSN)) == []
    log.close()


def test_segment_recycled_under_the_reader(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    payloads = fill(log, range(1, 200))
    reader = log.read(NO_LSN)
    seen = [next(reader).payload for _ in range(3)]
    log.recycle(log.last_lsn)
    fill(log, range(200, 400))  # writes over the recycled files
    with pytest.raises(LogTruncatedError) as caught:
        seen.extend(record.payload for record in reader)
    assert seen == payloads[: len(seen)]
    assert caught.value.resume >= lsn(len(seen))
    log.close()


def test_damage_is_an_error_with_its_place(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 10))
    (path,) = directory.segments()
    bad = directory.headers(path)[4]
    directory.damage(path, bad.offset + 45)
    reader = log.read(NO_LSN)
    assert [next(reader).lsn for _ in range(4)] == [lsn(n) for n in range(1, 5)]
    with pytest.raises(CorruptionError) as caught:
        next(reader)
    assert (caught.value.path, caught.value.offset) == (path, bad.offset)
    os.unlink(path)
    with pytest.raises(CorruptionError) as caught:
        list(log.read(NO_LSN))
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert (caught.value.path, caught.value.offset) == (path, 0)
    log.close()


def test_readers_beside_a_writer_and_recycling(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    stop = threading.Event()
    errors: list[BaseException] = []
    total = 1500

    def read() -> None:
        after = NO_LSN
        try:
            while after < lsn(total) and not stop.is_set():
                try:
                    for record in log.read(after):
                        assert record.payload == b"%06d" % (record.lsn - lsn(0))
                        assert after in (NO_LSN, record.lsn - 1)
                        after = record.lsn
                except LogTruncatedError as error:
                    after = max(after, error.resume)
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, total + 1):
        log.append(b"%06d" % number, 0, 1, "os")
        if number % 50 == 0:
            log.sync()
        if number % 300 == 0:
            log.recycle(lsn(number - 200))
    log.sync()
    for reader in readers:
        reader.join(60)
    stop.set()
    assert errors == []
    log.close()
