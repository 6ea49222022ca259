"""Blocking calls for an event loop, in threads that all adapters of the process share.

    class Store:
        def count(self) -> int: ...
        count_async = awaited("read", count)

Invariants:
- A cancelled await ends when its call has ended, or was withdrawn before it started
  (amberdb.aio.threads).
- A call sees the context variables of its task.
- Threads start on demand: a program without an event loop has none, and a forked child its own.
"""

import os
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import cache, partial, update_wrapper
from types import CoroutineType
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar, cast

from amberdb.aio.threads import Threads

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

Lane: TypeAlias = Literal["read", "write"]
"""Reads wait for no write (amberdb.aio.threads)."""


@cache
def _threads() -> Threads:
    return Threads()


os.register_at_fork(after_in_child=_threads.cache_clear)


async def in_thread(lane: Lane, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Makes a blocking call in a thread; its result. Raises what the call raises."""
    run = partial(copy_context().run, call, *args, **kwargs)
    return await _threads().run(lane, run)


def awaited(
    lane: Lane, method: Callable[Concatenate[S, P], R]
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """The method for an event loop, with the parameters, result and errors of `method`."""

    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        inner = getattr(self, method.__name__)  # that of a subclass, where it has one
        result: R = await in_thread(lane, inner, *args, **kwargs)
        return result

    update_wrapper(call, method)
    return call


def twin(lane: Lane, method: Callable[..., R]) -> "Callable[..., CoroutineType[Any, Any, R]]":
    """awaited(), for a method that a base class declares: type checkers have the parameters from
    there, and take no other function for it than one whose first parameter has the name `self`."""
    return cast("Callable[..., CoroutineType[Any, Any, R]]", awaited(lane, method))
