"""The queue of background jobs: one at a time, in order, ended by close()."""

import logging
import threading
from collections.abc import Callable, Generator

import pytest

from amberdb import StorageError
from amberdb.engine.jobs import Jobs, Stop, Stopped, check_stop

WAIT_S = 30


@pytest.fixture
def jobs() -> Generator[Jobs]:
    jobs = Jobs("test")
    yield jobs
    jobs.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "amberdb-test"]


def waiting() -> tuple[Callable[[Stop], None], threading.Event, threading.Event]:
    """A job that waits, the event of its start, and the event that ends it."""
    started, end = threading.Event(), threading.Event()

    def job(stop: Stop) -> None:
        started.set()
        assert end.wait(WAIT_S)

    return job, started, end


def test_jobs_run_one_after_the_other_and_the_thread_ends(jobs: Jobs) -> None:
    assert threads() == []
    first, started, end = waiting()
    ran: list[int] = []
    done = threading.Event()
    jobs.want(first, "a job")
    assert started.wait(WAIT_S)
    (thread,) = threads()
    jobs.want(second := lambda stop: ran.append(2), "a job")
    jobs.want(second, "a job")  # queued once
    jobs.want(lambda stop: done.set(), "a job")
    assert not done.is_set()
    assert ran == []
    end.set()
    assert done.wait(WAIT_S)
    assert ran == [2]
    thread.join(WAIT_S)
    assert threads() == []


def test_a_job_that_fails_stops_no_other(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()

    def failing(error: Exception) -> Callable[[Stop], None]:
        def job(stop: Stop) -> None:
            raise error

        return job

    with caplog.at_level(logging.WARNING, "amberdb.engine"):
        for error in (StorageError("no room"), ValueError("a bug"), Stopped("silent")):
            jobs.want(failing(error), "a job")
        jobs.want(lambda stop: done.set(), "a job")
        assert done.wait(WAIT_S)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "no room" in caplog.text
    assert "silent" not in caplog.text


def test_close_stops_the_running_job_and_drops_the_others(jobs: Jobs) -> None:
    started = threading.Event()
    ran: list[str] = []

    def job(stop: Stop) -> None:
        started.set()
        while True:
            check_stop(stop)

    jobs.want(job, "a job")
    jobs.want(lambda stop: ran.append("queued"), "a job")
    assert started.wait(WAIT_S)
    jobs.close()
    assert threads() == []
    jobs.want(lambda stop: ran.append("late"), "a job")
    jobs.run()
    assert ran == []


def test_without_a_thread_jobs_wait_for_run_which_raises() -> None:
    jobs = Jobs("test", background=False)
    ran: list[int] = []

    def failing(stop: Stop) -> None:
        raise StorageError("no room")

    jobs.want(lambda stop: ran.append(1), "a job")
    jobs.want(failing, "a job")
    jobs.want(lambda stop: ran.append(2), "a job")
    assert (ran, threads()) == ([], [])
    with pytest.raises(StorageError):
        jobs.run()
    assert ran == [1]
    jobs.run()
    assert ran == [1, 2]


def test_run_and_alone_wait_for_the_running_job(jobs: Jobs) -> None:
    job, started, end = waiting()
    order: list[str] = []
    jobs.want(job, "a job")
    assert started.wait(WAIT_S)

    def wait_for_it() -> None:
        jobs.run()
        order.append("run")
        with jobs.alone():
            jobs.want(lambda stop: order.append("job"), "a job")
            order.append("alone")

    waiter = threading.Thread(target=wait_for_it)
    waiter.start()
    assert order == []
    end.set()
    waiter.join(WAIT_S)
    jobs.run()
    assert order == ["run", "alone", "job"]
