"""Positions: ascending numbers for the turns of one hot tier.

Invariants:
- All buffers of a process that share a hot tier share its numbers, so they ascend in the order in
  which turns are saved, also while the clock is set back. Between processes that share a database
  they follow the clock.
"""

import os
import threading
from typing import Final, final

from amberdb import Database


@final
class Positions:
    """The numbers of one hot tier."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last = 0

    def next(self, at_least: int) -> int:
        """A number above all before it."""
        with self._mutex:
            self._last = max(at_least, self._last + 1)
            return self._last


_mutex: Final = threading.Lock()
_by_tier: Final[dict[tuple[str, str], Positions]] = {}


def positions_of(db: Database, name: str) -> Positions:
    """The numbers for the collection `name`."""
    with _mutex:
        return _by_tier.setdefault((os.path.realpath(db.path), name), Positions())
