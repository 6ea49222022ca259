"""Databases of an event loop for tests: audited when they are left, and with a disk that waits.

Invariants:
- Leaving `audited` runs check() and asserts that it found nothing, then closes.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from amberdb import aio
from support.databases import SMALL
from support.faulty_fs import FaultyFileSystem


@asynccontextmanager
async def audited(path: Path, **options: Any) -> AsyncGenerator[aio.Database]:
    """An open database with small options."""
    async with aio.open(path, **{**SMALL, **options}) as db:
        yield db
        if not db.threads.is_closed:
            await assert_sound(db)


async def assert_sound(db: aio.Database) -> None:
    """Fails with the first problems that check() finds."""
    report = await db.check()
    assert report.ok, report


class WaitingDisk(FaultyFileSystem):
    """Its syncs wait while it is held."""

    def __init__(self) -> None:
        super().__init__(hook=self._before)
        self.entered = threading.Event()
        """A sync has come while it is held."""
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        self.entered.clear()
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def _before(self, kind: str, path: str) -> None:
        if kind == "sync" and not self._open.is_set():
            self.entered.set()
            assert self._open.wait(30)


async def soon(event: threading.Event) -> None:
    """Waits for it without holding up the loop."""
    assert await asyncio.to_thread(event.wait, 30)


def assert_face_of(
    face: type, blocking: type, inside: Set[str] = frozenset(), plain: Set[str] = frozenset()
) -> None:
    """Each public method of `blocking` is awaited in `face`, under the same name with the same
    parameters; not so those that are `inside`, and `plain` ones are not awaited."""
    for name in dir(blocking):
        if name.startswith("_") or name in inside or name == "rescue":
            continue
        method, found = getattr(blocking, name), getattr(face, name, None)
        assert found is not None, f"{face.__name__} has no {name}"
        if inspect.isroutine(method):
            assert _parameters(found) == _parameters(method), name
            assert inspect.getdoc(found), name
            assert inspect.iscoroutinefunction(found) is (name not in plain), name


def _parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(method).parameters.values()
    return [(each.name, each.kind, each.default) for each in list(found)[1:]]
