"""Time series: every document is counted once, in the hour, day or week that a clock in the zone
shows."""

import math
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import CollectionMissingError, Database, Document, Ordered, QueryError
from amberdb._shared.queries import all_pages
from amberdb.series import Bucket, Every, numbers, series
from amberdb.series import buckets as series_module
from support.databases import SMALL

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
SHOWN: dict[Every, str] = {
    "minute": "%Y-%m-%d %H:%M",
    "hour": "%Y-%m-%d %H",
    "day": "%Y-%m-%d",
    "week": "%G-%V",
    "month": "%Y-%m",
    "year": "%Y",
}


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


def test_buckets_of_a_month_and_of_any_span(db: Database) -> None:
    put(db, [START + timedelta(days=days) for days in (-2, -1, 28, 29, 29.7)])
    months = list(series(db, "event", "at", every="month", zone=SHANGHAI))
    assert told(months) == [("02-01 00:00", 1), ("03-01 00:00", 3), ("04-01 00:00", 1)]
    assert [bucket.end for bucket in months[:2]] == [bucket.start for bucket in months[1:]]
    (year,) = series(db, "event", "at", every="year")
    assert (year.start, year.end) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )
    put(db, [START + timedelta(minutes=minutes) for minutes in (0, 14, 15, 95)], who="lin")
    quarters = series(
        db, "event", "at", every=timedelta(minutes=15), where={"who": "lin"}, fill=True
    )
    assert told(quarters) == [
        ("03-02 00:00", 2),
        ("03-02 00:15", 1),
        *((f"03-02 0{m // 60}:{m % 60:02}", 0) for m in range(30, 90, 15)),
        ("03-02 01:30", 1),
    ]
    origin = START + timedelta(minutes=5)
    (first, *_) = series(
        db, "event", "at", every=timedelta(minutes=15), where={"who": "lin"}, origin=origin
    )
    assert (first.start, first.count) == (origin - timedelta(minutes=15), 1)
    night = START.replace(tzinfo=BERLIN)
    put(db, [night], who="wang")
    (day,) = series(db, "event", "at", every=timedelta(days=1), where={"who": "wang"}, zone=BERLIN)
    assert (day.start, day.end) == (night, night + timedelta(days=1))


def test_times_at_the_end_of_all_years_have_a_bucket(db: Database) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    put(db, [first, START, last])
    for every in (*SHOWN, timedelta(hours=5)):
        for zone in (UTC, SHANGHAI, ZoneInfo("America/New_York")):
            found = list(series(db, "event", "at", every=every, zone=zone))
            assert [bucket.count for bucket in found] == [1, 1, 1], (every, zone)
            assert all(bucket.start < bucket.end for bucket in found)


def test_groups_are_the_values_of_a_field(db: Database) -> None:
    times = [START + timedelta(minutes=minutes) for minutes in (0, 1, 60)]
    put(db, times, who="lin", n=1, tags=["a", "b", "a"])
    put(db, times[:1], who="wang", n=5, tags=[])
    put(db, times[2:], n=7, tags="b")
    put(db, times[2:], who=True, n=9, usage={"who": 1})

    def grouped(**asked: Any) -> list[tuple[int, Any, int]]:
        found = series(db, "event", "at", every="hour", **asked)
        return [(bucket.start.hour, bucket.group, bucket.count) for bucket in found]

    expected = [(0, "lin", 2), (0, "wang", 1), (1, None, 1), (1, True, 1), (1, "lin", 1)]
    assert grouped(group_by="who") == expected
    assert grouped(group_by="tags") == [
        (0, "a", 2),
        (0, "b", 2),
        (1, None, 1),
        (1, "a", 1),
        (1, "b", 2),
    ]
    filled = grouped(group_by="who", fill=True)
    assert [each for each in filled if each[2]] == expected
    assert len(filled) == 2 * 4, "each group has each hour"
    db.collection("event", indexes=[])
    assert grouped(group_by="who") == expected
    assert grouped(group_by="usage.who")[1:] == [(1, None, 2), (1, 1, 1)]
    with pytest.raises(QueryError, match="group"):
        grouped(group_by="usage")


def test_groups_are_limited(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "GROUPS_MAX", 2)
    for name in ("a", "b"):
        put(db, [START], who=name)
    assert len(list(series(db, "event", "at", every="hour", group_by="who"))) == 2
    put(db, [START], who="c")
    with pytest.raises(QueryError, match="more than 2"):
        list(series(db, "event", "at", every="hour", group_by="who"))


def test_several_fields_and_percentiles(db: Database) -> None:
    for n in range(1, 101):
        put(db, [START + timedelta(seconds=n)], n=n, usage={"ms": n / 2 if n % 2 else None})
    put(db, [START + timedelta(hours=1)])
    asked: dict[str, Any] = {"of": ["usage.ms", "n"], "percentiles": [0, 50, 95.0, 100]}
    full, empty = series(db, "event", "at", every="hour", **asked)
    assert list(full.of) == ["usage.ms", "n"]
    of_n = full.of["n"]
    assert (of_n.count, of_n.sum, of_n.mean, of_n.min, of_n.max) == (
        100, 5050, 50.5, 1, 100,
    )  # fmt: skip
    assert of_n.percentiles == {0: 1, 50: 50.5, 95: pytest.approx(95.05), 100: 100}
    assert (full.numbers, full.max, full.percentiles[50]) == (50, 49.5, 25)
    assert full.percentiles == full.of["usage.ms"].percentiles
    assert empty.of["n"].percentiles == dict.fromkeys((0, 50, 95, 100))
    assert (empty.numbers, empty.mean) == (0, None)
    (plain, _) = series(db, "event", "at", every="hour")
    assert (plain.of, plain.numbers, plain.sum, plain.percentiles) == ({}, 0, 0, {})


numbers_ = st.one_of(
    st.floats(allow_nan=False, width=32), st.integers(-(10**18), 10**18), st.floats(0.01, 100)
)


def slack(number: float) -> float:
    return 0 if math.isinf(number) else abs(number) * numbers.ERROR * 1.001 + 1e-300


@settings(max_examples=40)
@given(drawn=st.lists(numbers_, min_size=1, max_size=60), exact_max=st.sampled_from([3, 1_000]))
def test_percentiles_are_near_the_numbers_at_their_ranks(
    drawn: list[float], exact_max: int
) -> None:
    wanted = [0, 1, 25, 50, 90, 100]
    collected = numbers.Collected(wanted)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(numbers, "EXACT_MAX", exact_max)
        for each in drawn:
            collected.add(each)
    found = collected.result().percentiles
    ordered = sorted(drawn)
    for percentile in wanted:
        rank = percentile / 100 * (len(drawn) - 1)
        low, high = float(ordered[int(rank)]), float(ordered[-int(-rank // 1)])
        result = found[percentile]
        assert result is not None
        assert low - slack(low) <= result <= high + slack(high)
    assert (found[0], found[100]) == (float(ordered[0]), float(ordered[-1]))


def test_percentiles_of_many_numbers_take_bounded_memory() -> None:
    rng = random.Random(7)
    collected = numbers.Collected([50, 99])
    tracemalloc.start()
    drawn: list[float] = []
    sizes: list[int] = []
    for _ in range(10):
        part = [rng.lognormvariate(3, 2) for _ in range(1_000)]
        drawn += part
        before, _ = tracemalloc.get_traced_memory()
        for each in part:
            collected.add(each)
        sizes.append(tracemalloc.get_traced_memory()[0] - before)
    tracemalloc.stop()
    assert sizes[-1] < 4_000, "one more thousand takes no more"
    found, ordered = collected.result().percentiles, sorted(drawn)
    for percentile in (50, 99):
        assert found[percentile] == pytest.approx(ordered[100 * percentile], rel=0.02)


def test_what_makes_no_sense_is_said_at_once(db: Database) -> None:
    put(db, [START])
    wrong: list[dict[str, Any]] = [
        {"every": "fortnight"},
        {"every": 60},
        {"every": timedelta(0)},
        {"every": "day", "origin": START},
        {"every": timedelta(1), "origin": datetime(2026, 1, 1)},
        {"every": "day", "zone": "Asia/Shanghai"},
        {"every": "day", "of": 5},
        {"every": "day", "of": ["n", ""]},
        {"every": "day", "of": {"n": 1}},
        {"every": "day", "of": "n", "percentiles": [101]},
        {"every": "day", "of": "n", "percentiles": "50"},
        {"every": "day", "percentiles": [50]},
        {"every": "day", "group_by": ["n"]},
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


@pytest.mark.slow
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


@given(
    name=zones,
    every=st.sampled_from(sorted(SHOWN, key=str)),
    drawn=st.lists(instants, min_size=1, max_size=12),
)
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
        if every in ("minute", "hour"):
            assert len(kinds) <= len(found), "an hour that comes twice is two"
        else:
            assert len(kinds) == len(found)


def shown(instant: datetime, every: Every, zone: tzinfo) -> str:
    """What a clock and a calendar in the zone say."""
    return instant.astimezone(zone).strftime(SHOWN[every])
