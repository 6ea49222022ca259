"""Something that happens while the engine is at one of its failpoints, and which were reached."""

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from amberdb import _failpoints as failpoints


@contextmanager
def once_at(place: str, action: Callable[[], object]) -> Generator[None]:
    """Calls `action` the first time that a thread is at this failpoint, in that thread. Fails if
    none came by."""
    assert place in failpoints.NAMES
    waiting = [action]

    def reach(name: str) -> None:
        if name == place and waiting:
            waiting.pop()()

    failpoints.install(reach)
    try:
        yield
    finally:
        failpoints.install(None)
    assert not waiting, f"nothing was at {place}"


class Places(logging.Handler):
    """Which places were reached, what to do at one, and whether a compaction was postponed."""

    def __init__(self) -> None:
        super().__init__()
        self.put_off = threading.Event()
        self.reached: dict[str, threading.Event] = {}
        self.actions: dict[str, Any] = {}

    def of(self, name: str) -> threading.Event:
        return self.reached.setdefault(name, threading.Event())

    def emit(self, record: logging.LogRecord) -> None:
        if "postponed" in record.msg:
            self.put_off.set()

    def _reach(self, name: str) -> None:
        if name in self.actions:
            self.actions[name]()
        self.of(name).set()

    @classmethod
    @contextmanager
    def watched(cls) -> Generator["Places"]:
        """For one block."""
        found = cls()
        logger = logging.getLogger("amberdb.engine")
        logger.addHandler(found)
        failpoints.install(found._reach)
        try:
            yield found
        finally:
            failpoints.install(None)
            logger.removeHandler(found)
