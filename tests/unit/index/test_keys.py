"""Key encoding: the order of bytes is the order of values, against a reference in plain Python."""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import InvalidDocumentError
from amberdb.index.ordered import keys
from amberdb.index.ordered.keys import encode, encode_desc

I64_MIN, I64_MAX = -(2**63), 2**63 - 1
INF = float("inf")


def reference(value: Any) -> tuple[Any, ...]:
    """What Python itself compares: the rank of the class, then the value."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return (2, value)  # Python compares the two exactly
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, bytes):
        return (4, value)
    if isinstance(value, datetime):
        return (5, value.astimezone(UTC))
    return (6,) if isinstance(value, list) else (7,)


POWERS = [2**n for n in (0, 1, 31, 32, 52, 53, 54, 62, 63)]
EDGE_INTS = sorted(
    {
        sign * (power + step)
        for power in POWERS
        for step in (-513, -512, -511, -3, -2, -1, 0, 1, 2, 3, 511, 512, 513)
        for sign in (1, -1)
        if I64_MIN <= sign * (power + step) <= I64_MAX
    }
    | {0, I64_MIN, I64_MAX}
)
EDGE_FLOATS = [
    0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 0.1, -0.1, 1.5,
    2.0**53 - 1, 2.0**53, 2.0**53 + 2, -(2.0**53), 2.0**63, -(2.0**63), 2.0**63 + 2048,
    2.0**64, 1.7976931348623157e308, -1.7976931348623157e308, INF, -INF,
]  # fmt: skip
EDGE_TEXTS = [
    "", "\0", "\0\0", "\0\u00ff", "a", "a\0", "a\0b", "a\x01", "a\xff", "aa", "ab", "b",
    "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000",
    "\U0001f600", "\U0010ffff", "\u4e0b\u5348",
]  # fmt: skip
EDGE_BYTES = [b"", b"\0", b"\0\0", b"\0\xff", b"\0\xff\xff", b"a", b"a\0", b"a\x01", b"\xff"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EDGE_TIMES = [
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    EPOCH,
    EPOCH - timedelta(microseconds=1),
    EPOCH + timedelta(microseconds=1),
    datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=2))),
]
EDGES: list[Any] = [
    None, False, True, *EDGE_INTS, *EDGE_FLOATS, *EDGE_TEXTS, *EDGE_BYTES, *EDGE_TIMES,
    [], [1], {}, {"a": 1},
]  # fmt: skip

numbers = (
    st.integers(I64_MIN, I64_MAX)
    | st.floats(allow_nan=False)
    | st.sampled_from(EDGE_INTS)
    | st.sampled_from(EDGE_FLOATS)
    | st.integers(-1100, 1100).map(lambda step: 2**62 + step)
    | st.integers(-1100, 1100).map(lambda step: float(2**53 + step))
)
texts = st.text(alphabet="\0\x01ab\xff\uffff\U0001f600", max_size=5) | st.text(max_size=12)
blobs = st.binary(max_size=6) | st.sampled_from(EDGE_BYTES)
times = st.datetimes(timezones=st.timezones() | st.just(UTC)).filter(
    lambda time: EDGE_TIMES[0] + timedelta(2) < time < EDGE_TIMES[1] - timedelta(2)
)
values = st.one_of(
    st.sampled_from(EDGES),
    st.none(),
    st.booleans(),
    numbers,
    texts,
    blobs,
    times,
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def signs(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def test_all_pairs_of_edges_sort_as_the_reference() -> None:
    keyed = [(encode(value), reference(value), value) for value in EDGES]
    for key, rank, value in keyed:
        for other_key, other_rank, other in keyed:
            assert signs(key, other_key) == signs(rank, other_rank), (value, other)


@given(values, values)
def test_order_is_the_reference(left: Any, right: Any) -> None:
    expected = signs(reference(left), reference(right))
    assert signs(encode(left), encode(right)) == expected
    assert signs(encode_desc(left), encode_desc(right)) == -expected


@given(numbers, numbers)
def test_numbers_compare_exactly(left: float, right: float) -> None:
    assert signs(encode(left), encode(right)) == signs(left, right)


@given(st.data(), st.lists(st.booleans(), min_size=1, max_size=4))
def test_concatenations_sort_as_tuples(data: st.DataObject, directions: list[bool]) -> None:
    size = len(directions)
    left = data.draw(st.lists(values, min_size=size, max_size=size))
    # Sharing a front, or the comparison would nearly always end at the first field.
    shared = data.draw(st.integers(0, size))
    right = left[:shared] + data.draw(
        st.lists(values, min_size=size - shared, max_size=size - shared)
    )
    expected = 0
    for down, mine, other in zip(directions, left, right, strict=True):
        expected = signs(reference(mine), reference(other)) * (-1 if down else 1)
        if expected:
            break
    assert signs(row(left, directions), row(right, directions)) == expected


def row(fields: list[Any], directions: list[bool]) -> bytes:
    return b"".join(
        encode_desc(value) if down else encode(value)
        for value, down in zip(fields, directions, strict=True)
    )


@given(values, values)
def test_no_key_is_a_proper_prefix_of_another(left: Any, right: Any) -> None:
    mine, other = encode(left), encode(right)
    assert mine == other or not other.startswith(mine)


@given(values)
def test_a_class_lies_within_its_range(value: Any) -> None:
    low, high = keys.class_range(keys.encode(value))
    low_desc, high_desc = keys.class_range(keys.encode_desc(value))
    for other in EDGES:
        same = reference(other)[0] == reference(value)[0]
        assert (low <= encode(other) < high) == same
        assert (low_desc <= encode_desc(other) < high_desc) == same
        assert (encode(other)[0] == encode(value)[0]) == same


@given(st.one_of(st.tuples(texts, texts), st.tuples(blobs, blobs)), texts | blobs)
def test_keys_between_a_prefix_and_what_comes_after_it(pair: tuple[Any, Any], other: Any) -> None:
    prefix, rest = pair
    low, high = encode(prefix), keys.after_prefix(encode(prefix))
    _, end = keys.class_range(low)
    for value in (prefix, prefix + rest, rest, other, *EDGE_TEXTS, *EDGE_BYTES):
        begins = type(value) is type(prefix) and value.startswith(prefix)
        assert (low <= encode(value) < (high or end)) == begins
    if high is not None and isinstance(prefix, str):
        assert keys.text_of(high) > prefix.encode()


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        2**63,
        -(2**63) - 1,
        10**400,
        "\ud800",
        "\0\udfff",
        datetime(2024, 1, 1),
        timedelta(1),
        object(),
        1j,
        {1},
    ],
)
def test_what_has_no_place_is_refused(value: Any) -> None:
    with pytest.raises(InvalidDocumentError):
        encode(value)
    with pytest.raises(InvalidDocumentError):
        encode_desc(value)


def test_subclasses_encode_as_what_they_stem_from() -> None:
    class Number(enum.IntEnum):
        ONE = 1

    class Word(enum.StrEnum):
        A = "a"

    class Ratio(float):
        pass

    class Moment(datetime):
        pass

    assert encode(Number.ONE) == encode(1)
    assert encode(Word.A) == encode("a")
    assert encode(Ratio(0.5)) == encode(0.5)
    assert encode(Moment(1970, 1, 1, tzinfo=UTC)) == encode(EPOCH)
    assert encode(bytearray(b"a\0")) == encode(memoryview(b"a\0")) == encode(b"a\0")
    assert encode((1, 2)) == encode([])
    view: Mapping[str, int] = MappingProxyType({"a": 1})
    assert encode(view) == encode({})


def test_bytes_of_the_format() -> None:
    # docs/format.md shows these.
    assert encode(None).hex(" ") == "10"
    assert encode(True).hex(" ") == "20 01"
    assert encode(1).hex(" ") == "30 bf f0 00 00 00 00 00 00"
    assert encode(-1.0).hex(" ") == "30 40 0f ff ff ff ff ff ff"
    assert encode(0).hex(" ") == encode(-0.0).hex(" ") == "30 80 00 00 00 00 00 00 00"
    assert encode(2**53 + 1).hex(" ") == "30 c3 40 00 00 00 00 00 00 80 01"
    assert encode("a\0").hex(" ") == "40 61 00 ff 00 00"
    assert encode(b"").hex(" ") == "50 00 00"
    assert encode(EPOCH).hex(" ") == "60 80 00 00 00 00 00 00 00"
    assert encode([]).hex(" ") == "70"
    assert encode({}).hex(" ") == "80"
    assert encode_desc(None).hex(" ") == "ef"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_rowids_sort(left: int, right: int) -> None:
    up, down = keys.encode_rowid, keys.encode_rowid_desc
    assert signs(up(left), up(right)) == -signs(down(left), down(right)) == signs(left, right)


def test_the_budget_of_a_key() -> None:
    whole = keys.KEYSPACE_BYTES + keys.FIELD_KEY_BYTES_MAX + keys.ROWID_BYTES
    assert whole == keys.LMDB_KEY_BYTES_MAX == 511
