"""The threads of one database, which run blocking calls for an event loop.

Invariants:
- A cancelled await ends after its call has ended, or was removed from the queue before it started:
  when a task gets the CancelledError, nothing runs for it any more.
- Reads, writes and the transaction have separate threads: a write that waits for the writer lock
  delays no read, and never the transaction that holds the lock.
- As many writes as there are write threads share a sync.
- Where no thread can be had, a call runs in the thread of the event loop: once, as always.
"""

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

from amberdb import BusyError, ClosedError, NoThreadWarning, TransactionError

R = TypeVar("R")

Lane: TypeAlias = Literal["read", "write", "transaction"]

READ_THREADS: Final = 8
WRITE_THREADS: Final = 16


@final
class Turn:
    """The right of one task to use the transaction thread."""

    def __init__(self, threads: "Threads") -> None:
        self.threads = threads
        self.is_over = False

    def end(self) -> None:
        """Passes the turn to the next task."""
        self.is_over = True
        _turns.set(tuple(turn for turn in _turns.get() if turn is not self))
        self.threads.end_turn()


_turns: ContextVar[tuple[Turn, ...]] = ContextVar("amberdb_turns", default=())
"""Open turns of this task and of the tasks that started it."""


@final
class Threads:
    """Thread pools that start threads on demand. Raises ValueError."""

    def __init__(
        self, read_threads: int = READ_THREADS, write_threads: int = WRITE_THREADS
    ) -> None:
        sizes: dict[Lane, int] = {"read": read_threads, "write": write_threads, "transaction": 1}
        self._pools = {
            lane: ThreadPoolExecutor(size, f"amberdb-{lane}") for lane, size in sizes.items()
        }
        self._gate = asyncio.Lock()
        self._has_warned = False
        self.is_closed = False

    async def turn(self, timeout_ms: int) -> Turn:
        """Waits until this task may open a transaction. Raises BusyError, TransactionError."""
        self._refuse_inside()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._gate.acquire()
        except TimeoutError:
            raise BusyError(
                f"another task's transaction was open for {timeout_ms} ms: try again, or shorten "
                "the transactions",
                timeout_s=timeout_ms / 1000,
            ) from None
        turn = Turn(self)
        _turns.set((*_turns.get(), turn))
        return turn

    def end_turn(self) -> None:
        self._gate.release()

    async def run(
        self,
        lane: Lane,
        call: Callable[[], R],
        *,
        undo: Callable[[R], object] | None = None,
        must: bool = False,
        on_cancel: Callable[[], object] | None = None,
    ) -> R:
        """Runs the call in a thread of the lane; its result, or the exception that it raised.

        undo        is called with the result when the await was cancelled, so that it is released
        must        the call runs even when the await is cancelled before it started
        on_cancel   is called when the await is cancelled while the call runs, to end it early

        Raises ClosedError, and TransactionError for a write in a task that has an open
        transaction.
        """
        if lane == "write":
            self._refuse_inside()
        future = self._submit(lane, call)
        try:
            await _ended(future)
        except asyncio.CancelledError as cancelled:
            if not must and future.cancel():
                raise
            if on_cancel is not None:
                on_cancel()
            await _surely_ended(future)
            failure = future.exception()
            if failure is None and undo is not None:
                result = future.result()
                await _surely_ended(self._submit(lane, lambda: undo(result)))
            raise cancelled from failure
        return future.result()

    def close(self) -> None:
        """The threads end when their queues are empty."""
        self.is_closed = True
        for pool in self._pools.values():
            pool.shutdown(wait=False)

    def _refuse_inside(self) -> None:
        if any(turn.threads is self and not turn.is_over for turn in _turns.get()):
            raise TransactionError(
                "this task is inside its own open transaction: write through it (tx[name]), or "
                "leave it first"
            )

    def _submit(self, lane: Lane, call: Callable[[], R]) -> "Future[R]":
        if self.is_closed:
            raise ClosedError("the database is closed: open it again")
        future: Future[R] = Future()
        unclaimed = threading.Lock()

        def work() -> None:
            if not unclaimed.acquire(False) or not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        try:
            self._pools[lane].submit(work)
        except (RuntimeError, MemoryError) as error:
            # The pool has queued the call before it failed to start a thread for it.
            self._warn(error)
            work()
        return future

    def _warn(self, error: Exception) -> None:
        if not self._has_warned and "shutdown" not in str(error):
            self._has_warned = True
            warnings.warn(
                f"no thread could be started ({error}): calls run in the thread of the event loop, "
                "and it waits for them. Raise the limit of threads (ulimit -u, pids.max)",
                NoThreadWarning,
                stacklevel=4,
            )


async def alone(call: Callable[[], R], *, on_cancel: Callable[[], object] | None = None) -> R:
    """Runs one call in its own thread, with the rules of Threads.run()."""
    threads = Threads()
    try:
        return await threads.run("write", call, on_cancel=on_cancel)
    finally:
        threads.close()


async def _ended(future: "Future[Any]") -> None:
    """Returns when the future is done; may be cancelled, which does not cancel the future."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(_settle, waiter)
        except RuntimeError:
            pass  # the loop is closed: no task waits

    future.add_done_callback(wake)
    await waiter


async def _surely_ended(future: "Future[Any]") -> None:
    """Returns when the future is done, even when it is cancelled meanwhile."""
    while not future.done():
        try:
            await _ended(future)
        except asyncio.CancelledError:
            pass


def _settle(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
