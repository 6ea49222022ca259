"""Group commit, and the thread of "interval"."""

import errno
import logging
import threading
from collections.abc import Callable

import pytest

from amberdb._errors import CommitUnknownError, PoisonedError
from amberdb.wal import LogOptions
from support.faulty_fs import fail_on
from unit.wal.helpers import LogDirectory, fill, lsn, rotate

BROKEN = OSError(errno.EIO, "injected")


class Gate:
    """Lets a sync wait until the test opens it."""

    def __init__(self, fault: OSError | None = None) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.fault = fault

    def __call__(self, operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".wal"):
            self.entered.release()
            self.open.acquire()
            if self.fault is not None:
                raise self.fault


def start(*works: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def test_alone_it_syncs_in_its_own_thread(directory: LogDirectory) -> None:
    log = directory.create()
    syncing: list[int] = []

    def hook(operation: str, path: str) -> None:
        if operation == "sync":
            syncing.append(threading.get_ident())

    directory.fs.hook = hook
    log.wait(log.append(b"x", 0, 1, "always"))
    assert syncing == [threading.get_ident()]
    log.wait(lsn(1))
    log.sync()
    assert len(syncing) == 1
    stats = log.stats()
    assert stats["records_per_sync"] == 1
    assert stats["sync_us_max"] == stats["sync_us_last"] > 0
    log.close()


def test_one_sync_serves_all_who_wait(directory: LogDirectory) -> None:
    log = directory.create()
    gate = Gate()
    directory.fs.hook = gate
    first = log.append(b"first", 0, 1, "always")
    threads = start(lambda: log.wait(first))
    gate.entered.acquire()  # the leader syncs; what comes now needs the next sync
    later = [log.append(b"later", 0, 1, "always") for _ in range(7)]
    returned: list[int] = []

    def follow(found: int) -> None:
        log.wait(found)
        assert log.durable_lsn >= found
        returned.append(found)

    threads += start(*(lambda found=found: follow(found) for found in later))
    gate.open.release()
    gate.entered.acquire()
    assert log.durable_lsn == first
    assert returned == []
    gate.open.release()
    for thread in threads:
        thread.join()
    assert sorted(returned) == later
    assert log.stats()["syncs"] == 2
    assert log.stats()["records_per_sync"] == 4
    log.close()


def test_eight_threads(directory: LogDirectory) -> None:
    log = directory.create()
    writer = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                with writer:
                    found = log.append(b"payload", 0, 1, "always")
                log.wait(found)
                assert log.durable_lsn >= found
        except BaseException as error:
            errors.append(error)

    for thread in start(*[work] * 8):
        thread.join()
    assert errors == []
    assert log.durable_lsn == log.last_lsn == lsn(400)
    directory.reopen()[0].close()
    assert len(directory.replayed) == 400
    log.close()


def test_failed_sync_reaches_every_waiter(directory: LogDirectory) -> None:
    log = directory.create()
    fill(log, range(1, 2))
    gate = Gate(BROKEN)
    directory.fs.hook = gate
    raised: list[BaseException | None] = []

    def wait(found: int) -> None:
        try:
            log.wait(found)
        except CommitUnknownError as error:
            raised.append(error.__cause__)

    found = [log.append(b"x", 0, 1, "always") for _ in range(4)]
    threads = start(*(lambda f=f: wait(f) for f in found))
    gate.entered.acquire()
    gate.open.release()
    for thread in threads:
        thread.join()
    assert raised == [BROKEN] * 4
    assert (log.failed, log.durable_lsn) == (BROKEN, lsn(1))
    directory.fs.hook = None  # a later sync would succeed, and prove nothing
    with pytest.raises(CommitUnknownError):
        log.sync()
    with pytest.raises(PoisonedError):
        log.append(b"x", 0, 1, "os")
    log.close()
    assert log.durable_lsn == lsn(1)


def test_interrupted_leader_hands_over(directory: LogDirectory) -> None:
    log = directory.create()
    found = log.append(b"x", 0, 1, "always")

    def interrupt(operation: str, path: str) -> None:
        directory.fs.hook = None
        raise KeyboardInterrupt

    directory.fs.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        log.wait(found)
    assert log.failed is None
    log.wait(found)
    assert log.durable_lsn == found
    log.close()


class _InterruptedGate:
    """Of a waiter that is interrupted: at once, or when the leader has just handed over to it."""

    def __init__(self, until: Callable[[], None]) -> None:
        self._until = until
        self._acquired = False

    def acquire(self, timeout: float = -1) -> None:
        if self._acquired:
            self._until()
            raise KeyboardInterrupt
        self._acquired = True

    def release(self) -> None: ...


@pytest.mark.parametrize("chosen", [False, True], ids=["waiting", "chosen to lead"])
def test_interrupted_waiter_leaves_the_others_to_go_on(
    directory: LogDirectory, monkeypatch: pytest.MonkeyPatch, chosen: bool
) -> None:
    log = directory.create()
    first = log.append(b"x", 0, 1, "os")
    gate = Gate()
    directory.fs.hook = gate
    leader = threading.Thread(target=log.wait, args=(first,))
    leader.start()
    gate.entered.acquire()
    second = log.append(b"y", 0, 1, "os")

    def until() -> None:
        if chosen:
            directory.fs.hook = None
            gate.open.release()
            leader.join()

    with monkeypatch.context() as patch:
        patch.setattr("amberdb.wal.group_commit.allocate_lock", lambda: _InterruptedGate(until))
        with pytest.raises(KeyboardInterrupt):
            log.wait(second)
    directory.fs.hook = None
    gate.open.release()
    leader.join()
    log.wait(second)
    assert log.durable_lsn == second
    log.close()


def test_rotation_waits_for_the_leader(directory: LogDirectory) -> None:
    log = directory.create()
    gate = Gate()
    directory.fs.hook = gate
    found = log.append(b"x", 0, 1, "always")
    threads = start(lambda: log.wait(found))
    gate.entered.acquire()
    threads += start(lambda: rotate(log))
    gate.open.release()
    for thread in threads:
        thread.join()
    assert len(directory.segments()) == 2
    assert log.stats()["syncs"] == 1
    directory.fs.hook = None
    fill(log, range(2, 4))
    log.close()


def test_lsn_that_was_not_appended(directory: LogDirectory) -> None:
    log = directory.create()
    with pytest.raises(ValueError, match="was not appended"):
        log.wait(lsn(1))
    log.close()


def test_slow_sync_is_logged(directory: LogDirectory, caplog: pytest.LogCaptureFixture) -> None:
    log = directory.create(LogOptions(segment_bytes_min=4096, slow_sync_ms=0))
    with caplog.at_level(logging.WARNING, "amberdb.wal"):
        fill(log, range(1))
    assert "slow sync" in caplog.text
    log.close()


# -- interval --------------------------------------------------------------------------------


def interval_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "amberdb-wal-interval"]


def test_interval_syncs_by_itself_and_ends_at_close(directory: LogDirectory) -> None:
    log = directory.create(LogOptions(segment_bytes_min=4096, sync_interval_ms=1))
    assert interval_threads() == []
    synced = threading.Semaphore(0)

    def hook(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith(".wal"):
            assert threading.current_thread().name == "amberdb-wal-interval"
            synced.release()

    directory.fs.hook = hook
    for number in range(1, 4):
        log.append(b"x", 0, 1, "interval")
        assert log.required_lsn < lsn(1)
        synced.acquire()
        with log._group.lead():  # pyright: ignore[reportPrivateUsage]
            assert log.durable_lsn == lsn(number)
        # Nothing is unsynced: the thread sleeps until the next append wakes it.
        assert not log._interval.armed  # pyright: ignore[reportPrivateUsage]
    assert len(interval_threads()) == 1
    log.close()
    assert interval_threads() == []


def test_many_appends_share_an_interval(directory: LogDirectory) -> None:
    log = directory.create(LogOptions(segment_bytes_min=8192, sync_interval_ms=60_000))
    for _ in range(20):
        log.append(b"x", 0, 1, "interval")
    assert log.durable_lsn < lsn(1)
    assert len(interval_threads()) == 1
    log.close()  # does not wait for the minute
    assert log.durable_lsn == lsn(20)
    assert log.stats()["syncs"] == 1


def test_failed_sync_of_the_interval_poisons(directory: LogDirectory) -> None:
    log = directory.create(LogOptions(segment_bytes_min=4096, sync_interval_ms=1))
    failed = threading.Event()
    fail = fail_on("sync", ".wal", BROKEN)

    def hook(operation: str, path: str) -> None:
        if operation == "sync":
            failed.set()
        fail(operation, path)

    directory.fs.hook = hook
    log.append(b"x", 0, 1, "interval")
    failed.wait()
    with log._group.lead():  # pyright: ignore[reportPrivateUsage]
        assert log.failed is BROKEN
    with pytest.raises(PoisonedError):
        log.append(b"x", 0, 1, "interval")
    log.close()
