"""Something that happens while the engine is at one of its failpoints."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

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
