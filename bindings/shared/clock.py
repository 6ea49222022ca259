"""The clock of a system: a function that returns epoch seconds, `time.time` unless a test sets
it."""

from collections.abc import Callable
from datetime import UTC, datetime


def utc_now(clock: Callable[[], float]) -> datetime:
    """The clock's time as an aware datetime in UTC."""
    return datetime.fromtimestamp(clock(), UTC)
