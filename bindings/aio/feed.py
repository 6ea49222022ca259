"""The change feed for an event loop.

Invariants:
- A follower waits in its own thread, so it uses none of the threads that other calls need.
- It checks a few times a second whether its task was cancelled; a change wakes it at once.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final, final

import amberdb
from amberdb import Change, ClosedError, Lsn
from amberdb.aio.face import Face, in_blocks, writes
from amberdb.aio.threads import Threads

FOLLOW_S: Final = 0.2
"""The longest time that a cancelled follower takes to end."""


async def stream_changes(
    threads: Threads,
    changes: Callable[..., Iterator[Change]],
    since: Lsn | None,
    follow: bool,
    timeout_s: float | None,
) -> AsyncGenerator[Change]:
    """The changes of `changes(since, follow=, timeout_s=)`, read in threads."""
    if not follow:
        async for change in in_blocks(partial(threads.run, "read"), partial(changes, since)):
            yield change
        return
    own = Threads()
    run = partial(own.run, "read")
    try:
        while True:
            async for change in in_blocks(run, partial(changes, since)):
                yield change
                since = change.lsn
            if not await _wait_for_change(run, changes, since, timeout_s):
                return
    except ClosedError:
        return  # a blocking follower ends in the same way
    finally:
        own.close()


async def _wait_for_change(
    run: Callable[..., Any],
    changes: Callable[..., Iterator[Change]],
    since: Lsn | None,
    timeout_s: float | None,
) -> bool:
    """Waits for a change; False when there was none for `timeout_s`."""
    loop = asyncio.get_running_loop()
    ends = float("inf") if timeout_s is None else loop.time() + timeout_s
    while True:
        wait_s = min(FOLLOW_S, max(0.0, ends - loop.time()))
        if await run(partial(_is_there, changes, since, wait_s)):
            return True
        if loop.time() >= ends:
            return False


def _is_there(changes: Callable[..., Iterator[Change]], since: Lsn | None, wait_s: float) -> bool:
    changes(since)  # raises ClosedError
    return next(changes(since, follow=True, timeout_s=wait_s), None) is not None


@final
class Subscriber(Face):
    """A reader of the feed whose position is stored in the database; from db.subscriber()."""

    def __init__(
        self,
        threads: Threads,
        blocking: amberdb.Subscriber,
        changes: Callable[..., Iterator[Change]],
    ) -> None:
        super().__init__(threads, lambda: blocking)
        self._blocking = blocking
        self._changes = changes
        self.name = blocking.name

    @property
    def position(self) -> Lsn:
        """The last Lsn that was acknowledged."""
        return self._blocking.position

    def changes(
        self, *, follow: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Change]:
        """Changes after the position. Raises LogTruncatedError; acknowledge its `resume` Lsn to
        continue from there."""
        return stream_changes(self.threads, self._changes, self.position, follow, timeout_s)

    acknowledge = writes(amberdb.Subscriber.acknowledge)
    remove = writes(amberdb.Subscriber.remove)
