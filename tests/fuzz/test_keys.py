"""Keys from damaged files: decode gives back what it was, or raises CorruptionError only."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import CorruptionError
from amberdb.index.ordered.keys import decode, decode_desc, encode, encode_desc

tags = st.sampled_from([tag.to_bytes(1, "big") for tag in range(0x10, 0x90, 0x10)])
# Random bytes mostly fail at the tag, so most begin with one and hold bytes with a meaning.
bodies = st.binary(max_size=16) | st.lists(
    st.sampled_from([b"\x00", b"\xff", b"\x80", b"\x7f", b"\xc3", b"\x40", b"a"]), max_size=14
).map(b"".join)
damaged = st.binary(max_size=20) | st.builds(bytes.__add__, tags, bodies)


@given(damaged, st.integers(-2, 20))
def test_any_bytes(data: bytes, offset: int) -> None:
    for decoder, encoder in ((decode, encode), (decode_desc, encode_desc)):
        try:
            value, end = decoder(data, offset)
        except CorruptionError:
            continue
        assert offset < end <= len(data)
        assert encoder(value) == data[offset:end]


@given(damaged)
def test_a_key_of_many_fields_is_read_to_its_end_or_refused(data: bytes) -> None:
    offset = 0
    values: list[Any] = []
    try:
        while offset < len(data):
            value, offset = decode(data, offset)
            values.append(value)
    except CorruptionError:
        return
    assert b"".join(map(encode, values)) == data
