"""JSON text of documents: nothing is lost, nothing is guessed, bad text is one readable error."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._jsonl.text import convert_dates, dumps, loads

_NAMES = st.sampled_from(["$date", "$bytes", "$float", "$map", "$eq", "a", ""]) | st.text()
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, types included: 1, 1.0 and True are three values, 0.0 and -0.0 two."""
    return bool(left == right) and repr(left) == repr(right)


@given(VALUES)
def test_round_trip_loses_nothing(value: Any) -> None:
    text = dumps(value)
    assert "\n" not in text
    assert same(loads(text), value)
    assert same(loads(text.encode()), value)


@given(VALUES)
def test_text_is_json_that_others_read(value: Any) -> None:
    json.loads(dumps(value), parse_constant=lambda name: pytest.fail(name))


def test_escapes_are_as_documented() -> None:
    time = datetime(2026, 2, 23, 8, 41, 0, 1, tzinfo=timezone(timedelta(hours=8)))
    assert dumps(time) == '{"$date": "2026-02-23T00:41:00.000001Z"}'
    assert dumps(b"hello") == '{"$bytes": "aGVsbG8="}'
    assert dumps(float("-inf")) == '{"$float": "-inf"}'
    assert dumps({"$date": "x"}) == '{"$map": {"$date": "x"}}'
    assert loads('{"$date": "2026-02-23T08:41:00+08:00"}') == datetime(
        2026, 2, 23, 0, 41, tzinfo=UTC
    )


def test_several_vectors_keep_their_shape() -> None:
    text = dumps({"v": np.array([[1.5, -2], [0, 1]], np.float32)})
    assert text == '{"v": {"$vector": {"dim": 2, "data": "AADAPwAAAMAAAAAAAACAPw=="}}}'
    for shape in ((2, 2), (3, 1), (0, 5)):
        array = np.ones(shape, np.float32)
        again = loads(dumps(array))
        assert again.dtype == np.float32
        assert again.shape == shape
    for bad in (
        '{"dim": 3, "data": "AADAPwAAAMA="}',
        '{"dim": 0, "data": ""}',
        '{"dim": -1, "data": "AADAPwAAAMA="}',
        '{"dim": 1.0, "data": "AADAPwAAAMA="}',
        '{"dim": true, "data": "AADAPwAAAMA="}',
        '{"dim": 1}',
        '{"data": "AADAPwAAAMA="}',
        '{"dim": 1, "data": "AADAPwAAAMA=", "more": 1}',
        '{"dim": 1, "data": {"dim": 1, "data": "AA"}}',
        '{"dim": 1, "data": [1]}',
        "[1.0]",
    ):
        with pytest.raises(ValueError, match="is not base64 of float32"):
            loads(f'{{"$vector": {bad}}}')


def test_a_vector_is_its_float32() -> None:
    text = dumps({"v": np.array([1.5, -2.0], np.float32)})
    assert text == '{"v": {"$vector": "AADAPwAAAMA="}}'
    vector = loads(text)["v"]
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.5, -2.0]
    for bad in ('{"$vector": "AA"}', '{"$vector": "AAAA"}', '{"$vector": 3}'):
        with pytest.raises(ValueError, match="float32"):
            loads(bad)


def test_escape_written_with_escapes_is_seen() -> None:
    assert loads('{"\\u0024bytes": "AAE="}') == b"\x00\x01"


def test_map_with_an_escape_among_others_stays_a_map() -> None:
    value = {"$date": "2026-01-01T00:00:00Z", "other": 1}
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{bad", "not JSON"),
        ("", "not JSON"),
        ("NaN", "NaN"),
        ("[Infinity]", "Infinity"),
        ('{"$date": 5}', "date"),
        ('{"$date": "yesterday"}', "yesterday"),
        ('{"$date": "2026-01-01T00:00:00"}', "time zone"),
        ('{"$date": "0001-01-01T00:00:00+14:00"}', "date"),
        ('{"$bytes": "*"}', "base64"),
        ('{"$bytes": "\u00e9"}', "base64"),
        ('{"$float": "1"}', "inf"),
        ('{"$float": ["inf"]}', "inf"),
        ('{"$map": 1}', "map"),
        (b"\xff", "UTF-8"),
        ("[" * 100_000, "deep"),
        ('{"a": ' * 100_000, "deep"),
        ("9" * 10_000, "digits"),
    ],
)
def test_bad_text_is_a_value_error(text: str | bytes, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        loads(text)
    assert "\n" not in str(caught.value)


def test_dates_are_converted_only_where_told() -> None:
    document: dict[str, Any] = {
        "at": "2026-01-01T00:00:00Z",
        "title": "2026-01-01T00:00:00Z",
        "inner": {"at": "2026-01-02T00:00:00+00:00"},
        "days": ["2026-01-03T00:00:00Z", None],
        "none": None,
    }
    convert_dates(document, ["at", "inner.at", "days", "none", "missing", "title.at"])
    assert document == {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "title": "2026-01-01T00:00:00Z",
        "inner": {"at": datetime(2026, 1, 2, tzinfo=UTC)},
        "days": [datetime(2026, 1, 3, tzinfo=UTC), None],
        "none": None,
    }
    convert_dates(document, ["at"])  # what is one already stays one


def test_date_field_without_a_date_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a\.b'"):
        convert_dates({"a": {"b": 5}}, ["a.b"])
