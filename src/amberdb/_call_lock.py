"""Locks that no call leaves behind, whatever interrupts it.

    with lock: ...                              held by the frame of this statement
    lock.acquire(holder, timeout_s)             held by any Holder, until lock.release(holder)

The stop button of a notebook, a signal handler or a debugger can raise an exception between the
step that takes a lock and the `with` or `finally` that would release it. Here one atomic step both
takes the lock and records the holder, the frame of the call. A thread that finds the lock held by a
frame that has ended takes it over, so what a CallLock guards has to be whole at every line, or be
completed by its next holder.

Invariants:
- The holder is the only value of a dict: `setdefault` takes the lock, `clear` releases it, each in
  one step of the interpreter.
- A frame that executes cannot be cleared: `frame.clear()` raises RuntimeError. A frame that has
  ended can, in whichever thread, living or not, it ran. A generator does not hold a lock while it
  is suspended.
- A thread waits for at most _LOOK_S before it looks at the holder again: a wake-up that an
  interrupted thread did not pass on is made good then.
"""

import sys
import time
from _thread import LockType, allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, Protocol, TypeAlias, final

_LOOK_S: Final = 0.05
_UNFAIR_S: Final = 0.01
"""The longest time that others may take the lock before a thread that waits."""
_SUSPENDS: Final = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR

current_frame: Final = sys._getframe  # pyright: ignore[reportPrivateUsage]
"""current_frame(1) is the frame of the caller."""


class LongHolder(Protocol):
    """A holder that outlives the call that took the lock."""

    def has_ended(self) -> bool: ...


Holder: TypeAlias = FrameType | LongHolder


def has_ended(holder: Holder) -> bool:
    """Whether a holder will never release what it holds."""
    if not isinstance(holder, FrameType):
        return holder.has_ended()
    if holder.f_code.co_flags & _SUSPENDS:  # it may be suspended, and clear() would end it
        return False
    try:
        holder.clear()
    except RuntimeError:
        return False
    return True


@final
class CallLock:
    """A lock for the length of one call. Not reentrant."""

    __slots__ = ("_heirs", "_holder", "_waiting")

    def __init__(self) -> None:
        self._holder: dict[None, Holder] = {}
        self._heirs: dict[Holder, Holder] = {}
        """By holder that has ended, who drops it."""
        self._waiting: deque[Waiter] = deque()

    def __enter__(self) -> None:
        frame = current_frame(1)
        if self._holder.setdefault(None, frame) is not frame:
            self._wait(Waiter(frame), None)

    def __exit__(self, *_: object) -> None:
        self._release()

    def acquire(self, holder: Holder, timeout_s: float | None = None) -> bool:
        """Whether the lock is the holder's now; False after `timeout_s`."""
        if self._holder.setdefault(None, holder) is holder:
            return True
        return self._wait(Waiter(holder), timeout_s)

    def try_acquire(self, holder: Holder) -> bool:
        """acquire() without waiting."""
        if self._holder.setdefault(None, holder) is holder:
            return True
        self._drop_ended()
        return self._holder.setdefault(None, holder) is holder

    def wait(self, waiter: "Waiter", timeout_s: float) -> bool:
        """acquire() for the holder of a waiter; False also when the waiter was served."""
        return self._wait(waiter, timeout_s)

    def release(self, holder: Holder) -> None:
        """Does nothing when another holder has taken the lock over."""
        if self._holder.get(None) is holder:
            self._release()

    def hand_to(self, holder: Holder) -> None:
        """Makes `holder` the holder; the caller holds the lock."""
        self._holder[None] = holder

    def waiters(self) -> "list[Waiter]":
        """Those who wait for the lock, in the order in which they came."""
        return list(self._waiting) if self._waiting else []

    def choose(self, waiter: "Waiter") -> bool:
        """Whether a waiter was still waiting. If so, the caller, who holds the lock, serves it:
        nobody else wakes it meanwhile, and it does not give up."""
        waiter.server = self._holder.get(None)
        return _forget(self._waiting, waiter)

    def is_of(self, holder: Holder) -> bool:
        """Whether this is the holder."""
        return self._holder.get(None) is holder

    @property
    def is_held(self) -> bool:
        return self.holder is not None

    @property
    def holder(self) -> Holder | None:
        """Who holds the lock; None: nobody, or a call that was interrupted."""
        holder = self._holder.get(None)
        return None if holder is None or has_ended(holder) else holder

    def _release(self) -> None:
        waiting = self._waiting
        if waiting and self._hand_over(waiting):
            return
        self._holder.clear()
        if waiting:  # also who began to wait before clear()
            _wake_one(waiting)

    def _hand_over(self, waiting: "deque[Waiter]") -> bool:
        """Makes the thread that waits longest the holder, if that is long: a thread that takes the
        lock again at once would keep it for ever, since it has the interpreter."""
        try:
            waiter = waiting[0]
            if time.monotonic() - waiter.since < _UNFAIR_S:
                return False
            waiting.remove(waiter)
        except (IndexError, ValueError):  # it has given up
            return False
        self._holder[None] = waiter.holder
        waiter.wake()
        return True

    def _wait(self, waiter: "Waiter", timeout_s: float | None) -> bool:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        holder = waiter.holder
        waiting = self._waiting
        waiting.append(waiter)  # before the next try: a release before it is seen there
        while True:
            self._drop_ended()
            if waiter.is_served:
                return False
            if self._holder.setdefault(None, holder) is holder:  # taken, or handed over
                _forget(waiting, waiter)
                return True
            left_s = _LOOK_S if until is None else min(_LOOK_S, until - time.monotonic())
            if left_s <= 0:
                if _forget(waiting, waiter):
                    return False
                left_s = _LOOK_S  # this thread was chosen meanwhile: to hold, or to be served
            is_woken = waiter.gate.acquire(timeout=left_s)
            if self.is_of(holder) or waiter.is_served or waiter in waiting:
                continue
            if is_woken or waiter.server is not self._holder.get(None):
                waiting.appendleft(waiter)  # woken in vain, or its server was interrupted

    def _drop_ended(self) -> None:
        """Releases the lock when its holder has ended."""
        holder = self._holder.get(None)
        if holder is None or not has_ended(holder):
            return
        # One thread drops it: else a second one would drop who has taken the lock since. The thread
        # has the frame of this call, so that one which is interrupted in here has an heir too.
        heir = self._heirs.setdefault(holder, current_frame())
        while heir is not current_frame() and has_ended(heir):
            heir = self._heirs.setdefault(heir, current_frame())
        if heir is current_frame():
            if self._holder.get(None) is holder:
                self._holder.clear()
            self._heirs.pop(holder, None)
        del heir  # a frame that names itself is garbage in a cycle


@final
class NestedCallLock:
    """A CallLock that a call may take again while an outer call of its thread holds it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = CallLock()

    def __enter__(self) -> None:
        frame = current_frame(1)
        outer = self._lock.holder
        if not (isinstance(outer, _ThreadCall) and outer.thread == get_ident()):
            self._lock.acquire(_ThreadCall(frame, get_ident()))

    def __exit__(self, *_: object) -> None:
        holder = self._lock.holder
        if isinstance(holder, _ThreadCall) and holder.frame is current_frame(1):
            self._lock.release(holder)


class _ThreadCall:
    """A frame, and the thread that it runs in."""

    __slots__ = ("frame", "thread")

    def __init__(self, frame: FrameType, thread: int) -> None:
        self.frame = frame
        self.thread = thread

    def has_ended(self) -> bool:
        return has_ended(self.frame)


class Waiter:
    """A thread that waits, blocked on a lock of its own."""

    __slots__ = ("gate", "holder", "is_served", "server", "since")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.server: Holder | None = None
        """Who has chosen to serve this thread."""
        self.is_served = False
        """The thread that holds the lock has done what this one wants the lock for."""
        self.since = time.monotonic()
        self.gate = allocate_lock()
        self.gate.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self.gate.release()


@final
class Signal:
    """Threads wait here for a change that other threads make and announce. It has no lock: no
    interrupted call can block it."""

    __slots__ = ("_gates",)

    def __init__(self) -> None:
        self._gates: deque[LockType] = deque()

    def announce(self) -> None:
        """Lets every waiting thread look at its condition again."""
        gates = self._gates
        with suppress(IndexError):
            for _ in range(len(gates)):  # not those that look, and wait again
                gates.popleft().release()

    def wait_for(self, is_so: Callable[[], bool], timeout_s: float | None) -> bool:
        """Returns whether the condition came true; False after `timeout_s`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not is_so():
            gate = allocate_lock()
            gate.acquire()
            self._gates.append(gate)  # before the next look: a change before it is seen there
            left_s = -1 if until is None else max(0.0, until - time.monotonic())
            if is_so() or not gate.acquire(timeout=left_s):
                with suppress(ValueError):
                    self._gates.remove(gate)
                return is_so()
        return True


def _wake_one(waiting: deque[Waiter]) -> None:
    try:
        waiting.popleft().wake()
    except IndexError:  # another thread was faster
        pass


def _forget(waiting: deque[Waiter], waiter: Waiter) -> bool:
    """Whether nobody had chosen the waiter yet."""
    try:
        waiting.remove(waiter)
    except ValueError:
        return False
    return True
