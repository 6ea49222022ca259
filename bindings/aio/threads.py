"""Threads of one database, where blocking calls run while an event loop goes on.

Invariants:
- A cancelled await ends when its call has ended, or was taken back before it began: whoever gets
  the CancelledError knows that nothing goes on behind it.
- Reads, writes and the transaction have threads of their own: a writer that waits for the writer
  lock holds up no read, and never the transaction that has the lock.
- As many writes as there are threads for them wait for one sync.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, Literal, TypeAlias, TypeVar, final

from amberdb import BusyError, ClosedError, TransactionError

R = TypeVar("R")

Lane: TypeAlias = Literal["read", "write", "transaction"]

READ_THREADS: Final = 8
WRITE_THREADS: Final = 16


@final
class Turn:
    """One task's turn with the thread of the transaction."""

    def __init__(self, threads: "Threads") -> None:
        self.threads = threads
        self.is_over = False

    def end(self) -> None:
        """The next task's turn."""
        self.is_over = True
        _turns.set(tuple(turn for turn in _turns.get() if turn is not self))
        self.threads.end_turn()


_turns: ContextVar[tuple[Turn, ...]] = ContextVar("amberdb_turns", default=())
"""Of this task, and of those that it was started by."""


@final
class Threads:
    """Started as they are needed, and idle without waking. Raises ValueError."""

    def __init__(
        self, read_threads: int = READ_THREADS, write_threads: int = WRITE_THREADS
    ) -> None:
        sizes: dict[Lane, int] = {"read": read_threads, "write": write_threads, "transaction": 1}
        self._pools = {
            lane: ThreadPoolExecutor(size, f"amberdb-{lane}") for lane, size in sizes.items()
        }
        self._gate = asyncio.Lock()
        self.is_closed = False

    async def turn(self, timeout_ms: int) -> Turn:
        """Waits for the turn of this task. Raises BusyError, TransactionError."""
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
        """The call's result, or what it raises.

        undo        of what the call gave, when the await was cancelled and nobody gets it
        must        it is begun even when the await is cancelled before
        on_cancel   asks a call that runs to end early

        Raises ClosedError, and TransactionError for a write in a task that is inside its own
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
        """Lets them end when what they have to do is done."""
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
        return self._pools[lane].submit(call)


async def alone(call: Callable[[], R], *, on_cancel: Callable[[], object] | None = None) -> R:
    """In a thread for this call, with the same rules."""
    threads = Threads()
    try:
        return await threads.run("write", call, on_cancel=on_cancel)
    finally:
        threads.close()


async def _ended(future: "Future[Any]") -> None:
    """Returns when it is done, and is cancelled without it."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(_settle, waiter)
        except RuntimeError:
            pass  # the loop was closed, so nobody waits

    future.add_done_callback(wake)
    await waiter


async def _surely_ended(future: "Future[Any]") -> None:
    """Returns when it is done; being cancelled once more does not change that."""
    while not future.done():
        try:
            await _ended(future)
        except asyncio.CancelledError:
            pass


def _settle(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
