"""Where buckets begin and end, in one time zone.

    minute hour day week month year   of the calendar: a day may have 23 or 25 hours
    a timedelta                       elapsed time, counted from an origin: always as long

Invariants:
- Every instant is in one bucket. An hour that the clock repeats is two.
- Bounds are compared in UTC: within a zone Python compares clock faces, which is wrong when the
  clock goes back.
- Buckets end with the years of datetime, so an instant near them has a bucket too.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as clock_time
from typing import Any, Final, Literal, TypeAlias, final

from amberdb import QueryError

Every: TypeAlias = Literal["minute", "hour", "day", "week", "month", "year"] | timedelta

_CLOCK: Final[Mapping[str, tuple[timedelta, Mapping[str, int]]]] = {
    "minute": (timedelta(minutes=1), {"second": 0, "microsecond": 0}),
    "hour": (timedelta(hours=1), {"minute": 0, "second": 0, "microsecond": 0}),
}
_DAYS: Final = ("day", "week", "month", "year")
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_MONDAY: Final = datetime(2000, 1, 3)


@final
class Calendar:
    """The buckets of one length. Raises QueryError."""

    def __init__(self, every: Every, zone: tzinfo, origin: datetime | None = None) -> None:
        given: Any = every
        if not isinstance(zone, tzinfo):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise QueryError(f'zone is a tzinfo as ZoneInfo("Asia/Shanghai"), not {zone!r}')
        if origin is not None and origin.tzinfo is None:
            raise QueryError(f"origin must be an aware datetime, not {origin!r}")
        if isinstance(given, timedelta):
            if given <= timedelta(0):
                raise QueryError(f"every={given!r}: a span is longer than nothing")
            self._origin = (origin or _MONDAY.replace(tzinfo=zone)).astimezone(UTC)
        elif not isinstance(given, str) or given not in (*_CLOCK, *_DAYS):
            raise QueryError(
                f'every is "minute", "hour", "day", "week", "month", "year" or a timedelta, not '
                f"{given!r}"
            )
        elif origin is not None:
            raise QueryError("origin is of a timedelta: a calendar has its own, leave it out")
        self._every: Every = every
        self._zone = zone

    def start(self, instant: datetime) -> datetime:
        """The start of the bucket that contains the instant, in UTC."""
        every = self._every
        try:
            if isinstance(every, timedelta):
                passed = (instant.astimezone(UTC) - self._origin) // every
                return self._origin + passed * every
            local = instant.astimezone(self._zone)
            if every in _CLOCK:
                return local.replace(**_CLOCK[every][1]).astimezone(UTC)  # type: ignore[arg-type]
            return self._midnight(_first_day(local.date(), every))
        except OverflowError:
            return _FIRST

    def end(self, start: datetime) -> datetime:
        """The start of the next bucket, in UTC."""
        every = self._every
        try:
            if isinstance(every, timedelta):
                return start + every
            if every not in _CLOCK:
                return self._midnight(_next_day(start.astimezone(self._zone).date(), every))
            step = _CLOCK[every][0]
            while (end := self.start(start + step)) <= start:  # the clock went back by less
                step += _CLOCK[every][0]
            return end
        except (OverflowError, ValueError):
            return _LAST

    def local(self, instant: datetime) -> datetime:
        """The instant in the zone; in UTC where the zone has no year for it."""
        try:
            return instant.astimezone(self._zone)
        except OverflowError:
            return instant

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, clock_time(), self._zone).astimezone(UTC)


def _first_day(day: date, every: str) -> date:
    """The first day of the week, month or year; of "day" the day itself."""
    if every == "week":
        return day - timedelta(days=day.weekday())
    if every == "day":
        return day
    return day.replace(day=1) if every == "month" else day.replace(month=1, day=1)


def _next_day(first: date, every: str) -> date:
    """The day after the day, week, month or year that begins on `first`. Raises OverflowError,
    ValueError."""
    if every == "month":
        return date(first.year + first.month // 12, first.month % 12 + 1, 1)
    if every == "year":
        return date(first.year + 1, 1, 1)
    return first + timedelta(days=7 if every == "week" else 1)
