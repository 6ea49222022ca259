"""Time series: counts and aggregates of a collection by spans of a datetime field.

    documents in the order of time -> the open buckets of one span -> each when it is complete

Invariants:
- Every document with a time is in one bucket of each of its groups.
- All buckets show one snapshot of the database.
- With an index ordered by the field, memory holds one span, a bucket of each group, and one page of
  documents; without one it holds all buckets, never all documents.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import groupby
from typing import Any, Final, final

from amberdb import Database, Document, QueryError, value_at
from amberdb._shared.queries import all_pages, between
from amberdb.series.calendar import Calendar, Every
from amberdb.series.numbers import Collected, Numbers
from amberdb.series.question import (
    UNGROUPED,
    Key,
    Question,
    checked_path,
    checked_percentiles,
    fields_of,
    key_of,
    keys_of,
)

GROUPS_MAX: Final = 100_000
"""Groups of one span."""
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
    group: Any = None
    """The value of `group_by` that they have; None also where it is missing."""
    of: Mapping[str, Numbers] = field(default_factory=dict[str, Numbers])
    """The aggregates of each requested field."""

    @property
    def numbers(self) -> int:
        """How many documents have a number in the first field; when it is 0, mean, min and max are
        None. The following are of that field too."""
        return self._first.count

    @property
    def sum(self) -> int | float:
        return self._first.sum

    @property
    def mean(self) -> float | None:
        return self._first.mean

    @property
    def min(self) -> int | float | None:
        return self._first.min

    @property
    def max(self) -> int | float | None:
        return self._first.max

    @property
    def percentiles(self) -> Mapping[float, float | None]:
        return self._first.percentiles

    @property
    def _first(self) -> Numbers:
        return next(iter(self.of.values()), Numbers())


def series(
    db: Database,
    collection: str,
    field: str,
    *,
    every: Every,
    of: str | Sequence[str] | None = None,
    percentiles: Sequence[float] = (),
    group_by: str | None = None,
    where: Mapping[str, Any] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    zone: tzinfo = UTC,
    origin: datetime | None = None,
    fill: bool = False,
) -> Iterator[Bucket]:
    """Iterates over buckets in the order of time; each is computed when the iterator reaches it.

        for hour in series(db, "call", "at", every="hour", of="ms", percentiles=[50, 95]):
            print(hour.start, hour.count, hour.percentiles[95])

    field          path of the datetime field; documents with another value there are left out
    every          "minute", "hour", "day", "week", "month", "year", or a timedelta; weeks start on
                   Monday
    of             path of the numbers to aggregate, or several: bucket.of["usage.tokens"].sum
    percentiles    from 0 to 100; beyond 1,000 numbers in a bucket within 1 %
    group_by       path of a field: a bucket for each of its values, bucket.group, in the order of
                   the database. Each element of a list is a value
    where          a filter
    since, until   only documents with since <= field < until
    zone           the time zone of the calendar
    origin         where a timedelta is counted from; a Monday at midnight in the zone
    fill           with empty buckets between the first and the last, or `since` and `until`, for
                   every group

    Raises QueryError, CollectionMissingError.
    """
    span = between(field, since or _FIRST, until)
    query: dict[str, Any] = {"$and": [where, span]} if where else span
    question = Question(
        collection,
        field,
        fields_of(of),
        checked_percentiles(percentiles, of),
        checked_path("group_by", group_by),
        query,
    )
    calendar = Calendar(every, zone, origin)
    with db.snapshot() as at:
        at[collection].explain(query, order_by=field)  # raises before the first bucket is read
    return _buckets(db, question, calendar, (since, until) if fill else None)


# -- inside ----------------------------------------------------------------------------------


@final
class _Open:
    """The buckets of one span, while documents are added: one of each group."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._groups: dict[Key, _Counted] = {}

    def add(self, document: Document) -> None:
        question = self._question
        values = [value_at(document, path) for path in question.of] if question.of else ()
        if question.group_by is None:
            self._group(UNGROUPED).add(values)
            return
        for key in keys_of(document, question.group_by):
            self._group(key).add(values)

    def buckets(self, start: datetime, end: datetime, groups: Iterable[Key]) -> Iterator[Bucket]:
        """The buckets by group, and empty ones of the other groups."""
        for key in groups:
            self._group(key)
        for key in sorted(self._groups):
            counted = self._groups[key]
            of = {path: each.result() for path, each in counted.of.items()}
            yield Bucket(start, end, counted.count, key[1], of)

    def _group(self, key: Key) -> "_Counted":
        counted = self._groups.get(key)
        if counted is None:
            if len(self._groups) >= GROUPS_MAX:
                raise QueryError(
                    f"{self._question.group_by!r} has more than {GROUPS_MAX} values in one bucket: "
                    "group by another field, or give a where"
                )
            counted = self._groups[key] = _Counted(self._question)
        return counted


@final
class _Counted:
    """The documents of one bucket."""

    def __init__(self, question: Question) -> None:
        self.count = 0
        self.of = {path: Collected(question.percentiles) for path in question.of}

    def add(self, values: Sequence[object]) -> None:
        self.count += 1
        if values:
            for collected, value in zip(self.of.values(), values, strict=True):
                collected.add(value)


def _buckets(
    db: Database,
    question: Question,
    calendar: Calendar,
    filled: tuple[datetime | None, datetime | None] | None,
) -> Iterator[Bucket]:
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        collection = at[question.collection]
        groups: list[Key] = []
        if filled is not None:
            groups = [UNGROUPED]
            if question.group_by is not None:
                values = collection.distinct(question.group_by, question.where)
                groups = [key_of(value, question.group_by) for value in values]
        order: dict[str, Any] = {}
        if collection.explain(question.where, order_by=question.field)["order"] == "index":
            order["order_by"] = question.field
        documents = all_pages(collection.find, question.where, fields=question.fields, **order)
        spans = _spans(documents, question, calendar, is_ordered=bool(order))
        if filled is not None:
            spans = _filled(spans, question, calendar, *filled)
        for start, open_ in spans:
            end = calendar.local(calendar.end(start))
            yield from open_.buckets(calendar.local(start), end, groups)


def _spans(
    documents: Iterable[Document], question: Question, calendar: Calendar, *, is_ordered: bool
) -> Iterator[tuple[datetime, _Open]]:
    """The start of each span in UTC, with its documents."""
    starts = (
        (calendar.start(value), document)
        for document in documents
        if isinstance(value := value_at(document, question.field), datetime)
    )
    unordered: dict[datetime, _Open] = {}
    for start, group in groupby(starts, key=_start):
        open_ = unordered.get(start) or _Open(question)
        for _, document in group:
            open_.add(document)
        if is_ordered:
            yield start, open_
        else:
            unordered[start] = open_
    yield from sorted(unordered.items(), key=_start)


def _start(item: tuple[datetime, Any]) -> datetime:
    return item[0]


def _filled(
    spans: Iterator[tuple[datetime, _Open]],
    question: Question,
    calendar: Calendar,
    since: datetime | None,
    until: datetime | None,
) -> Iterator[tuple[datetime, _Open]]:
    """The spans, with empty ones in the gaps."""
    at = None if since is None else calendar.start(since)
    for start, open_ in spans:
        while at is not None and at < start:
            yield at, _Open(question)
            at = calendar.end(at)
        yield start, open_
        at = calendar.end(start)
    while at is not None and until is not None and at < until:
        yield at, _Open(question)
        at = calendar.end(at)
