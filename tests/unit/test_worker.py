"""Workers: one thread on demand, and the calling thread where none can be had."""

import threading
import warnings
from collections.abc import Generator

import pytest

from amberdb import NoThreadWarning
from amberdb._worker import FOREVER, Worker, in_parallel, long_work

WAIT_S = 30


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Generator[pytest.MonkeyPatch]:
    """No thread can be started."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("amberdb._worker._warned", False)
    with monkeypatch.context() as none:
        none.setattr(threading.Thread, "start", refuse)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoThreadWarning)
            yield none


def test_the_caller_does_what_is_due_and_the_next_one_starts_the_thread(
    no_threads: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    in_thread = threading.Event()

    def step() -> float | None:
        ran.append(threading.current_thread().name)
        if ran[-1] == "amberdb-test":
            in_thread.set()
        return 0.0 if len(ran) == 1 else None

    worker = Worker("amberdb-test", step)
    assert not worker.wake()
    assert ran == [threading.current_thread().name] * 2, "as long as something is due"
    no_threads.undo()
    assert worker.wake()
    assert in_thread.wait(WAIT_S)
    worker.close()
    assert not worker.wake()


def test_it_warns_once_and_again_when_there_was_a_thread_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr("amberdb._worker._warned", False)
    workers = [Worker(f"amberdb-{n}", lambda: FOREVER) for n in range(3)]
    for _ in range(2):
        with monkeypatch.context() as none:
            none.setattr(threading.Thread, "start", refuse)
            with pytest.warns(NoThreadWarning) as caught:
                woken = [worker.wake() for worker in workers[1:]]
        assert woken == [False, False]
        assert len(caught) == 1
        assert workers[0].wake()
        workers[0].close()
        workers[0] = Worker("amberdb-0", lambda: FOREVER)


@pytest.mark.usefixtures("no_threads")
def test_a_warning_that_is_an_error_fails_no_call() -> None:
    ran: list[int] = []

    def step() -> None:
        ran.append(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", NoThreadWarning)
        assert not Worker("amberdb-test", step).wake()
    assert ran == [1]


@pytest.mark.usefixtures("no_threads")
def test_no_step_runs_where_the_caller_may_hold_its_locks() -> None:
    ran: list[int] = []

    def step() -> None:
        ran.append(1)
        worker.wake()  # as a commit inside of it does

    worker = Worker("amberdb-test", step, lambda: is_outside)
    is_outside = True
    with long_work():
        worker.wake()
    assert ran == []
    is_outside = False
    worker.wake()
    assert ran == []
    is_outside = True
    worker.wake()
    assert ran == [1]


@pytest.mark.usefixtures("no_threads")
def test_close_waits_for_the_step_of_another_caller(no_threads: pytest.MonkeyPatch) -> None:
    running, end = threading.Event(), threading.Event()

    def step() -> None:
        running.set()
        assert end.wait(WAIT_S)

    worker = Worker("amberdb-test", step)
    no_threads.undo()
    caller = threading.Thread(target=lambda: worker.wake(), name="caller")
    closer = threading.Thread(target=worker.close, name="closer")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("amberdb"):
            raise RuntimeError("can't start new thread")
        start(thread)

    no_threads.setattr(threading.Thread, "start", refuse)
    caller.start()
    assert running.wait(WAIT_S)
    assert not worker.wake(), "one thread at a time"
    worker.close(0.01)
    closer.start()
    assert closer.is_alive()
    end.set()
    for thread in (caller, closer):
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("threads", [True, False])
def test_calls_in_parallel_all_end_and_the_first_error_is_raised(
    monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    if not threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    ran: list[int] = []
    in_parallel([lambda n=n: ran.append(n) for n in range(3)], "amberdb-test")  # type: ignore[misc]
    assert sorted(ran) == [0, 1, 2]

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_parallel([fails, lambda: ran.append(3), lambda: ran.append(4)], "amberdb-test")
    assert sorted(ran) == [0, 1, 2, 3, 4]
