"""Time series: counts and aggregates of a collection by hour, day or week of a datetime field.

    documents in the order of time -> one open bucket -> buckets, as they are full

Invariants:
- A bucket is an hour, day or week of the calendar of a time zone: a day there may have 23 or 25
  hours, and an hour that a clock goes through twice is two.
- All buckets are of one moment of the database.
- With an index in the order of the field memory holds one bucket and one page; without one it
  holds the buckets, never the documents.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as clock_time
from itertools import groupby
from typing import Any, Final, Literal, TypeAlias, final

from amberdb import Database, Document, QueryError
from amberdb._jsonl.importer import value_at
from amberdb._shared.pages import all_pages
from amberdb._shared.queries import between

Every: TypeAlias = Literal["hour", "day", "week"]

_SPANS: Final[Mapping[Every, timedelta]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
}
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_AGE_MAX_MS: Final = 86_400_000


@final
@dataclass(slots=True)
class Bucket:
    """What happened from `start` on, before `end`; both in the zone that was asked for."""

    start: datetime
    end: datetime
    count: int = 0
    """Documents."""
    numbers: int = 0
    """Those of them with a number to aggregate; with none there is no mean, min and max."""
    sum: int | float = 0
    min: int | float | None = None
    max: int | float | None = None

    @property
    def mean(self) -> float | None:
        return self.sum / self.numbers if self.numbers else None

    def add(self, value: object) -> None:
        """One document, with what is to be aggregated of it."""
        self.count += 1
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.numbers += 1
            self.sum += value
            self.min = value if self.min is None or value < self.min else self.min
            self.max = value if self.max is None or value > self.max else self.max


def series(
    db: Database,
    collection: str,
    field: str,
    *,
    every: Every,
    of: str | None = None,
    where: Mapping[str, Any] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    zone: tzinfo = UTC,
    fill: bool = False,
) -> Iterator[Bucket]:
    """Buckets in the order of time, as they are asked for.

    field          a datetime; documents without one, or with a list there, are left out
    of             a number, to be summed up; both may be dotted paths
    where          a filter; since, until: from the one on, before the other
    zone           whose hours, days and weeks (from Monday) they are
    fill           empty ones too, between the first and the last, or `since` and `until`

    Raises QueryError, CollectionMissingError.
    """
    if every not in _SPANS:
        raise QueryError(f'every is "hour", "day" or "week", not {every!r}')
    span = between(field, since or _FIRST, until)
    asked: dict[str, Any] = {"$and": [where, span]} if where else span
    with db.snapshot() as at:
        at[collection].explain(asked, order_by=field)  # what is wrong is said at once
    calendar = _Calendar(every, zone)
    found = _buckets(db, collection, field, of, asked, calendar)
    return _filled(found, calendar, since, until) if fill else found


# -- inside ----------------------------------------------------------------------------------


@final
class _Calendar:
    """Of one zone. Instants are compared in UTC: within a zone Python compares clocks."""

    def __init__(self, every: Every, zone: tzinfo) -> None:
        self._every: Every = every
        self._zone = zone

    def start(self, instant: datetime) -> datetime:
        """Of the bucket that an instant is in; in UTC."""
        local = instant.astimezone(self._zone)
        if self._every == "hour":
            return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        day = local.date()
        if self._every == "week":
            day -= timedelta(days=day.weekday())
        return datetime.combine(day, clock_time(), self._zone).astimezone(UTC)

    def end(self, start: datetime) -> datetime:
        """Where the next one starts; in UTC."""
        if self._every != "hour":
            day = start.astimezone(self._zone).date() + _SPANS[self._every]
            return datetime.combine(day, clock_time(), self._zone).astimezone(UTC)
        step = _SPANS["hour"]
        while (end := self.start(start + step)) <= start:  # a clock that went back by less
            step += timedelta(minutes=15)
        return end

    def bucket(self, start: datetime) -> Bucket:
        """An empty one."""
        return Bucket(start.astimezone(self._zone), self.end(start).astimezone(self._zone))


def _buckets(
    db: Database,
    name: str,
    field: str,
    of: str | None,
    where: Mapping[str, Any],
    calendar: _Calendar,
) -> Iterator[Bucket]:
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        collection = at[name]
        fields = [field] if of is None else [field, of]
        order: dict[str, Any] = {}
        if collection.explain(where, order_by=field)["order"] == "index":
            order["order_by"] = field
        found = all_pages(collection.find, where, fields=fields, **order)
        starts = (
            (calendar.start(value), document)
            for document in found
            if isinstance(value := value_at(document, field), datetime)
        )
        made: dict[datetime, Bucket] = {}
        for start, group in groupby(starts, key=_first):
            bucket = made.get(start) or calendar.bucket(start)
            for _, document in group:
                bucket.add(None if of is None else value_at(document, of))
            if order:
                yield bucket
            else:
                made[start] = bucket
        for _, bucket in sorted(made.items()):
            yield bucket


def _first(item: tuple[datetime, Document]) -> datetime:
    return item[0]


def _filled(
    found: Iterator[Bucket], calendar: _Calendar, since: datetime | None, until: datetime | None
) -> Iterator[Bucket]:
    """With the empty ones."""
    at = None if since is None else calendar.start(since)
    for bucket in found:
        start = bucket.start.astimezone(UTC)
        while at is not None and at < start:
            yield calendar.bucket(at)
            at = calendar.end(at)
        yield bucket
        at = calendar.end(start)
    while at is not None and until is not None and at < until:
        yield calendar.bucket(at)
        at = calendar.end(at)
