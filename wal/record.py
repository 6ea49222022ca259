"""The format of a log record.

Invariants:
- A record begins at a multiple of 8 and is padded with zeros to the next one; a zero word after the
  last record ends the written part.
- The checksum of the header depends on the salt of the segment, not on earlier records: one bad
  record cannot hide the next.
- The checksum of the payload is seeded with the previous record's: a record that is missing, out of
  order, or left over from an earlier use of the file never passes.

Format (little endian), HEADER_SIZE bytes and then the payload:

    0 marker u32        low word of the salt, never 0
    4 length u32        of the payload
    8 lsn u64
    16 synced u64       the durable Lsn when this record was appended
    24 time_us i64      commit time, microseconds since 1970
    32 kind u8          what the payload is; 3 zero bytes follow
    36 crc u32          of the payload, seeded with the previous record's
    40 checksum u32     CRC of the 40 bytes before, seeded with the high word of the salt
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE, CRC_SIZE
from amberdb._types import Lsn

_FIELDS = Struct("<IIQQqB3xI")
_HEADER = Struct(_FIELDS.format + "I")
HEADER_SIZE = _FIELDS.size + CRC_SIZE
assert HEADER_SIZE == _HEADER.size == 44

ALIGNMENT = 8
END_SIZE = 8
"""The zero bytes written after every record, for which a segment needs room."""

PAYLOAD_BYTES_MAX = (1 << 32) - 1

_PADDING = tuple(bytes(-(HEADER_SIZE + n) % ALIGNMENT + END_SIZE) for n in range(ALIGNMENT))

_pack = _FIELDS.pack
_pack_crc = Struct("<I").pack


class Salt(NamedTuple):
    """The random seeds of one segment: its records are not valid in another."""

    value: int
    marker: int
    marker_bytes: bytes
    seed: int
    """Of the checksums of the headers."""
    chain: int
    """Of the first payload's checksum."""


class Record(NamedTuple):
    """One commit in the log."""

    lsn: Lsn
    time_us: int
    kind: int
    payload: bytes
    synced: Lsn
    crc: int
    end: int
    """Where the next record begins, in the offsets of the caller."""


class Header(NamedTuple):
    """The header of a record whose payload was not read."""

    offset: int
    end: int
    lsn: Lsn
    synced: Lsn
    crc: int


def salted(value: int) -> Salt:
    """The seeds that belong to a 64 bit salt whose low word is not 0."""
    raw = value.to_bytes(8, "little")
    return Salt(value, value & 0xFFFFFFFF, raw[:4], value >> 32, crc32(raw))


NO_SALT = Salt(0, 0, b"", 0, 0)
"""The salt while no segment is in use."""


def record_size(length: int) -> int:
    """The bytes of a record with a payload of this length, padding included."""
    return (HEADER_SIZE + length + ALIGNMENT - 1) & -ALIGNMENT


def encode(
    salt: Salt, chain: int, lsn: int, synced: int, time_us: int, kind: int, payload: bytes
) -> tuple[bytes, int]:
    """The bytes to write, including the zero word after the record, and the new chain."""
    length = len(payload)
    crc = crc32(payload, chain)
    fields = _pack(salt.marker, length, lsn, synced, time_us, kind, crc)
    checksum = _pack_crc(crc32(fields, salt.seed))
    return b"".join((fields, checksum, payload, _PADDING[length & 7])), crc


def scan(
    data: bytes, start: int, salt: Salt, chain: int, lsn: int, offset: int = 0
) -> Iterator[Record]:
    """The valid records of `data` from `start` on, of which the first must be `lsn`. `data` begins
    at `offset` of the file.

    Ends at the first record that is not whole, not valid, or out of order.
    """
    size = len(data)
    marker, seed = salt.marker, salt.seed
    unpack = _HEADER.unpack
    while (body := start + HEADER_SIZE) <= size:
        head = data[start:body]
        found_marker, length, found, synced, time_us, kind, crc, _ = unpack(head)
        if found_marker != marker or found != lsn or crc32(head, seed) != CRC_RESIDUE:
            return
        end = (body + length + ALIGNMENT - 1) & -ALIGNMENT
        if end > size:
            return
        payload = data[body : body + length]
        if crc32(payload, chain) != crc:
            return
        yield Record(Lsn(found), time_us, kind, payload, Lsn(synced), crc, offset + end)
        chain = crc
        start = end
        lsn += 1


def read_header(data: bytes, start: int, salt: Salt) -> Header | None:
    """The header at `start`; None when no valid header of this segment is there."""
    head = data[start : start + HEADER_SIZE]
    if len(head) < HEADER_SIZE or crc32(head, salt.seed) != CRC_RESIDUE:
        return None
    marker, length, lsn, synced, _, _, crc, _ = _HEADER.unpack(head)
    if marker != salt.marker:
        return None
    return Header(start, start + record_size(length), Lsn(lsn), Lsn(synced), crc)


def find_headers(data: bytes, start: int, salt: Salt, after: int) -> Iterator[Header]:
    """Every header of this segment from `start` on with an Lsn above `after`, payload unread."""
    offset = data.find(salt.marker_bytes, start)
    while offset >= 0:
        header = None if offset % ALIGNMENT else read_header(data, offset, salt)
        if header is not None and header.lsn > after:
            yield header
        offset = data.find(salt.marker_bytes, offset + 1)
