"""Documents as text of a jsonb column, without a server: the column itself is in tests/servers."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amberdb import CorruptionError
from amberdb.engine.schema.codec import encode
from amberdb.postgres.json_text import dumps, dumps_binary, loads
from support.drawn import maps

_TIMES = st.datetimes(timezones=st.sampled_from([UTC, UTC, timezone(timedelta(hours=8))])).filter(
    lambda time: 1 < time.year < 9999
)


@given(maps)
def test_text_loses_nothing(value: dict[str, Any]) -> None:
    loaded = loads(dumps_binary(value))
    assert repr(sorted(loaded.items())) == repr(sorted(value.items()))


@given(_TIMES, _TIMES)
@example(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, microsecond=1, tzinfo=UTC))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_texts_of_times_sort_as_they_do(first: datetime, second: datetime) -> None:
    """With microseconds and without; the filter of a query compares them on the server."""
    texts = [dumps({"t": time}) for time in (first, second)]
    assert (texts[0] < texts[1]) == (first < second)
    assert loads(dumps_binary({"t": first})) == {"t": first}


@pytest.mark.parametrize("name", ["$amber", "$amber:", "$amber:YQ==", "a\0", "$", "cost $"])
def test_names_are_kept(name: str) -> None:
    document = {"id": "a", name: {"deep": [{name: datetime(2026, 1, 1, tzinfo=UTC)}]}}
    assert loads(dumps_binary(document)) == document


def test_body_of_the_codec_is_told_from_a_text() -> None:
    document = {"id": "a", "n": 1}
    assert loads(encode(document)) == loads(dumps_binary(document)) == document


@pytest.mark.parametrize("body", [b"\x01{", b'\x01{"t":{"$amber":["no","1"]}}', b"\xc1"])
def test_what_another_program_has_written_is_typed(body: bytes) -> None:
    with pytest.raises(CorruptionError):
        loads(body)
