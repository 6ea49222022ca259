"""Checksums.

Every checksum is CRC-32 (zlib's: IEEE 802.3, reflected): it is in the standard library, runs at
memory speed, and a seed makes it depend on where the bytes belong.
"""

from struct import Struct
from zlib import crc32

_U32 = Struct("<I")
assert _U32.size == 4

CRC_SIZE = 4
CRC_RESIDUE = 0x2144DF1C
"""crc32(data + append_crc(data)) for all data and every seed: a property of the polynomial."""


def append_crc(data: bytes, seed: int = 0) -> bytes:
    """The 4 bytes to append to `data` so that crc_matches() holds with the same seed."""
    return _U32.pack(crc32(data, seed))


def crc_matches(data: bytes, seed: int = 0) -> bool:
    """Whether these bytes end in their own CRC. Hot paths compare with CRC_RESIDUE inline."""
    return crc32(data, seed) == CRC_RESIDUE
