"""Time series: counts and aggregates of a collection by hour, day or week of a datetime field.

    documents in the order of time -> one open bucket -> each bucket when it is complete

Invariants:
- A bucket is an hour, day or week of the calendar of a time zone: a day may have 23 or 25 hours,
  and an hour that the clock repeats makes two buckets.
- All buckets show one snapshot of the database.
- With an index ordered by the field, memory holds one bucket and one page; without one it holds
  all buckets, never all documents.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as clock_time
from itertools import groupby
from typing import Any, Final, Literal, TypeAlias, final

from amberdb import Database, Document, QueryError, value_at
from amberdb._shared.queries import all_pages, between

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
    """Documents with `start <= field < end`; both bounds are in the requested zone."""

    start: datetime
    end: datetime
    count: int = 0
    """The number of documents."""
    numbers: int = 0
    """How many of them have a number to aggregate; when it is 0, mean, min and max are None."""
    sum: int | float = 0
    min: int | float | None = None
    max: int | float | None = None

    @property
    def mean(self) -> float | None:
        return self.sum / self.numbers if self.numbers else None

    def add(self, value: object) -> None:
        """Counts one document, and aggregates `value` if it is a number."""
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
    """Iterates over buckets in the order of time; each is computed when the iterator reaches it.

    field          path of the datetime field; documents with another value there are left out
    every          "hour", "day" or "week"; weeks start on Monday
    of             path of the number to aggregate
    where          a filter
    since, until   only documents with since <= field < until
    zone           the time zone of the calendar
    fill           with empty buckets between the first and the last, or `since` and `until`

    Raises QueryError, CollectionMissingError.
    """
    if every not in list(_SPANS):  # a list: a map cannot be looked up in a map
        raise QueryError(f'every is "hour", "day" or "week", not {every!r}')
    span = between(field, since or _FIRST, until)
    query: dict[str, Any] = {"$and": [where, span]} if where else span
    with db.snapshot() as at:
        at[collection].explain(query, order_by=field)  # raises before the first bucket is read
    calendar = _Calendar(every, zone)
    buckets = _buckets(db, collection, field, of, query, calendar)
    return _filled(buckets, calendar, since, until) if fill else buckets


# -- inside ----------------------------------------------------------------------------------


@final
class _Calendar:
    """Bucket bounds in one zone. They are compared in UTC: within a zone Python compares clock
    faces, which is wrong when the clock goes back."""

    def __init__(self, every: Every, zone: tzinfo) -> None:
        self._every: Every = every
        self._zone = zone

    def start(self, instant: datetime) -> datetime:
        """The start of the bucket that contains the instant, in UTC."""
        local = instant.astimezone(self._zone)
        if self._every == "hour":
            return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        day = local.date()
        if self._every == "week":
            day -= timedelta(days=day.weekday())
        return datetime.combine(day, clock_time(), self._zone).astimezone(UTC)

    def end(self, start: datetime) -> datetime:
        """The start of the next bucket, in UTC."""
        if self._every != "hour":
            day = start.astimezone(self._zone).date() + _SPANS[self._every]
            return datetime.combine(day, clock_time(), self._zone).astimezone(UTC)
        step = _SPANS["hour"]
        while (end := self.start(start + step)) <= start:  # the clock went back by less than 1 h
            step += timedelta(minutes=15)
        return end

    def bucket(self, start: datetime) -> Bucket:
        """An empty bucket."""
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
        documents = all_pages(collection.find, where, fields=fields, **order)
        starts = (
            (calendar.start(value), document)
            for document in documents
            if isinstance(value := value_at(document, field), datetime)
        )
        unordered: dict[datetime, Bucket] = {}
        for start, group in groupby(starts, key=_first):
            bucket = unordered.get(start) or calendar.bucket(start)
            for _, document in group:
                bucket.add(None if of is None else value_at(document, of))
            if order:
                yield bucket
            else:
                unordered[start] = bucket
        for _, bucket in sorted(unordered.items()):
            yield bucket


def _first(item: tuple[datetime, Document]) -> datetime:
    return item[0]


def _filled(
    buckets: Iterator[Bucket], calendar: _Calendar, since: datetime | None, until: datetime | None
) -> Iterator[Bucket]:
    """The buckets, with empty ones in the gaps."""
    at = None if since is None else calendar.start(since)
    for bucket in buckets:
        start = bucket.start.astimezone(UTC)
        while at is not None and at < start:
            yield calendar.bucket(at)
            at = calendar.end(at)
        yield bucket
        at = calendar.end(start)
    while at is not None and until is not None and at < until:
        yield calendar.bucket(at)
        at = calendar.end(at)
