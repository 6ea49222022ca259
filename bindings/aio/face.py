"""The async face of a blocking class: one line per method, with its signature and docstring.

    class Collection(Face):
        put = writes(amberdb.Collection.put)
        find = reads(amberdb.Collection.find)

Invariants:
- A method is looked up by name on the blocking object, so an override in a subclass is called.
- A `progress` callback runs in the event loop. A call that takes one ends early when its await is
  cancelled.
- An iterator is read in blocks of many items, so an item does not cost a thread switch.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from functools import partial, wraps
from inspect import BoundArguments, Signature, signature
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from amberdb.aio.threads import Lane, Threads, alone

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Awaited = Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]
"""An async method with the parameters of the blocking method that it calls."""

BLOCK: Final = 256
"""Items that a thread reads from an iterator at once."""


class Face:
    """The base of async faces. `inner` returns the blocking object; it is called in a thread. With
    a `lane` all calls use the threads of that lane."""

    def __init__(
        self, threads: Threads, inner: Callable[[], Any], lane: Lane | None = None
    ) -> None:
        self.threads = threads
        self.inner = inner
        self.lane: Lane | None = lane

    async def call(
        self,
        lane: Lane,
        function: Callable[[Any], R],
        on_cancel: Callable[[], object] | None = None,
    ) -> R:
        """Calls `function` with the blocking object, in a thread; its result."""
        inner = self.inner
        return await self.threads.run(
            self.lane or lane, lambda: function(inner()), on_cancel=on_cancel
        )


def reads(method: Callable[Concatenate[Any, P], R]) -> Awaited[P, R]:
    """The face of a method that never takes the writer lock."""
    return _awaited("read", method)


def writes(method: Callable[Concatenate[Any, P], R]) -> Awaited[P, R]:
    """The face of a method that may take the writer lock."""
    return _awaited("write", method)


def opens_face(
    method: Callable[Concatenate[Any, P], R], face_of: Callable[[Any, R], T]
) -> Awaited[P, T]:
    """The face of a method that returns a blocking object; it returns `face_of(self, object)`.
    The method may take the writer lock."""
    call = writes(method)

    @wraps(method)
    async def opened(face: Face, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return face_of(face, await call(face, *args, **kwargs))

    return opened


def iterates(
    method: Callable[Concatenate[Any, P], Iterator[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """The face of a method that returns an iterator."""
    name = method.__name__

    @wraps(method)
    def iterated(face: Face, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        run = partial(face.threads.run, face.lane or "read")
        return in_blocks(run, lambda: getattr(face.inner(), name)(*args, **kwargs))

    return iterated


async def in_blocks(
    run: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]], begin: Callable[[], Iterator[T]]
) -> AsyncGenerator[T]:
    """The items of the iterator that `begin` returns. `run` calls `begin` and reads the items, each
    time in a thread."""
    items: Iterator[T] = await run(begin)
    while True:
        block: list[T] = await run(lambda: list(islice(items, BLOCK)))
        for item in block:
            yield item
        if len(block) < BLOCK:
            return


def detached(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The async version of a function without an open database that takes a `progress`."""
    shape = signature(function)

    @wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> R:
        progress, bound = _reporting(shape, args, kwargs)
        return await alone(lambda: function(*bound.args, **bound.kwargs), on_cancel=progress.stop)

    return awaited


def _awaited(lane: Lane, method: Callable[Concatenate[Any, P], R]) -> Awaited[P, R]:
    name, shape = method.__name__, signature(method)
    reports = "progress" in shape.parameters

    @wraps(method)
    async def awaited(face: Face, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not reports:
            # A write within the caller's transaction runs in the thread of that transaction.
            mine: Lane = lane if kwargs.get("tx") is None else "transaction"
            return await face.call(mine, lambda inner: getattr(inner, name)(*args, **kwargs))
        progress, bound = _reporting(shape, (face, *args), kwargs)
        return await face.call(
            lane,
            lambda inner: getattr(inner, name)(*bound.args[1:], **bound.kwargs),
            progress.stop,
        )

    return awaited


class _Progress:
    """Replaces the caller's callback: calls it in the event loop, and ends a call whose await was
    cancelled."""

    def __init__(self, callback: Callable[..., object] | None) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True

    def __call__(self, *facts: Any) -> None:
        if self._is_stopped:
            raise asyncio.CancelledError
        if self._callback is not None:
            self._loop.call_soon_threadsafe(self._callback, *facts)


def _reporting(
    shape: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[_Progress, BoundArguments]:
    bound = shape.bind(*args, **kwargs)
    progress = _Progress(bound.arguments.get("progress"))
    bound.arguments["progress"] = progress
    return progress, bound
