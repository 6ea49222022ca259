"""Appending, rotating, recycling, and what a full disk or a failing device does to it."""

import errno
import itertools
import threading

import pytest

from amberdb._errors import (
    AmberError,
    ClosedError,
    CommitUnknownError,
    DiskFullError,
    PoisonedError,
    StorageError,
)
from amberdb._types import NO_LSN
from amberdb.wal import Log, LogOptions
from amberdb.wal.record import PAYLOAD_BYTES_MAX
from amberdb.wal.segment import RECORDS_START, segment_name
from support.faulty_fs import Partial, fail_on
from unit.wal.helpers import (
    DATABASE_ID,
    SMALL,
    LogDirectory,
    fill,
    join_preparation,
    lsn,
    rotate,
)

FULL = OSError(errno.ENOSPC, "no space, injected")
BROKEN = OSError(errno.EIO, "input/output error, injected")


def test_lsns_follow_each_other(directory: LogDirectory) -> None:
    log = directory.create()
    assert (log.last_lsn, log.durable_lsn, log.next_lsn) == (NO_LSN, NO_LSN, lsn(1))
    assert log.first_lsn == lsn(1)
    assert log.append(b"a", 5, 1, "always") == lsn(1)
    assert log.append(b"b", 6, 2, "os") == lsn(2)
    assert (log.last_lsn, log.durable_lsn, log.next_lsn) == (lsn(2), NO_LSN, lsn(3))
    assert log.required_lsn == lsn(1)
    assert log.first_lsn == lsn(1)
    log.close()


def test_closed_before_its_first_record_it_goes_on(directory: LogDirectory) -> None:
    directory.create().close()
    log, _ = directory.reopen(clean=NO_LSN)
    payloads = fill(log, range(1, 4))
    assert [record.payload for record in log.read(NO_LSN)] == payloads
    log.close()
    directory.reopen(clean=lsn(3))[0].close()
    assert directory.payloads() == payloads


def test_closed_cleanly_it_goes_on_in_the_same_segment(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4), sync=False)
    log.close()
    log.close()
    assert log.durable_lsn == lsn(3)
    log, recovery = directory.reopen(clean=lsn(3))
    assert (recovery.last_lsn, recovery.records, recovery.cut) == (lsn(3), 3, None)
    assert directory.payloads() == payloads
    payloads += fill(log, range(4, 6))
    log.close()
    assert len(directory.segments()) == 1
    directory.reopen(clean=lsn(5))[0].close()
    assert directory.payloads() == payloads
    directory.reopen(clean=lsn(5), applied=lsn(4))[0].close()
    assert directory.payloads() == payloads[4:]


def test_closed_cleanly_with_several_segments_it_goes_on_in_the_newest(
    directory: LogDirectory,
) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 400))
    log.close()
    before = directory.segments()
    assert len(before) > 2
    log, _ = directory.reopen(clean=lsn(399))
    payloads += fill(log, range(400, 402))
    log.close()
    assert directory.segments() == before
    directory.reopen(clean=lsn(401))[0].close()
    assert directory.payloads() == payloads


def test_new_epoch_begins_a_new_segment(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 3))
    log.close()
    directory.epoch = 5
    log, _ = directory.reopen(clean=lsn(2))
    assert log.next_lsn == lsn(3, 5)
    assert len(directory.segments()) == 1
    fill(log, range(3, 4))
    log.close()
    assert len(directory.segments()) == 2
    log, _ = directory.reopen(clean=lsn(3, 5))
    fill(log, range(4, 5))  # in the newest one, though the older is of another epoch
    log.close()
    assert len(directory.segments()) == 2
    directory.epoch = 4
    with pytest.raises(ValueError, match="epoch 4 is older"):
        directory.reopen(clean=lsn(4, 5))


def test_segments_grow_up_to_their_limit(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(400), size=100)
    sizes = [len(directory.fs.read(path)) for path in directory.segments()]
    assert sizes[:3] == [4096, 8192, 16384]
    assert set(sizes[3:]) == {16384}
    assert log.bytes_used == sum(sizes)
    assert log.stats()["segments"] == len(sizes)
    directory.reopen()[0].close()
    assert directory.payloads() == payloads
    log.close()


def test_record_larger_than_a_segment_gets_one_that_fits(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(2), size=100_000)
    payloads += fill(log, range(2, 4))
    log.close()
    directory.reopen(clean=lsn(4))[0].close()
    assert directory.payloads() == payloads


def test_payload_that_no_header_can_count_is_refused(directory: LogDirectory) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return PAYLOAD_BYTES_MAX + 1

    log = directory.create()
    with pytest.raises(ValueError, match="cannot hold"):
        log.append(Huge(), 0, 1, "os")
    fill(log, range(1))
    log.close()


def test_rotation_syncs_the_old_segment_first(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 4), sync=False)
    directory.fs.calls.clear()
    rotate(log)
    assert log.durable_lsn == lsn(3)
    operations = [call for call in directory.fs.calls if call[0] in ("sync", "rename", "sync_dir")]
    old = ("sync", f"{lsn(1):016x}.wal")
    new = ("rename", f"{lsn(4):016x}.wal")
    assert operations.index(old) < operations.index(new) < len(operations) - 1
    assert operations[operations.index(new) - 1] == ("sync", "free-1.seg")
    assert operations[-1][0] == "sync_dir"
    log.close()


def test_an_empty_segment_that_is_too_small_gives_its_place_to_another(
    directory: LogDirectory,
) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    rotate(log)
    payloads += fill(log, range(4, 5), size=30_000)  # larger than what the rotation made ready
    payloads += fill(log, range(5, 7))
    names = directory.segments()
    assert len(names) == 2
    assert [record.payload for record in log.read(NO_LSN)] == payloads
    assert log.recycle(lsn(3)) > 0
    assert directory.segments() == names[1:]
    assert log.recycle(log.last_lsn) == 0  # nor is the one in use given up under another name
    payloads = payloads[3:] + fill(log, range(7, 9))
    log, recovery = directory.reopen(applied=lsn(3))
    assert (recovery.records, recovery.cut) == (5, None)
    assert directory.payloads() == payloads
    log.close()


def test_an_empty_segment_whose_place_was_taken_in_vain_ends_writing(
    directory: LogDirectory,
) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    rotate(log)
    directory.fs.hook = fail_on("open", segment_name(lsn(4)), BROKEN)
    with pytest.raises(PoisonedError):
        log.append(b"x" * 30_000, 0, 1, "always")
    directory.fs.hook = None
    log, recovery = directory.reopen(applied=NO_LSN)
    assert directory.payloads() == payloads
    assert recovery.cut is None
    log.close()


@pytest.mark.parametrize("used", [False, True])
def test_renewed_it_goes_on_in_a_file_without_a_past(directory: LogDirectory, used: bool) -> None:
    log = directory.create(LogOptions(segment_bytes_min=4096, segment_bytes_max=4096))
    fill(log, range(1, 70))
    log.recycle(log.last_lsn)
    rotate(log)  # into a file that was recycled
    payloads = fill(log, range(70, 71)) if used else []
    log.renew()
    log.recycle(log.last_lsn)
    log.reuse()
    assert directory.names("free") == []
    (only,) = directory.segments()
    assert not directory.fs.read(only)[RECORDS_START:].strip(b"\0")
    fill(log, range(71, 73))
    log.close()
    log, _ = directory.reopen(clean=log.last_lsn, applied=lsn(69 + len(payloads)))
    assert len(directory.payloads()) == 2
    log.close()


def test_next_segment_is_prepared_when_half_is_full(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(10))
    assert log.stats()["free_segments"] == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("amberdb-wal")]
    fill(log, range(10, 40), sync=False)
    assert len(directory.segments()) == 1
    join_preparation()
    assert log.stats()["free_segments"] == 1
    rotate(log)
    assert log.stats()["free_segments"] == 0
    log.close()


def test_failed_preparation_is_made_good_by_the_rotation(directory: LogDirectory) -> None:
    log = directory.create()
    directory.fs.hook = fail_on("pwrite", ".tmp", FULL)
    fill(log, range(40), sync=False)
    join_preparation()
    assert directory.names("free") == []
    directory.fs.hook = None
    rotate(log)
    assert len(directory.segments()) == 2
    log.close()


def test_no_thread_can_be_started(directory: LogDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    log = directory.create()
    fill(log, range(200), sync=False)
    for _ in range(2):
        log.append(b"x", 0, 1, "interval")
        assert log.required_lsn == log.last_lsn, "its commit waits for a sync"
    log.close()


def test_recycled_bytes_never_pass(directory: LogDirectory) -> None:
    options = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)
    log = directory.create(options)
    fill(log, range(1, 70))
    before = len(directory.segments())
    freed = log.recycle(log.last_lsn)
    assert freed == (before - 1) * 4096
    assert directory.names("free") != []
    assert log.stats()["free_segments"] <= 2 + 1
    rotate(log)
    payloads = fill(log, range(70, 73))
    newest = directory.segments()[-1]
    assert len(directory.fs.read(newest).rstrip(b"\0")) > 3000  # its former life
    log, recovery = directory.reopen(applied=lsn(69))
    assert directory.payloads() == payloads
    assert recovery.cut is None
    log.close()


def test_recycling_keeps_what_is_needed(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 200), size=50)
    first = [int(path[-20:-4], 16) for path in directory.segments()]
    assert len(first) > 2
    assert log.recycle(lsn(1)) == 0
    assert log.recycle(lsn(first[2] - lsn(0) - 2)) == 4096
    assert log.first_lsn == first[1]
    log.recycle(lsn(10**6))
    assert len(directory.segments()) == 1
    assert log.first_lsn == first[-1]
    rotate(log)
    log.recycle(log.last_lsn)
    assert log.first_lsn == log.next_lsn == lsn(200)
    fill(log, range(200, 201))
    assert log.first_lsn == log.last_lsn == lsn(200)
    rotate(log)
    log.recycle(log.last_lsn)
    log.close()
    log, _ = directory.reopen(clean=lsn(200), applied=lsn(200))
    assert log.next_lsn == lsn(201)
    assert log.first_lsn == lsn(201)
    log.close()
    log, _ = directory.reopen(applied=lsn(200))  # the segment is of an epoch that is over
    assert log.first_lsn == log.next_lsn == lsn(201, 2)
    log.close()


def test_free_files_stay_within_their_limit(directory: LogDirectory) -> None:
    options = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096, free_segments_max=1)
    log = directory.create(options)
    fill(log, range(1, 300))
    log.close()
    log.recycle(log.last_lsn)
    assert len(directory.names("free")) == 1
    assert log.stats()["free_segments"] == 1
    assert log.stats()["free_bytes"] == 4096
    for number in range(50, 53):
        with open(f"{directory.path}/free-{number}.seg", "wb") as file:
            file.write(bytes(4096))
    log, _ = directory.reopen(clean=lsn(299), applied=lsn(299))
    assert len(directory.names("free")) == 1
    fill(log, range(200))
    log.close()


def test_an_idle_log_has_one_segment_and_one_spare_file(directory: LogDirectory) -> None:
    options = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)
    log = directory.create(options)
    fill(log, range(1, 300))
    join_preparation()
    log.recycle(lsn(200))
    assert len(directory.names("free")) == 2  # more may come soon
    log.recycle(log.last_lsn)
    assert len(directory.names("free")) == len(directory.segments()) == 1
    assert log.stats()["free_segments"] == 1
    fill(log, range(300, 500))
    assert log.last_lsn == lsn(499)
    log.close()


def test_each_recycled_name_is_durable_before_the_next(directory: LogDirectory) -> None:
    # Else a crash could keep an older segment and lose a newer one: a gap.
    log = directory.create()
    fill(log, range(1, 400))
    join_preparation()
    directory.fs.calls.clear()
    log.recycle(log.last_lsn)
    operations = [operation for operation, _ in directory.fs.calls]
    assert len(operations) > 2
    assert operations[1::2] == ["sync_dir"] * (len(operations) // 2)
    assert set(operations[::2]) <= {"rename", "unlink"}
    log.close()


def test_no_file_stays_open(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 400))
    list(log.read(NO_LSN))
    log.close()
    log, _ = directory.reopen()
    fill(log, range(3))
    log.close()
    assert directory.fs.open_files == 0


def test_failed_recycling_can_be_repeated(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 200))
    directory.fs.hook = fail_on("unlink", ".wal", BROKEN)
    with pytest.raises(StorageError, match="could not be recycled"):
        log.recycle(log.last_lsn)
    assert log.stats()["segments"] == len(directory.segments()) > 1
    directory.fs.hook = None
    log.recycle(log.last_lsn)
    assert log.stats()["segments"] == len(directory.segments()) == 1
    log.close()
    directory.reopen(clean=lsn(199), applied=lsn(199))[0].close()


# -- a full disk -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "suffix"),
    [
        ("open", ".tmp"),
        ("pwrite", ".tmp"),
        ("sync", ".tmp"),
        ("rename", ".seg"),
        ("pwrite", ".seg"),
        ("sync", ".seg"),
        ("rename", ".wal"),
    ],
)
def test_full_disk_at_rotation_refuses_and_goes_on(
    directory: LogDirectory, operation: str, suffix: str
) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    directory.fs.hook = fail_on(operation, suffix, FULL)
    for _ in range(2):
        with pytest.raises(DiskFullError):
            log.append(bytes(5000), 0, 1, "always")
    assert (log.last_lsn, log.failed) == (lsn(3), None)
    payloads += fill(log, range(4, 6))  # there is room for small ones
    directory.fs.hook = None
    payloads += fill(log, range(6, 7), size=5000)
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_full_disk_after_the_rename_takes_the_name_back(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    faults = iter([FULL])

    def once(operation: str, path: str) -> None:
        if operation == "sync_dir" and (fault := next(faults, None)):
            raise fault

    directory.fs.hook = once
    with pytest.raises(DiskFullError):
        rotate(log)
    assert len(directory.segments()) == 1
    payloads += fill(log, range(4, 6))
    rotate(log)
    payloads += fill(log, range(6, 8))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_name_that_cannot_be_taken_back_poisons(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 4))
    directory.fs.hook = fail_on("sync_dir", "", FULL)
    with pytest.raises(PoisonedError):
        rotate(log)
    directory.fs.hook = None
    with pytest.raises(PoisonedError):
        fill(log, range(1))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


@pytest.mark.parametrize("written", [0, 10, 50, 51, 59, 64, 72])
def test_full_disk_in_a_record_leaves_nothing_acceptable(
    directory: LogDirectory, written: int
) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 3))

    def full(operation: str, path: str) -> None:
        if operation == "pwrite" and path.endswith(".wal"):
            directory.fs.hook = None
            raise Partial(written, FULL)

    directory.fs.hook = full
    directory.fs.calls.clear()
    with pytest.raises(DiskFullError):
        log.append(b"refused", 0, 1, "always")
    assert log.last_lsn == lsn(2)
    name = segment_name(lsn(1))
    wiped = [("pwrite", name), ("sync", name)] if written > 50 else []
    assert directory.fs.calls == [("pwrite", name), *wiped]
    # A crash right now must not find the refused record.
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_log_goes_on_after_a_full_disk_in_a_record(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 3))
    for size in range(0, 60, 7):

        def full(operation: str, path: str, size: int = size) -> None:
            directory.fs.hook = None
            raise Partial(size, FULL)

        directory.fs.hook = full
        with pytest.raises(DiskFullError):
            log.append(b"refused", 0, 1, "always")
        payloads += fill(log, range(size, size + 1))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_whole_record_that_cannot_be_wiped_poisons(directory: LogDirectory) -> None:
    log = directory.create()

    def full(operation: str, path: str) -> None:
        raise Partial(64, FULL)

    directory.fs.hook = full
    with pytest.raises(CommitUnknownError):
        log.append(b"refused", 0, 1, "always")
    assert log.failed is FULL
    log.close()


# -- a failing device ------------------------------------------------------------------------


def test_failed_write_poisons(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 3))
    log.append(b"unsynced", 0, 1, "always")
    directory.fs.hook = fail_on("pwrite", ".wal", BROKEN)
    with pytest.raises(CommitUnknownError) as caught:
        log.append(b"x", 0, 1, "always")
    assert caught.value.__cause__ is BROKEN
    directory.fs.hook = None
    assert log.failed is BROKEN
    with pytest.raises(PoisonedError) as refused:
        log.append(b"x", 0, 1, "always")
    assert refused.value.__cause__ is BROKEN
    with pytest.raises(CommitUnknownError):
        log.wait(lsn(3))
    log.wait(lsn(2))  # that was acknowledged before
    directory.fs.calls.clear()
    log.close()
    assert directory.fs.calls == []


def test_a_write_that_was_interrupted_is_repeated(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 3))
    next_lsn = log.next_lsn

    def interrupt(operation: str, path: str) -> None:
        raise KeyboardInterrupt

    directory.fs.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        log.append(b"x", 0, 1, "always")
    directory.fs.hook = None
    for _ in range(2):
        assert log.append(b"x", 0, 1, "always", lsn=next_lsn) == next_lsn == log.last_lsn
    log.wait(next_lsn)
    log.close()
    directory.reopen()[0].close()
    assert len(directory.replayed) == 3


@pytest.mark.parametrize("suffix", [".wal", ".seg", ".tmp"])
def test_failed_sync_at_rotation_poisons(directory: LogDirectory, suffix: str) -> None:
    log = directory.create()
    log.append(b"x", 0, 1, "always")
    directory.fs.hook = fail_on("sync", suffix, BROKEN)
    with pytest.raises(PoisonedError):
        rotate(log)
    directory.fs.hook = None
    if suffix == ".wal":
        with pytest.raises(CommitUnknownError):
            log.wait(lsn(1))
    assert (log.durable_lsn == lsn(1)) == (suffix == ".seg")  # the old segment came first
    log.close()


def test_poisoned_while_a_segment_is_prepared_it_makes_no_new_one(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 3))

    def fail(operation: str, path: str) -> None:  # as the sync of another thread does
        if operation == "sync" and path.endswith(".seg.tmp"):
            log.poison(BROKEN)

    directory.fs.hook = fail
    before = directory.segments()
    with pytest.raises(PoisonedError):
        log.append(bytes(5000), 0, 1, "always")
    assert directory.segments() == before
    log.close()


def test_spare_files_that_became_too_small_are_removed(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 40))
    join_preparation()
    (small,) = directory.names("free")  # prepared, since half of the first segment is full
    fill(log, range(40, 41), size=9000)
    assert small not in directory.names("free")
    join_preparation()
    assert log.stats()["free_segments"] == len(directory.names("free"))
    log.close()


def test_new_segment_that_cannot_be_opened_loses_nothing(directory: LogDirectory) -> None:
    log = directory.create()
    payloads = fill(log, range(1, 3))
    directory.fs.hook = fail_on("open", ".wal", OSError(errno.EMFILE, "too many open files"))
    with pytest.raises(StorageError, match="too many"):
        rotate(log)
    directory.fs.hook = None
    payloads += fill(log, range(3, 5))
    rotate(log)
    payloads += fill(log, range(5, 6))
    log.close()
    directory.reopen()[0].close()
    assert directory.payloads() == payloads


def test_failed_sync_at_close_is_raised(directory: LogDirectory) -> None:
    log = directory.create()
    log.append(b"x", 0, 1, "os")
    directory.fs.hook = fail_on("sync", ".wal", BROKEN)
    with pytest.raises(CommitUnknownError):
        log.close()
    directory.fs.hook = None
    log.close()
    with pytest.raises(ClosedError):
        log.append(b"x", 0, 1, "os")


def test_closed_log_refuses(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 3))
    log.close()
    with pytest.raises(ClosedError):
        log.append(b"x", 0, 1, "os")
    log.wait(lsn(2))
    log, _ = directory.reopen()
    log.close()  # without a file in use
    with pytest.raises(ClosedError):
        log.append(b"x", 0, 1, "os")


def test_create_on_a_full_disk(directory: LogDirectory) -> None:
    directory.fs.hook = fail_on("pwrite", ".tmp", FULL)
    with pytest.raises(DiskFullError):
        directory.create()
    assert directory.fs.listdir(directory.path) == []


@pytest.mark.parametrize("fault", [FULL, BROKEN], ids=["full", "broken"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_any_call_may_fail(directory: LogDirectory, fault: OSError, lasting: bool) -> None:
    """What was acknowledged is there again after the k-th change of a file failed, for every k."""
    options = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)
    fs = directory.fs
    for k in itertools.count():
        for name in fs.listdir(directory.path):
            fs.unlink(f"{directory.path}/{name}")
        log = Log.create(fs, directory.path, database_id=DATABASE_ID, options=options)
        steps = itertools.count()
        hit: list[str] = []

        def fail(
            operation: str,
            path: str,
            steps: "itertools.count[int]" = steps,
            hit: list[str] = hit,
            k: int = k,
        ) -> None:
            step = next(steps)
            if step == k or (lasting and step > k):
                hit.append(f"{operation} {path}")
                raise fault

        fs.hook = fail
        sent: list[bytes] = []
        acknowledged = 0
        for number in range(1, 13):
            payload = b"%06d" % number + bytes(700)
            try:
                found = log.append(payload, number, 1, "always")
                sent.append(payload)
                log.wait(found)
                acknowledged = number if len(sent) == number else acknowledged
            except AmberError:
                if log.failed is not None:
                    break
            acknowledged = sum(1 for n in range(len(sent)) if log.durable_lsn >= lsn(n + 1))
        fs.hook = None
        log.close()
        directory.options = options
        directory.epoch = 1
        log, _ = directory.reopen()
        found_payloads = directory.payloads()
        # One record may be there that was neither acknowledged nor refused for certain.
        assert found_payloads[: len(sent)] == sent[: len(found_payloads)], (k, hit)
        assert acknowledged <= len(found_payloads) <= len(sent) + 1, (k, hit)
        fill(log, range(1))
        log.close()
        if not hit:
            assert k > 40
            return


def test_defaults_are_those_of_the_documents() -> None:
    options = LogOptions()
    assert (options.segment_bytes_min, options.segment_bytes_max) == (1 << 20, 16 << 20)
    assert SMALL.sync_interval_ms == options.sync_interval_ms == 100
