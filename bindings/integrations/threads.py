"""Blocking calls for an event loop, for adapters whose framework gives them no loop of their own.

Invariants:
- A cancelled await ends after its call has ended: when a task gets the CancelledError, nothing runs
  for it any more.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function in a thread of the event loop's executor; its result or its exception."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # it is read, so that the loop does not report it
        raise
