"""How a memory system opens for an event loop.

    memory = await open_memory(db, embed=embed, dim=384)     amberdb.memory.aio
    await memory.remember("user123", "...", memory_layer="profile")

Each system's async face is in its own package (memory/aio.py, chat/aio.py, ...). The stores of
amberdb.events have async methods and need no face.

Invariants:
- Parameters, results and errors are those of the blocking class.
- A system is created in a thread, because it declares its collections.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import amberdb
from amberdb.aio.database import Database
from amberdb.aio.face import Face
from amberdb.aio.threads import Threads

P = ParamSpec("P")
S = TypeVar("S")
F = TypeVar("F", bound=Face)


def opens(
    system: Callable[Concatenate[amberdb.Database, P], S],
    face: Callable[[Threads, Callable[[], S]], F],
) -> Callable[Concatenate[Database, P], Coroutine[Any, Any, F]]:
    """The async function that creates a system over an aio.Database and returns its face."""

    @wraps(system)
    async def opened(db: Database, /, *args: P.args, **kwargs: P.kwargs) -> F:
        blocking = await db.in_thread(system, db.blocking, *args, **kwargs)
        return face(db.threads, lambda: blocking)

    return opened
