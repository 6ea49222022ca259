"""key(): ids of several values sort as the values do, and begin with each other as they do."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb import InvalidDocumentError, key
from support import reference

parts: st.SearchStrategy[Any] = st.one_of(
    st.text(st.sampled_from('a!" #\0\U0001f600~é'), max_size=4),
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
    st.binary(max_size=3),
    st.datetimes(timezones=st.just(UTC)),
)
tuples = st.lists(parts, min_size=1, max_size=3)


@given(left=tuples, right=tuples)
def test_ids_sort_as_their_parts(left: list[Any], right: list[Any]) -> None:
    one, two = key(*left).encode(), key(*right).encode()
    ranks = list(map(reference.rank, left)), list(map(reference.rank, right))
    assert (one < two) == (ranks[0] < ranks[1])
    assert (one == two) == (ranks[0] == ranks[1])
    assert two.startswith(one) == (ranks[0] == ranks[1][: len(left)])


def test_ids_can_be_read() -> None:
    when = datetime(2026, 2, 23, 0, 41, tzinfo=UTC)
    assert key("lin", when) == "slin!w2026-02-23T00:41:00.000000!"
    assert key("a/b c", None, True, b"x") == 'sa/b"`c!a!b1!t78!'


def test_a_part_of_a_subclass_is_its_plain_value() -> None:
    kind = StrEnum("kind", {"A": "a"})
    assert key(kind.A) == key("a")


REFUSED: list[tuple[tuple[Any, ...], str]] = [
    ((), "at least one part"),
    (({},), "part of an id"),
    ((float("nan"),), "NaN"),
    ((1 << 63,), "64 bits"),
    ((datetime(2026, 1, 1),), "time zone"),
    (("x" * 480,), "480 bytes"),
    (("\ud800",), "surrogate"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_other_parts_are_refused(given: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidDocumentError, match=says):
        key(*given)
