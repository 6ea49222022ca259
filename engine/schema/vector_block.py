"""The format of a block of vectors: the vectors of documents with neighbouring rowids.

    key    prefix | field u8 | several u8 | dim u16 | block u64
    value  slots u64 | size u32 | crc u32 of each row | rows of `size` bytes

A row is the vector of one document as float32; where `several` is 1, all vectors of one document.
The row of the document with a rowid is in the block rowid // ROWS at the slot rowid % ROWS, where
ROWS follows from `dim`; `slots` has a bit for each slot that holds a row. Numbers are little-endian
in the value, and big-endian in the key.

Invariants:
- A block has no row of a document that was deleted, and is deleted with its last row.
- The vector of a rowid never changes. So a row that is found is right, also when the document that
  names it was read from an older or a newer state of the file.
- The checksum of a row is seeded with its key and slot: a row does not pass for another one.
"""

from collections.abc import Callable, Iterable, Mapping
from struct import Struct, unpack_from
from struct import error as struct_error
from typing import Final, Protocol, TypeAlias, final
from zlib import crc32

from amberdb._errors import CorruptionError

BLOCK_BYTES: Final = (32 << 10) - 16
"""The aim for a block: with LMDB's header eight pages, which rows of all usual sizes fill well."""
SLOTS_MAX: Final = 64
DIM_MAX: Final = (1 << 16) - 1
FIELDS_MAX: Final = 256

_KEY: Final = Struct(">BBHQ")
_HEAD: Final = Struct("<QI")
_CRC: Final = Struct("<I")
_PREFIX_BYTES: Final = 4
KEY_BYTES: Final = _PREFIX_BYTES + _KEY.size
PLACE_BYTES: Final = KEY_BYTES + 1
assert KEY_BYTES == 16
_HEAD_BYTES: Final = 12
_CRC_BYTES: Final = 4
assert (_HEAD.size, _CRC.size) == (_HEAD_BYTES, _CRC_BYTES)
_unpack_head: Final = _HEAD.unpack_from
_unpack_crc: Final = _CRC.unpack_from
_unpack_bits: Final = Struct("<Q").unpack_from

GetBlock: TypeAlias = Callable[[bytes], bytes | None]
"""The value of a block of vectors."""

Row: TypeAlias = tuple[bytes, "bytes | memoryview"]
"""The stored checksum of a vector, and its bytes."""
Rows: TypeAlias = dict[int, Row]
"""By slot."""


@final
class StoredVector(bytes):
    """Where the vectors of one field of one document are stored: the key of a block, and a slot, as
    the document has them in their place. A subclass of bytes, since a read makes one for each
    document."""

    __slots__ = ()

    @property
    def key(self) -> bytes:
        return self[:KEY_BYTES]

    @property
    def slot(self) -> int:
        return self[KEY_BYTES]

    @property
    def dim(self) -> int:
        """The numbers in each of several vectors; 0: it is one alone."""
        return int.from_bytes(self[6:8]) if self[5] else 0

    @property
    def row(self) -> tuple[int, int]:
        """The number of the field, and the rowid of the document."""
        field, several, dim, block = _KEY.unpack_from(self, _PREFIX_BYTES)
        return field, block * rows_of_block(dim, several=bool(several)) + self.slot

    @classmethod
    def at(cls, key: bytes, slot: int) -> "StoredVector":
        return cls(key + bytes((slot,)))


def rows_of_block(dim: int, *, several: bool) -> int:
    """The number of slots of a block."""
    if several:
        return 1
    return max(1, min(SLOTS_MAX, (BLOCK_BYTES - _HEAD_BYTES) // (4 * dim + _CRC_BYTES)))


def place_of(prefix: bytes, field: int, dim: int, rowid: int, *, several: bool) -> StoredVector:
    """Where the vectors of a document with this rowid belong."""
    block, slot = divmod(rowid, rows_of_block(dim, several=several))
    return StoredVector.at(prefix + _KEY.pack(field, several, dim, block), slot)


VectorsAt: TypeAlias = Callable[[StoredVector], bytes | None]
"""Reads the vectors at a place; None when they are not there. Raises CorruptionError."""


class VectorsSource(Protocol):
    """Where the vectors of documents are read."""

    def vectors_at(self, place: StoredVector, /) -> bytes | None: ...

    def expect_vectors(self, places: Iterable[StoredVector]) -> None:
        """Takes in that vectors_at() will be asked for these next."""
        ...


@final
class BlockReader:
    """Reads the vectors of one field by rowid; each block once while rowids ascend."""

    __slots__ = (
        *("_bits", "_crcs", "_dim", "_field", "_first", "_get", "_key", "_number", "_prefix"),
        *("_seed", "_several", "_size", "_slots", "_value"),
    )

    def __init__(
        self, get: GetBlock, prefix: bytes, field: int, dim: int, *, several: bool
    ) -> None:
        self._get = get
        self._prefix = prefix
        self._field = field
        self._several = several
        self._slots = rows_of_block(dim, several=several)
        self._dim = dim
        self._number = -1
        """Of the block whose head is below."""

    def row(self, rowid: int) -> bytes | None:
        """The vectors of the document with a rowid; None when they are not in a block. Raises
        CorruptionError."""
        number, slot = divmod(rowid, self._slots)
        if number != self._number:
            self._read(number)
        bits = self._bits
        if not bits >> slot & 1:
            return None
        at = (bits & ((1 << slot) - 1)).bit_count()
        start = self._first + self._size * at
        data = self._value[start : start + self._size]
        if crc32(data, self._seed ^ slot) != self._crcs[at]:  # row_in(), its head read once
            raise damaged_block(self._key, slot)
        return data

    def _read(self, number: int) -> None:
        """Reads the head of a block. Raises CorruptionError."""
        self._key = key = self._prefix + _KEY.pack(self._field, self._several, self._dim, number)
        value = self._get(key)
        self._bits, self._number = 0, number
        if value is not None:
            slots, self._size = _head(key, value)
            self._crcs = unpack_from(f"<{len(slots)}I", value, _HEAD_BYTES)
            self._first = _HEAD_BYTES + _CRC_BYTES * len(slots)
            self._seed, self._value = crc32(key), value
            (self._bits,) = _unpack_bits(value)


def new_row(place: StoredVector, data: "bytes | memoryview") -> Row:
    """A row to be stored at a place."""
    return _CRC.pack(crc32(data, crc32(place.key) ^ place.slot)), data


def pack_block(rows: Mapping[int, Row]) -> bytes:
    """The value of a block; its rows have one size."""
    slots = sorted(rows)
    bits = sum(1 << slot for slot in slots)
    head = _HEAD.pack(bits, len(rows[slots[0]][1]))
    parts = [rows[slot] for slot in slots]
    return b"".join((head, *[crc for crc, _ in parts], *[data for _, data in parts]))


def unpack_block(key: bytes, value: bytes) -> Rows:
    """The rows of a block, their checksums not compared. Raises CorruptionError."""
    slots, size = _head(key, value)
    start = _HEAD_BYTES
    first = start + _CRC_BYTES * len(slots)
    rows: Rows = {}
    for number, slot in enumerate(slots):
        crc = bytes(value[start + _CRC_BYTES * number : start + _CRC_BYTES * (number + 1)])
        rows[slot] = crc, value[first + size * number : first + size * (number + 1)]
    return rows


def row_in(place: StoredVector, value: "bytes | memoryview | None") -> bytes | None:
    """The vectors at a place, a copy from the value of its block; None when they are not there.
    Raises CorruptionError."""
    if value is None:
        return None
    key, slot = place[:KEY_BYTES], place[KEY_BYTES]
    try:
        bits, size = _unpack_head(value)
        if not bits >> slot & 1:
            return None
        number = (bits & ((1 << slot) - 1)).bit_count()
        start = _HEAD_BYTES + _CRC_BYTES * bits.bit_count() + size * number
        data = bytes(value[start : start + size])
        (crc,) = _unpack_crc(value, _HEAD_BYTES + _CRC_BYTES * number)
    except struct_error:
        raise damaged_block(key) from None
    if crc32(data, crc32(key) ^ slot) != crc or len(data) != size:
        raise damaged_block(key, slot)
    return data


def sound_rows(key: bytes, value: bytes) -> Rows:
    """The rows of a block whose checksums are right. Raises CorruptionError when the block has no
    form."""
    rows = unpack_block(key, value).items()
    return {slot: row for slot, row in rows if new_row(StoredVector.at(key, slot), row[1]) == row}


def check_block(key: bytes, value: bytes) -> None:
    """Raises CorruptionError unless the checksums of all rows are right."""
    for slot, row in unpack_block(key, value).items():
        if new_row(StoredVector.at(key, slot), row[1]) != row:
            raise damaged_block(key, slot)


def damaged_block(key: bytes, slot: int | None = None) -> CorruptionError:
    """The error of a row that fails its checksum, or of a block that has no form."""
    what = "has no form" if slot is None else f"fails its checksum at slot {slot}"
    return CorruptionError(
        f"the block of vectors {key.hex()} {what}: restore a backup, or run `amberdb repair`",
        key=key,
    )


def missing_vector(place: StoredVector) -> CorruptionError:
    """The error of a document whose vectors are not stored."""
    return CorruptionError(
        f"the vectors of a document are missing from the block {place.key.hex()}, slot "
        f"{place.slot}: restore a backup, or run `amberdb repair`",
        key=place.key,
    )


def _head(key: bytes, value: bytes) -> tuple[list[int], int]:
    """The slots in use, and the size of a row. Raises CorruptionError."""
    if len(value) < _HEAD_BYTES or len(key) != KEY_BYTES:
        raise damaged_block(key)
    bits, size = _HEAD.unpack_from(value)
    count = bits.bit_count()
    if not count or len(value) != _HEAD_BYTES + count * (_CRC_BYTES + size):
        raise damaged_block(key)
    return [slot for slot in range(SLOTS_MAX) if bits >> slot & 1], size
