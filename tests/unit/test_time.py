"""Instants as microseconds: exact in both directions, over all years."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._time import microseconds, time_of


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_come_back_as_the_same_instant(time: datetime) -> None:
    assert time_of(microseconds(time)) == time


def test_the_first_and_the_last_instant() -> None:
    for time in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert time_of(microseconds(time)) == time
    with pytest.raises(OverflowError):
        time_of(microseconds(datetime.max.replace(tzinfo=UTC)) + 1)


def test_zones_are_one_instant_and_none_is_refused() -> None:
    east = datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert microseconds(east) == 0
    assert microseconds(east - timedelta(microseconds=1)) == -1
    with pytest.raises(TypeError):
        microseconds(datetime(1970, 1, 1))
