"""The change feed for an event loop.

Invariants:
- A follower waits in a thread of its own, and keeps none of those that others need.
- It looks up a few times a second whether its task was cancelled; what it waits for wakes it at
  once.
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
"""The most that a cancelled follower takes to end."""


async def told(
    threads: Threads,
    changes: Callable[..., Iterator[Change]],
    since: Lsn | None,
    follow: bool,
    timeout_s: float | None,
) -> AsyncGenerator[Change]:
    """As `changes(since, follow=, timeout_s=)` tells it."""
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
            if not await _comes(run, changes, since, timeout_s):
                return
    except ClosedError:
        return  # as a follower among threads ends
    finally:
        own.close()


async def _comes(
    run: Callable[..., Any],
    changes: Callable[..., Iterator[Change]],
    since: Lsn | None,
    timeout_s: float | None,
) -> bool:
    """Waits for a change; False when none came for `timeout_s`."""
    loop = asyncio.get_running_loop()
    ends = float("inf") if timeout_s is None else loop.time() + timeout_s
    while True:
        wait_s = min(FOLLOW_S, max(0.0, ends - loop.time()))
        if await run(partial(_wait, changes, since, wait_s)):
            return True
        if loop.time() >= ends:
            return False


def _wait(changes: Callable[..., Iterator[Change]], since: Lsn | None, wait_s: float) -> bool:
    changes(since)  # raises ClosedError
    return next(changes(since, follow=True, timeout_s=wait_s), None) is not None


@final
class Subscriber(Face):
    """A reader of the feed whose position the database keeps; made by db.subscriber()."""

    def __init__(
        self,
        threads: Threads,
        blocking: amberdb.Subscriber,
        changes: Callable[..., Iterator[Change]],
    ) -> None:
        super().__init__(threads, lambda: blocking)
        self._blocking = blocking
        self._told = changes
        self.name = blocking.name

    @property
    def position(self) -> Lsn:
        """The last Lsn that was acknowledged."""
        return self._blocking.position

    def changes(
        self, *, follow: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Change]:
        """Changes behind the position. Raises LogTruncatedError with `resume`: acknowledge that
        Lsn to go on from there."""
        return told(self.threads, self._told, self.position, follow, timeout_s)

    acknowledge = writes(amberdb.Subscriber.acknowledge)
    remove = writes(amberdb.Subscriber.remove)
