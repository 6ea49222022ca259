"""Torn tails and damage: what opening cuts, what it refuses, and what it says."""

import errno
import os

import pytest

from amberdb._errors import CorruptionError, DiskFullError, FormatError, StorageError
from amberdb._types import NO_LSN, Lsn
from amberdb.wal import LogOptions
from amberdb.wal.record import END_SIZE, encode
from amberdb.wal.segment import decode_header
from support.faulty_fs import fail_on
from unit.wal.helpers import LogDirectory, fill, lsn, rotate

FIXED = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)


def test_clean_log_has_nothing_to_cut(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 5))
    log, recovery = directory.reopen()  # as after kill -9
    assert directory.payloads() == payloads
    assert recovery.cut is None
    assert directory.names("broken") == []
    assert log.next_lsn == lsn(5, 2)
    assert log.durable_lsn == lsn(4)
    assert [r.time_us for r in directory.replayed] == [1, 2, 3, 4]
    log.close()


def test_torn_tail_is_cut_and_kept(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 5))
    (path,) = directory.segments()
    last = directory.headers(path)[-1]
    directory.damage(path, last.end - 8)
    torn = directory.fs.read(path)[last.offset :].rstrip(b"\0")
    log, recovery = directory.reopen()
    assert directory.payloads() == payloads[:3]
    cut = recovery.cut
    assert cut is not None
    assert (cut.segment, cut.offset, cut.size) == (path, last.offset, len(torn))
    assert (cut.broken, cut.last_lsn) == (path + ".broken", lsn(3))
    assert directory.fs.read(cut.broken) == torn
    assert len(directory.fs.read(path)) == last.offset
    payloads[3:] = fill(log, range(5, 7))
    log.close()
    log, recovery = directory.reopen()
    assert directory.payloads() == payloads
    assert recovery.cut is None
    log.close()


def test_every_torn_length_of_the_last_record(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 3))
    log.append(b"the last one", 3, 1, "always")
    (path,) = directory.segments()
    whole = directory.fs.read(path)
    last = directory.headers(path)[-1]
    for size in range(last.end - last.offset):
        directory.damage(path, 0, whole[: last.offset + size].ljust(len(whole), b"\0"))
        log, recovery = directory.reopen()
        log.close()
        kept = directory.payloads()
        if len(kept) == 3:
            assert size >= last.end - last.offset - 4  # only padding was lost
        else:
            assert kept == payloads
            # The first bytes of a record are its checksum, which may begin with zeros.
            assert (recovery.cut is None) == (not any(whole[last.offset : last.offset + size]))
        with open(path, "wb") as file:
            file.write(whole)


def test_lost_record_of_an_unsynced_group_cuts_the_later_ones(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    fill(log, range(4, 8), sync=False)
    (path,) = directory.segments()
    lost = directory.headers(path)[4]
    directory.damage(path, lost.offset, bytes(lost.end - lost.offset))
    log, recovery = directory.reopen()
    assert directory.payloads()[:3] == payloads
    assert recovery.last_lsn == lsn(4)
    assert recovery.cut is not None
    assert (recovery.cut.offset, recovery.cut.last_lsn) == (lost.offset, lsn(4))
    log.close()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_flipped_byte_before_a_later_sync_is_damage(
    directory: LogDirectory, number: int
) -> None:
    log = directory.create()
    for n in range(1, 6):
        fill(log, range(n, n + 1))  # one sync each
    (path,) = directory.segments()
    whole = directory.fs.read(path)
    bad = directory.headers(path)[number - 1]
    for offset in range(bad.offset, bad.end - 6):  # the padding is not protected
        directory.damage(path, offset)
        with pytest.raises(CorruptionError) as caught:
            directory.reopen()
        assert (caught.value.path, caught.value.offset) == (path, bad.offset)
        assert directory.fs.read(path) != whole  # and nothing was repaired silently
        directory.damage(path, offset)
    assert directory.fs.read(path) == whole
    assert directory.names("broken") == []
    log.close()


def test_one_later_record_that_saw_the_bad_one_durable_is_enough(
    directory: LogDirectory,
) -> None:
    log = directory.create()
    for n in range(1, 4):
        fill(log, range(n, n + 1))
    (path,) = directory.segments()
    second, third = directory.headers(path)[1:]
    assert third.synced == second.lsn
    directory.damage(path, second.offset)
    with pytest.raises(CorruptionError, match=f"offset {second.offset}"):
        directory.reopen()
    log.close()


def test_zeroed_record_before_a_later_sync_is_damage(directory: LogDirectory) -> None:
    log = directory.create()
    for n in range(1, 6):
        fill(log, range(n, n + 1))
    (path,) = directory.segments()
    second = directory.headers(path)[1]
    directory.damage(path, second.offset, bytes(second.end - second.offset))
    with pytest.raises(CorruptionError, match=f"offset {second.offset}"):
        directory.reopen()
    log.close()


def test_damage_in_a_sealed_segment_is_seen_by_the_next(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4), sync=False)  # no record saw a durable one
    rotate(log)
    log.close()
    path = directory.segments()[0]
    last = directory.headers(path)[-1]
    directory.damage(path, last.offset)
    with pytest.raises(CorruptionError, match="was durable") as caught:
        directory.reopen()
    assert (caught.value.path, caught.value.offset) == (path, last.offset)
    assert caught.value.last_lsn == lsn(2)


def test_anything_short_of_a_clean_close_is_damage(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    log.close()
    (path,) = directory.segments()
    last = directory.headers(path)[-1]
    directory.damage(path, last.offset, bytes(last.end - last.offset))
    with pytest.raises(CorruptionError, match="was closed at") as caught:
        directory.reopen(clean=lsn(3))
    assert (caught.value.path, caught.value.offset) == (path, last.offset)
    directory.reopen()[0].close()
    assert len(directory.replayed) == 2


@pytest.mark.parametrize("number", [2, 4])
def test_a_log_that_ends_elsewhere_than_it_was_closed_is_damage(
    directory: LogDirectory, number: int
) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    log.close()
    with pytest.raises(CorruptionError, match="was closed at"):
        directory.reopen(clean=lsn(number), applied=lsn(number))
    last = directory.headers(directory.segments()[0])[-1]
    directory.damage(directory.segments()[0], last.offset + 8)
    with pytest.raises(CorruptionError, match="was closed at"):
        directory.reopen(clean=lsn(3), applied=lsn(3))


def test_records_behind_a_clean_close_are_refused(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    log.close()
    with pytest.raises(CorruptionError, match="was closed at"):
        directory.reopen(clean=lsn(2))


def test_log_that_ends_before_the_applied_lsn_is_damage(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4))
    log.close()
    with pytest.raises(CorruptionError, match="was applied"):
        directory.reopen(applied=lsn(4))


def test_missing_segment_in_the_middle(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 200), size=50)
    log.close()
    paths = directory.segments()
    os.unlink(paths[1])
    with pytest.raises(CorruptionError, match="missing") as caught:
        directory.reopen(applied=lsn(199))
    assert (caught.value.path, caught.value.offset) == (paths[2], 48)


def test_missing_first_segment(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 400))
    log.close()
    paths = directory.segments()
    assert len(paths) > 2
    os.unlink(paths[0])
    with pytest.raises(CorruptionError, match="the log begins with") as caught:
        directory.reopen()
    assert (caught.value.path, caught.value.offset) == (paths[1], 0)
    begin = directory.headers(paths[1])[0].lsn
    directory.reopen(applied=lsn(begin - lsn(0) - 1))[0].close()


def test_names_are_durable_before_an_older_segment_is_removed(directory: LogDirectory) -> None:
    """A kill may come between the rename of a new segment and the sync of its directory: were its
    name then lost with power, and the older segments removed, there would be no log."""
    log = directory.create()
    fill(log, range(1, 200), size=50)
    log.close()
    directory.fs.calls.clear()
    log, _ = directory.reopen(applied=lsn(199))
    assert log.recycle(lsn(199)) > 0
    log.close()
    order = [call[0] for call in directory.fs.calls if call[0] in ("sync_dir", "rename", "unlink")]
    assert order[0] == "sync_dir"
    assert {"rename", "unlink"} & set(order)


def test_missing_newest_segment(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 200))
    log.close()
    os.unlink(directory.segments()[-1])
    with pytest.raises(CorruptionError):
        directory.reopen(clean=lsn(199))
    with pytest.raises(CorruptionError):
        directory.reopen(applied=lsn(199))


def test_empty_directory(directory: LogDirectory) -> None:
    log, recovery = directory.reopen(clean=NO_LSN)
    assert (recovery.last_lsn, log.next_lsn) == (NO_LSN, lsn(1))
    fill(log, range(1, 3))
    log.close()
    for path in directory.segments():
        os.unlink(path)
    log, recovery = directory.reopen(clean=lsn(9), applied=lsn(9))
    assert recovery.last_lsn == lsn(9)
    payloads = fill(log, range(1))
    log.close()
    directory.reopen(clean=lsn(10), applied=lsn(9))[0].close()
    assert directory.payloads() == payloads
    for path in directory.segments():
        os.unlink(path)
    with pytest.raises(CorruptionError, match="is missing"):
        directory.reopen()
    with pytest.raises(CorruptionError, match="is missing"):
        directory.reopen(clean=lsn(9), applied=lsn(8))


def test_segment_of_another_log(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    fill(log, range(1, 100))
    log.close()
    with pytest.raises(CorruptionError, match="another database") as caught:
        directory.reopen(database_id=b"f" * 16)
    assert caught.value.path == directory.segments()[0]


def test_segment_that_was_written_behind_another_record(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    fill(log, range(1, 10))
    log.close()
    kept = directory.fs.read(directory.segments()[0])
    log, _ = directory.reopen(clean=lsn(9))
    rotate(log)
    log.close()
    path = directory.segments()[0]
    header = decode_header(kept, path)
    chain = directory.headers(path)[-2].crc
    last = directory.headers(path)[-1]
    frame, _ = encode(header.salt, chain, last.lsn, 0, 0, 1, b"other!")
    directory.damage(path, last.offset, frame)
    with pytest.raises(CorruptionError, match="was not written after") as caught:
        directory.reopen()
    assert (caught.value.path, caught.value.offset) == (directory.segments()[1], 56)
    directory.damage(path, 0, kept)
    extra, _ = encode(header.salt, last.crc, last.lsn + 1, 0, 0, 1, b"extra!")
    directory.damage(path, last.end, extra)
    with pytest.raises(CorruptionError, match="was not written after"):
        directory.reopen()


def test_damaged_header_names_the_file(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 200))
    log.close()
    path = directory.segments()[1]
    directory.damage(path, 33)
    with pytest.raises(CorruptionError, match="header of") as caught:
        directory.reopen()
    assert caught.value.path == path
    directory.damage(path, 8, (99).to_bytes(4, "little"))
    with pytest.raises(FormatError):
        directory.reopen()


def test_temporary_files_go_and_foreign_files_stay(directory: LogDirectory) -> None:
    directory.create().close()
    own = ("free-7.seg.tmp", f"{1:016x}.wal.amber-{2:016x}.tmp")
    for name in (*own, "x.tmp", "notes.txt", "0.wal", "x.broken"):
        with open(os.path.join(directory.path, name), "w") as file:
            file.write("?")
    directory.reopen()[0].close()
    names = directory.fs.listdir(directory.path)
    assert not set(own) & set(names)
    assert {"x.tmp", "notes.txt", "0.wal", "x.broken"} <= set(names)


def test_broken_files_are_never_overwritten(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    (path,) = directory.segments()
    for name in (path + ".broken", path + ".broken.1"):
        with open(name, "wb") as file:
            file.write(b"mine")
    directory.damage(path, directory.headers(path)[-1].offset)
    _, recovery = directory.reopen()
    assert recovery.cut is not None
    assert recovery.cut.broken == path + ".broken.2"
    assert directory.fs.read(path + ".broken") == b"mine"
    log.close()


def test_interrupted_recovery_is_repeated_without_another_copy(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 5))
    (path,) = directory.segments()
    directory.damage(path, directory.headers(path)[-1].offset)
    for operation in ("pwrite", "truncate", "open"):
        directory.fs.hook = fail_on(operation, ".wal", OSError(errno.EIO, "injected"))
        with pytest.raises(StorageError, match="could not be opened"):
            directory.reopen()
    directory.fs.hook = fail_on("pwrite", ".broken.tmp", OSError(errno.ENOSPC, "injected"))
    directory.fs.unlink(path + ".broken")
    with pytest.raises(DiskFullError):
        directory.reopen()
    directory.fs.hook = fail_on("sync", ".wal", OSError(errno.EIO, "injected"))
    for _ in range(2):  # the second time the tail is cut already, and not yet durable
        with pytest.raises(StorageError, match="could not be opened"):
            directory.reopen()
    directory.fs.hook = None
    directory.reopen()[0].close()
    assert directory.payloads() == payloads[:3]
    assert directory.names("broken") == [os.path.basename(path) + ".broken"]
    log.close()


def changes_of_reopening(directory: LogDirectory, applied: Lsn = NO_LSN) -> list[str]:
    """What reopening after a crash does to the newest segment."""
    name = os.path.basename(directory.segments()[-1])
    directory.fs.calls.clear()
    directory.reopen(applied=applied)[0].close()
    return [kind for kind, of in directory.fs.calls if of == name]


def test_records_that_may_not_be_durable_are_written_again(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    fill(log, range(5, 8), sync=False)
    (path,) = directory.segments()
    headers = directory.headers(path)
    assert [header.synced for header in headers] == [NO_LSN] * 4 + [lsn(4)] * 3
    written = directory.fs.read(path)
    directory.fs.writes.clear()
    assert changes_of_reopening(directory) == ["open", "pwrite", "sync"]
    start, end = headers[4].offset, headers[-1].end + END_SIZE
    assert directory.fs.writes == [(start, end - start)]  # those before are durable, as these say
    assert directory.fs.read(path) == written
    log.close()


def test_what_is_durable_is_only_read(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 5))
    assert changes_of_reopening(directory, applied=lsn(4)) == []
    assert directory.payloads() == []
    assert changes_of_reopening(directory, applied=lsn(3)) == ["open", "pwrite", "sync"]
    assert directory.payloads() == payloads[3:]
    log.close()


def test_records_that_change_while_they_are_read_are_refused(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 5))
    (path,) = directory.segments()
    last = directory.headers(path)[-1]

    def evict(kind: str, of: str) -> None:  # the device has other bytes than the page cache had
        if kind == "open" and of == path:
            directory.damage(path, last.end - 8)

    directory.fs.hook = evict
    with pytest.raises(CorruptionError, match="changed while it was read") as caught:
        directory.reopen()
    assert (caught.value.path, caught.value.offset) == (path, last.offset)
    directory.fs.hook = None
    log.close()


@pytest.mark.parametrize("window", [1 << 20, 1000, 7])
def test_what_follows_the_last_record_is_kept_without_its_zeros(
    directory: LogDirectory, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.wal.recovery._WINDOW_SIZE", window)
    log = directory.create(FIXED)
    fill(log, range(1, 4))
    log.close()
    (path,) = directory.segments()
    end = directory.headers(path)[-1].end
    for offset in (4095, 4094, 3000, end + 999, end + 1000, end + 1, end):
        directory.damage(path, offset, b"\1")
        torn = directory.fs.read(path)[end:].rstrip(b"\0")
        _, recovery = directory.reopen()
        assert recovery.cut is not None
        assert directory.fs.read(recovery.cut.broken) == torn
        assert recovery.cut.size == offset + 1 - end
        with open(path, "r+b") as file:
            file.truncate(4096)


def test_whatever_is_behind_the_last_record_of_a_new_file_is_kept(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    payloads = fill(log, range(1, 4))
    path = directory.segments()[0]
    assert not decode_header(directory.fs.read(path), path).recycled
    # Two sectors of one write: only the second, without any header in it, got there.
    directory.damage(path, 1024, b"rest of a payload")
    _, recovery = directory.reopen()
    assert directory.payloads() == payloads
    assert recovery.cut is not None
    assert directory.fs.read(recovery.cut.broken).endswith(b"rest of a payload")
    log.close()


def test_torn_tail_in_a_recycled_segment(directory: LogDirectory) -> None:
    log = directory.create(FIXED)
    fill(log, range(1, 70))
    log.recycle(log.last_lsn)
    rotate(log)
    payloads = fill(log, range(70, 73))
    fill(log, range(73, 76), sync=False)
    path = directory.segments()[-1]
    headers = directory.headers(path)
    assert decode_header(directory.fs.read(path), path).recycled
    whole = directory.fs.read(path)
    # The first of three unsynced records never got there: its place holds what was there before.
    directory.damage(path, headers[3].offset, bytes(8))
    _, recovery = directory.reopen(applied=lsn(69))
    assert directory.payloads() == payloads
    assert recovery.cut is not None
    # A flip in the last record's marker.
    with open(path, "wb") as file:
        file.write(whole)
    directory.damage(path, headers[5].offset)
    _, recovery = directory.reopen(applied=lsn(69))
    assert len(directory.replayed) == 5
    assert recovery.cut is not None
    log.close()


def test_many_unclean_opens_without_writes_add_no_files(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 3))
    log.close()
    for _ in range(5):
        log, _ = directory.reopen()
        log.close()
    assert len(directory.segments()) == 1
    assert log.next_lsn == lsn(3, 6)
    log, _ = directory.reopen()
    payloads += fill(log, range(3, 4))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads
    assert [r.lsn for r in directory.replayed] == [lsn(1), lsn(2), lsn(3, 7)]
