"""Attempts of a transaction that others may be in the way of."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from amberdb._errors import ConflictError

ATTEMPTS: Final = 20
_FIRST_S: Final = 0.002
_MAX_S: Final = 0.5
_T = TypeVar("_T")


class Overtaken(ConflictError):
    """Another transaction was in the way: nothing was stored, and another attempt may succeed."""


def pauses_s(attempts: int) -> Iterator[float | None]:
    """For each attempt the pause after it; None after the last. They grow, and differ, so that two
    that were in each other's way are not again. Raises ValueError."""
    if attempts < 1:
        raise ValueError(f"attempts={attempts}: give 1 or more")
    for number in range(attempts - 1):
        yield random.uniform(0.5, 1.5) * min(_FIRST_S * (1 << min(number, 20)), _MAX_S)
    yield None


def repeated(call: Callable[[], _T], attempts: int = ATTEMPTS) -> _T:
    """The result of a call that is made again where others were in its way. Raises Overtaken after
    the last attempt, ValueError."""
    for pause_s in pauses_s(attempts):
        try:
            return call()
        except Overtaken:
            if pause_s is None:
                raise
            time.sleep(pause_s)
    raise AssertionError("unreachable")
