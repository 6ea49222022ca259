"""Attempts of a transaction that others may be in the way of."""

import random
from collections.abc import Iterator
from typing import Final

from amberdb._errors import ConflictError

ATTEMPTS: Final = 20
_FIRST_S: Final = 0.002
_MAX_S: Final = 0.5


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
