"""The clocks of systems: functions that return epoch seconds, `time.time` unless a test sets them.

Invariants:
- The times of one SteadyClock do not go back when its clock is set back by up to an hour, as with
  the time of a database's reads; beyond it the clock counts.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, final

SLACK: Final = timedelta(hours=1)


def utc_now(clock: Callable[[], float]) -> datetime:
    """The clock's time as an aware datetime in UTC."""
    return datetime.fromtimestamp(clock(), UTC)


@final
class SteadyClock:
    """The times of what a system stores: what is stored later is newer, or as new."""

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = datetime.min.replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        now, last = utc_now(self._clock), self._last
        if now < last <= now + SLACK:
            return last
        self._last = now
        return now
