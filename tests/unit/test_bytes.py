"""Checksums that depend on where the bytes belong."""

from zlib import crc32

import pytest

from amberdb._bytes import CRC_RESIDUE, CRC_SIZE, append_crc, crc_matches


@pytest.mark.parametrize("data", [b"", b"\0", b"hello", bytes(1000)], ids=len)
@pytest.mark.parametrize("seed", [0, 1, 0xFFFFFFFF])
def test_what_was_sealed_is_sealed(data: bytes, seed: int) -> None:
    sealed = data + append_crc(data, seed)
    assert len(sealed) == len(data) + CRC_SIZE
    assert crc_matches(sealed, seed)
    assert crc32(sealed, seed) == CRC_RESIDUE


def test_every_flipped_bit_is_seen() -> None:
    sealed = b"some bytes" + append_crc(b"some bytes", 7)
    for at in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[at // 8] ^= 1 << at % 8
        assert not crc_matches(bytes(damaged), 7)


def test_another_place_has_another_seal() -> None:
    assert not crc_matches(b"a" + append_crc(b"a", 1), 2)


@pytest.mark.parametrize("short", [b"", b"\0", b"\0\0\0"])
def test_nothing_is_not_sealed(short: bytes) -> None:
    assert not crc_matches(short)
