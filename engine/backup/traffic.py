"""Traffic: whether commits are made while a backup reads.

Invariants:
- It is busy from a commit that is seen on, and for _QUIET_S after the last one.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final, final

_QUIET_S: Final = 0.1


@final
class Traffic:
    """The commits of one database, as one thread sees them that asks often."""

    def __init__(self, last_lsn: Callable[[], int]) -> None:
        self._last_lsn = last_lsn
        self._lsn = last_lsn()
        self._until_s = 0.0

    def is_busy(self) -> bool:
        """Whether others should get the interpreter often."""
        lsn, now_s = self._last_lsn(), monotonic()
        if lsn != self._lsn:
            self._lsn = lsn
            self._until_s = now_s + _QUIET_S
        return now_s < self._until_s
