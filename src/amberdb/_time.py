"""Instants as they are stored: whole microseconds since 1970-01-01 UTC.

Invariants:
- time_of(microseconds(time)) is the same instant, in UTC: no float is involved.
"""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(time: datetime) -> int:
    """Since 1970, exactly. Raises TypeError for a datetime without a time zone."""
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def time_of(time_us: int) -> datetime:
    """The inverse of microseconds(), in UTC. Raises OverflowError beyond the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=time_us)
