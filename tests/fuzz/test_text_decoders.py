"""Bytes of a text index from a damaged file: decoding gives what encoding made, or raises
CorruptionError and nothing else."""

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from amberdb._bytes import append_crc
from amberdb._errors import CorruptionError
from amberdb.index.text.packing import ROWS_KEY, arrays, unpack_postings, unpack_rows

# Mostly small numbers, since random ones fail at the first length.
raw = st.binary(max_size=40) | st.lists(st.sampled_from([0, 1, 2, 3, 4, 64, 97, 255])).map(bytes)


@given(raw, st.booleans())
def test_any_bytes_as_a_table_of_rows(data: bytes, sealed: bool) -> None:
    value = data + append_crc(data, crc32(ROWS_KEY)) if sealed else data
    try:
        rowids, lengths = unpack_rows(value)
    except CorruptionError:
        return
    assert len(rowids) == len(lengths) > 0
    assert sorted(set(rowids.tolist())) == rowids.tolist()


@given(raw, st.booleans(), st.integers(1, 300))
def test_any_bytes_as_postings(data: bytes, sealed: bool, rows: int) -> None:
    key = b"tword"
    value = data + append_crc(data, crc32(key)) if sealed else data
    try:
        ordinals, frequencies = arrays(unpack_postings(key, value, rows))
    except CorruptionError:
        return
    assert len(ordinals) == len(frequencies) > 0
    assert sorted(set(ordinals.tolist())) == ordinals.tolist()
    assert 0 <= ordinals[0] <= ordinals[-1] < rows
    assert (frequencies > 0).all()
