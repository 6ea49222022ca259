"""Time series: every document is counted once, in the hour, day or week that a clock in the zone
shows."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import amberdb
from amberdb import CollectionMissingError, Database, Document, Ordered, QueryError
from amberdb._shared.queries import all_pages
from amberdb.series import Bucket, Every, series
from amberdb.series import buckets as series_module
from support.databases import SMALL

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
EVERY: tuple[Every, ...] = ("hour", "day", "week")


def put(db: Database, times: Iterable[datetime], **more: Any) -> None:
    db.collection("event", indexes=[Ordered("at"), Ordered("who", "at")])
    db.collection("event").put_many({"at": at, **more} for at in times)


def told(buckets: Iterable[Bucket]) -> list[tuple[str, int]]:
    return [(f"{bucket.start:%m-%d %H:%M}", bucket.count) for bucket in buckets]


def test_counts_by_hour_day_and_week(db: Database) -> None:
    put(db, [START + timedelta(minutes=minutes) for minutes in (0, 59, 60, 1439, 1440, 10_080)])
    assert told(series(db, "event", "at", every="hour")) == [
        ("03-02 00:00", 2),
        ("03-02 01:00", 1),
        ("03-02 23:00", 1),
        ("03-03 00:00", 1),
        ("03-09 00:00", 1),
    ]
    assert told(series(db, "event", "at", every="day")) == [
        ("03-02 00:00", 4),
        ("03-03 00:00", 1),
        ("03-09 00:00", 1),
    ]
    assert told(series(db, "event", "at", every="week")) == [("03-02 00:00", 5), ("03-09 00:00", 1)]
    (week, _) = series(db, "event", "at", every="week")
    assert (week.start, week.end) == (START, START + timedelta(days=7))


def test_numbers_are_summed_up(db: Database) -> None:
    values: list[Any] = [3, 1.5, None, "4", True, -2]
    for minute, value in enumerate(values):
        put(db, [START + timedelta(minutes=minute)], usage={"tokens": value})
    put(db, [START + timedelta(hours=1)])
    full, empty = series(db, "event", "at", every="hour", of="usage.tokens")
    assert (full.count, full.numbers, full.sum, full.min, full.max) == (6, 3, 2.5, -2, 3)
    assert full.mean == 2.5 / 3
    assert (empty.count, empty.numbers, empty.sum, empty.mean) == (1, 0, 0, None)
    assert empty.min is empty.max is None


def test_a_day_is_that_of_the_zone(db: Database) -> None:
    put(db, [START + timedelta(hours=hours) for hours in (15, 16, 39, 40)])
    assert told(series(db, "event", "at", every="day", zone=SHANGHAI)) == [
        ("03-02 00:00", 1),
        ("03-03 00:00", 2),
        ("03-04 00:00", 1),
    ]
    first = next(series(db, "event", "at", every="day", zone=SHANGHAI))
    assert first.start == datetime(2026, 3, 1, 16, tzinfo=UTC)
    assert first.start.tzinfo is SHANGHAI


def test_days_and_hours_when_clocks_are_changed(db: Database) -> None:
    """2026-03-29 has 23 hours in Berlin, 2026-10-25 has 25, and 02:00 comes twice."""
    for month, day, hours in ((3, 29, 23), (10, 25, 25)):
        begin = datetime(2026, month, day, tzinfo=BERLIN).astimezone(UTC)
        put(db, [begin + timedelta(minutes=30 * half) for half in range(2 * hours)])
        days = list(series(db, "event", "at", every="day", zone=BERLIN, since=begin))
        assert [bucket.count for bucket in days] == [2 * hours]
        assert days[0].end.astimezone(UTC) - begin == timedelta(hours=hours)
        by_hour = list(series(db, "event", "at", every="hour", zone=BERLIN, since=begin))
        assert [bucket.count for bucket in by_hour] == [2] * hours
        filled = list(series(db, "event", "at", every="hour", zone=BERLIN, since=begin, fill=True))
        assert filled == by_hour
    clock = [f"{bucket.start:%H%z}" for bucket in by_hour]
    assert clock[1:5] == ["01+0200", "02+0200", "02+0100", "03+0100"]


def test_where_since_and_until(db: Database) -> None:
    put(db, [START, START + timedelta(hours=2)], who="lin")
    put(db, [START + timedelta(hours=1)], who="wang")
    hour = timedelta(hours=1)
    lin = {"who": "lin"}
    assert told(series(db, "event", "at", every="hour", where=lin)) == [
        ("03-02 00:00", 1),
        ("03-02 02:00", 1),
    ]
    assert told(series(db, "event", "at", every="hour", where=lin, since=START + hour)) == [
        ("03-02 02:00", 1)
    ]
    assert told(series(db, "event", "at", every="hour", until=START + hour)) == [("03-02 00:00", 1)]


def test_empty_ones_where_they_are_asked_for(db: Database) -> None:
    put(db, [START, START + timedelta(hours=3)])
    assert [each.count for each in series(db, "event", "at", every="hour", fill=True)] == [
        1, 0, 0, 1
    ]  # fmt: skip
    hour = timedelta(hours=1)
    around = list(
        series(
            db, "event", "at", every="hour", fill=True, since=START - hour, until=START + 5 * hour
        )
    )
    assert [each.count for each in around] == [0, 1, 0, 0, 1, 0]
    none = series(
        db, "event", "at", every="day", fill=True, since=START + 9 * hour, until=START + 49 * hour
    )
    assert [each.count for each in none] == [0, 0, 0]
    later = START + timedelta(days=90)
    assert list(series(db, "event", "at", every="day", since=later, fill=True)) == []


def test_what_has_no_time_is_left_out(db: Database) -> None:
    db.collection("event", indexes=[Ordered("at")])
    values: list[Any] = [None, "2026-03-02", 7, [START], [START, START], START]
    db.collection("event").put_many({"at": value} for value in values)
    db.collection("event").put({"other": START})
    assert told(series(db, "event", "at", every="day")) == [("03-02 00:00", 1)]


def test_what_makes_no_sense_is_said_at_once(db: Database) -> None:
    put(db, [START])
    wrong: list[dict[str, Any]] = [
        {"every": "month"},
        {"every": "day", "where": {"$near": 1}},
        {"every": "day", "since": datetime(2026, 1, 1)},
    ]
    for given_ in wrong:
        with pytest.raises(QueryError):
            series(db, "event", "at", **given_)
    with pytest.raises(CollectionMissingError):
        series(db, "nothing", "at", every="day")


def test_what_is_written_meanwhile_is_not_in_it(db: Database) -> None:
    put(db, [START + timedelta(hours=hour) for hour in range(3)])
    buckets = series(db, "event", "at", every="hour")
    assert next(buckets).count == 1
    put(db, [START + timedelta(hours=1), START + timedelta(hours=9)])
    assert [bucket.count for bucket in buckets] == [1, 1]


def test_without_an_index_the_answer_is_the_same(db: Database) -> None:
    rng = random.Random(7)
    times = [START + timedelta(minutes=rng.randrange(20_000)) for _ in range(300)]
    put(db, times, n=2)
    with_index = list(series(db, "event", "at", every="day", of="n", zone=BERLIN))
    db.collection("event", indexes=[])
    without = list(series(db, "event", "at", every="day", of="n", zone=BERLIN))
    assert without == with_index
    assert sum(bucket.count for bucket in without) == 300


def test_a_bucket_is_given_as_soon_as_it_is_full(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Document] = []

    def watched(*asked: Any, **more: Any) -> Iterator[Document]:
        for document in all_pages(*asked, **more):
            read.append(document)
            yield document

    put(db, [START + timedelta(minutes=30 * n) for n in range(1_000)])
    monkeypatch.setattr(series_module, "all_pages", watched)
    buckets = series(db, "event", "at", every="hour")
    for number in range(1, 4):
        assert next(buckets).count == 2
        assert len(read) == 2 * number + 1, "the first of the next one ends it"


def test_memory_does_not_grow_with_the_documents(db: Database) -> None:
    """A fourfold series takes no more than a page of its documents more."""

    def peak(count: int) -> int:
        tracemalloc.start()
        seen = 0
        for bucket in series(db, "event", "at", every="hour", of="n"):
            seen += bucket.count
        assert seen == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    def fill(first: int, last: int) -> None:
        put(db, [START + timedelta(minutes=n) for n in range(first, last)], n=1, text="x" * 300)

    fill(0, 1_500)
    db.checkpoint()
    once = peak(1_500)
    fill(1_500, 6_000)
    db.checkpoint()
    assert peak(6_000) < 1.5 * once


zones = st.sampled_from(
    [
        "UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Asia/Kathmandu",
        "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia",
    ]
)  # fmt: skip
instants = st.datetimes(datetime(2009, 1, 1), datetime(2022, 1, 1), timezones=st.just(UTC))


@given(name=zones, every=st.sampled_from(EVERY), drawn=st.lists(instants, min_size=1, max_size=12))
def test_every_instant_is_in_one_bucket_of_the_zone(
    name: str, every: Every, drawn: list[datetime]
) -> None:
    """Against a count that looks at the clock of each document."""
    zone = ZoneInfo(name)
    around = [each + timedelta(minutes=minutes) for each in drawn for minutes in (0, 31, 61, 1441)]
    with amberdb.open(":memory:", **SMALL) as db:
        put(db, around)
        found = list(series(db, "event", "at", every=every, zone=zone))
        starts = [bucket.start.astimezone(UTC) for bucket in found]
        ends = [bucket.end.astimezone(UTC) for bucket in found]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        for bucket, start, end in zip(found, starts, ends, strict=True):
            inside = [each for each in around if start <= each < end]
            assert bucket.count == len(inside) > 0
            assert len({shown(each, every, zone) for each in inside}) == 1
        assert sum(bucket.count for bucket in found) == len(around)
        kinds = {shown(each, every, zone) for each in around}
        if every == "hour":
            assert len(kinds) <= len(found), "an hour that comes twice is two"
        else:
            assert len(kinds) == len(found)


def shown(instant: datetime, every: Every, zone: tzinfo) -> str:
    """What a clock and a calendar in the zone say."""
    local = instant.astimezone(zone)
    return (
        f"{local:%Y-%m-%d %H}"
        if every == "hour"
        else f"{local:%G-%V}" + (f" {local:%d}" if every == "day" else "")
    )
