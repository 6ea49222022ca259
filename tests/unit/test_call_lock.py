"""Locks that an interrupted call cannot leave behind."""

import sys
import threading
from collections.abc import Callable, Generator

import pytest

from amberdb._call_lock import CallLock, NestedCallLock, Signal, current_frame, has_ended
from support.beside import beside
from support.interrupts import interrupted_at


class Ended:
    """A holder that ends when it is told to."""

    def __init__(self) -> None:
        self.is_over = False

    def has_ended(self) -> bool:
        return self.is_over


def left_by_a_call(lock: CallLock) -> None:
    """Takes the lock and forgets to release it, as an interrupted call does."""
    lock.acquire(current_frame())


def in_thread(call: Callable[[], object]) -> bool:
    """Whether the call ended within 10 s in another thread."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_frame_that_executes_has_not_ended() -> None:
    assert not has_ended(current_frame())

    def inner() -> None:
        assert not has_ended(current_frame(1))

    inner()
    there: list[bool] = []
    frame = current_frame()
    assert in_thread(lambda: there.append(has_ended(frame)))
    assert there == [False]


def test_a_generator_that_is_suspended_is_left_alone() -> None:
    def numbers() -> Generator[int]:
        yield 1
        yield 2

    generator = numbers()
    assert next(generator) == 1
    assert not has_ended(getattr(generator, "gi_frame"))  # noqa: B009
    assert next(generator) == 2


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_a_call_left_is_taken_over(elsewhere: bool) -> None:
    lock = CallLock()
    if elsewhere:
        assert in_thread(lambda: left_by_a_call(lock))
    else:
        left_by_a_call(lock)
    assert lock.holder is None

    def use() -> None:
        with lock:
            assert lock.holder is not None

    use()
    left_by_a_call(lock)
    assert in_thread(use)


def test_taking_over_can_be_interrupted_at_any_line() -> None:
    number = 0
    place: str | None = ""
    while place is not None:
        lock = CallLock()
        left_by_a_call(lock)

        def use(lock: CallLock = lock) -> None:
            lock.acquire(current_frame(), 5)
            lock.release(current_frame())

        place = interrupted_at(number, use)
        assert in_thread(use), place
        assert not lock.is_held
        number += 1
    assert number > 20


def test_a_traceback_that_is_kept_keeps_no_lock() -> None:
    lock = CallLock()

    def interrupted() -> None:
        lock.acquire(current_frame())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert caught.tb is not None
    with lock:
        pass


def test_a_holder_is_waited_for_until_it_releases_or_ends() -> None:
    lock = CallLock()
    holder, other = Ended(), Ended()
    assert lock.acquire(holder)
    assert not lock.acquire(other, 0.01)
    done = threading.Event()

    def use() -> None:
        with lock:
            done.set()

    thread = threading.Thread(target=use)
    thread.start()
    assert not done.wait(0.05)
    lock.release(other)  # not its own
    assert not done.wait(0.05)
    lock.release(holder)
    assert done.wait(10)
    thread.join()
    assert lock.acquire(holder)
    holder.is_over = True
    assert lock.acquire(other, 0)
    lock.release(holder)  # too late: another one has it
    assert lock.is_of(other)


def test_threads_exclude_each_other() -> None:
    lock, count, failed = CallLock(), [0], list[str]()

    def work() -> None:
        for _ in range(2000):
            with lock:
                before = count[0]
                count[0] = before + 1
                if count[0] != before + 1:
                    failed.append("two at once")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (count, failed) == ([8000], [])


def test_a_nested_lock_is_released_by_the_outer_call() -> None:
    lock = NestedCallLock()
    entered = threading.Event()

    def use() -> None:
        with lock:
            entered.set()

    def inner() -> None:
        with lock:
            pass

    with lock:
        inner()
        thread = threading.Thread(target=use)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    thread.join()


def test_a_signal_wakes_all_who_wait_and_times_out() -> None:
    signal, value = Signal(), [0]
    assert not signal.wait_for(lambda: value[0] > 0, 0.01)
    assert signal.wait_for(lambda: True, 0)
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(signal.wait_for(lambda: value[0] > 0, 10)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    value[0] = 1
    signal.announce()
    for thread in threads:
        thread.join()
    assert results == [True] * 3


def test_a_thread_that_takes_the_lock_again_and_again_keeps_nobody_out() -> None:
    lock, frame, taken = CallLock(), current_frame(), 0

    def greedy() -> None:
        with lock:
            sum(range(2000))

    with beside(greedy, greedy):
        for _ in range(20):
            if lock.acquire(frame, 5):
                taken += 1
                lock.release(frame)
    assert taken == 20
