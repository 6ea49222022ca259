"""Checksums.

Every checksum here is CRC-32 (zlib's: IEEE 802.3, reflected), because it is in the standard
library, runs at memory speed, and a seed makes it depend on where the bytes belong.
"""

from struct import Struct
from zlib import crc32

_U32 = Struct("<I")
assert _U32.size == 4

CRC_SIZE = 4
CRC_RESIDUE = 0x2144DF1C
"""crc32(data + seal(data)) for every data and every seed: a property of the polynomial."""


def append_crc(data: bytes, seed: int = 0) -> bytes:
    """The 4 bytes to put behind `data` so that `is_sealed` holds with the same seed."""
    return _U32.pack(crc32(data, seed))


def crc_matches(sealed: bytes, seed: int = 0) -> bool:
    """Whether these bytes end in their own seal. Hot paths compare with CRC_RESIDUE inline."""
    return crc32(sealed, seed) == CRC_RESIDUE
