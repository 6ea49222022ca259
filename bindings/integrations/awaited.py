"""Async methods of adapters: each is the blocking method of the same object, in a thread.

    class Store(Awaited):
        def count(self) -> int: ...
        count_async = awaited("read", count)

Invariants:
- A cancelled await ends when its call has ended, or was withdrawn before it started
  (amberdb.aio.threads).
- Threads start on demand, so an adapter that is used without an event loop has none.
"""

from collections.abc import Callable, Coroutine
from functools import partial, update_wrapper
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

from amberdb.aio.threads import Threads

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Awaited")

Lane: TypeAlias = Literal["read", "write"]
"""Reads wait for no write (amberdb.aio.threads)."""


class Awaited:
    """The base of adapters that have methods for an event loop."""

    @property
    def threads(self) -> Threads:
        """The threads of this adapter."""
        threads: Threads | None = self.__dict__.get("_amberdb_threads")
        if threads is None:
            threads = self.__dict__.setdefault("_amberdb_threads", Threads())
        return threads

    async def in_thread(
        self, lane: Lane, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Makes a blocking call in a thread, for an async method that is written out; its result.
        Raises ClosedError, and what the call raises."""
        return await self.threads.run(lane, partial(call, *args, **kwargs))

    def end_threads(self) -> None:
        """Later calls in an event loop raise ClosedError. May be called twice."""
        self.threads.close()


def awaited(
    lane: Lane, method: Callable[Concatenate[S, P], R]
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """The method for an event loop, with the parameters, result and errors of `method`."""

    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        inner = getattr(self, method.__name__)  # that of a subclass, where it has one
        result: R = await self.threads.run(lane, partial(inner, *args, **kwargs))
        return result

    update_wrapper(call, method)
    return call
