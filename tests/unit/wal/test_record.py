"""The frame of a record."""

import pytest

from amberdb.wal.record import (
    ALIGNMENT,
    END_SIZE,
    HEADER_SIZE,
    encode,
    find_headers,
    read_header,
    record_size,
    salted,
    scan,
)

SALT = salted(0x1122334455667788)
OTHER = salted(0x1122334455667789)


def written(*payloads: bytes) -> bytes:
    data = b""
    chain = SALT.chain
    for lsn, payload in enumerate(payloads, 1):
        frame, chain = encode(SALT, chain, lsn, lsn - 1, 1000 + lsn, 7, payload)
        data = data[: len(data) - END_SIZE] if data else data
        data += frame
    return data


@pytest.mark.parametrize("length", range(20))
def test_record_comes_back_and_ends_aligned(length: int) -> None:
    payload = bytes(range(length))
    data = written(payload)
    (record,) = scan(data, 0, SALT, SALT.chain, 1)
    assert (record.lsn, record.synced, record.time_us, record.kind) == (1, 0, 1001, 7)
    assert record.payload == payload
    assert record.end == record_size(length) == len(data) - END_SIZE
    assert record.end % ALIGNMENT == 0
    assert data[record.end :] == bytes(END_SIZE)


def test_chain_rejects_missing_and_swapped_records() -> None:
    data = written(b"one", b"two", b"six")
    size = record_size(3)
    one, two, six = (data[i * size : (i + 1) * size] for i in range(3))
    assert len(list(scan(one + two + six, 0, SALT, SALT.chain, 1))) == 3
    assert len(list(scan(one + six, 0, SALT, SALT.chain, 1))) == 1
    assert not list(scan(two + one, 0, SALT, SALT.chain, 1))
    # Even with the Lsn that is asked for, the chain of another predecessor does not fit.
    assert not list(scan(two, 0, SALT, SALT.chain, 2))


def test_other_salt_sees_nothing() -> None:
    data = written(b"one", b"two")
    assert not list(scan(data, 0, OTHER, SALT.chain, 1))
    assert not list(find_headers(data, 0, OTHER, 0))


def test_every_flipped_bit_is_noticed() -> None:
    data = written(b"payload")
    for bit in range(8 * (HEADER_SIZE + len(b"payload"))):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not list(scan(bytes(flipped), 0, SALT, SALT.chain, 1)), bit


def test_every_shorter_file_is_noticed() -> None:
    data = written(b"payload")[:-END_SIZE]
    for size in range(len(data)):
        assert not list(scan(data[:size], 0, SALT, SALT.chain, 1)), size


def test_bad_record_does_not_hide_later_headers() -> None:
    data = bytearray(written(b"one", b"two", b"six"))
    data[0] ^= 1
    found = list(find_headers(bytes(data), 0, SALT, 0))
    assert [(h.lsn, h.synced) for h in found] == [(2, 1), (3, 2)]
    assert [h.lsn for h in find_headers(bytes(data), 0, SALT, 2)] == [3]


def test_marker_at_an_odd_place_is_no_header() -> None:
    data = b"xyz" + written(b"one")
    assert not list(find_headers(data, 0, SALT, 0))
    assert read_header(SALT.marker_bytes, 0, SALT) is None


def test_sealed_header_of_another_marker_is_no_header() -> None:
    twin = salted(SALT.value ^ 1)  # the same seed, another marker
    frame, _ = encode(twin, twin.chain, 1, 0, 0, 0, b"")
    assert read_header(frame, 0, twin) is not None
    assert read_header(frame, 0, SALT) is None


def test_any_flipped_bit_of_a_header_makes_it_none() -> None:
    data = written(b"one")
    for bit in range(8 * HEADER_SIZE):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not list(find_headers(bytes(flipped), 0, SALT, 0))
