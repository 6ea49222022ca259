"""The format of a packed text segment: the table of its rows, and the postings of each term.

Invariants:
- Each value ends in its CRC, seeded with the CRC of its key: a value under another key is damage.
- Reading raises only CorruptionError, whatever the bytes are.
- Ascending numbers are stored as differences, in the smallest width that fits all of them;
  frequencies only when one of them is not 1.
- Packing is a pure function of rows and postings.

docs/format.md has the layout. An *entry* is a posting as one number: ordinal << 16 | frequency in
units. Sources pass postings to a segment in this form.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from struct import Struct
from sys import byteorder
from typing import Any, Final, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from amberdb._bytes import CRC_RESIDUE, CRC_SIZE, append_crc, crc_matches
from amberdb._errors import CorruptionError
from amberdb.index.text.text import UNIT

Rowids: TypeAlias = NDArray[np.int64]
Lengths: TypeAlias = NDArray[np.float32]
Ordinals: TypeAlias = NDArray[np.int64]
Frequencies: TypeAlias = NDArray[np.float32]
Postings: TypeAlias = tuple[Ordinals, Frequencies]
FewPostings: TypeAlias = tuple[list[int], list[float]]
Entries: TypeAlias = NDArray[np.uint64]
Pairs: TypeAlias = Iterator[tuple[bytes, bytes]]

ENTRY_BYTES: Final = 8
ENTRY_SHIFT: Final = 16
UNIT_MASK: Final = (1 << ENTRY_SHIFT) - 1

ROWS_KEY: Final = b"d"
TERM_TAG: Final = b"t"

_ROWS: Final = Struct("<IQB")  # count, first rowid, width of the steps
_POSTINGS: Final = Struct("<BI")  # form, first ordinal
_CRC: Final = Struct("<I")
assert _ROWS.size == 13
assert _POSTINGS.size == 5
assert _CRC.size == CRC_SIZE
_pack_crc: Final = _CRC.pack
_STEPS: Final = {0: "<u1", 1: "<u2", 2: "<u4", 3: "<u8"}  # by width; 1 << width bytes each
_TOPS: Final = (0xFF, 0xFFFF, 0xFFFFFFFF)
_ONCE, _WHOLE, _UNITS = 0, 1, 2  # frequencies: all 1; u8, whole; u16, in units
_FORMS: Final = 9
"""A form is 3 * (storage of the frequencies) + (width of the steps)."""
FEW: Final = 16
"""Up to this many postings of a term are lists."""
_FEW_NUMBERS: Final = {
    (width, count): Struct(f"<{count}{code}")
    for width, code in enumerate("BHI")
    for count in range(1, FEW + 1)
}
assert _FEW_NUMBERS[2, FEW].size == 4 * FEW
_ROWID_END: Final = 1 << 62


def term_key(term: str) -> bytes:
    """The key of a term's postings."""
    return TERM_TAG + term.encode()


def term_of(key: bytes) -> str:
    """The inverse of term_key(). Raises CorruptionError."""
    try:
        return key[1:].decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(f"{key!r} is not a term of a text index") from error


# -- rows ------------------------------------------------------------------------------------


def pack_rows(rowids: Rowids, lengths: Lengths) -> bytes:
    """Packs the table of one or more rows; rowids ascend."""
    steps = rowids[1:] - rowids[:-1]
    width = sum(int(steps.max()) > top for top in _TOPS) if len(steps) else 0
    return _sealed(
        ROWS_KEY,
        _ROWS.pack(len(rowids), int(rowids[0]), width)
        + steps.astype(_STEPS[width]).tobytes()
        + lengths.astype("<f4").tobytes(),
    )


def unpack_rows(value: bytes) -> tuple[Rowids, Lengths]:
    """Rowids and lengths by ordinal. Raises CorruptionError."""
    data = _unsealed(ROWS_KEY, value, _ROWS.size)
    count, first, width = _ROWS.unpack_from(data)
    if not count or width >= len(_STEPS):
        raise _invalid(ROWS_KEY)
    middle = _ROWS.size + ((count - 1) << width)
    if len(data) != middle + 4 * count:
        raise _invalid(ROWS_KEY)
    steps = np.frombuffer(data[_ROWS.size : middle], _STEPS[width])
    rowids = _ascending(ROWS_KEY, first, steps, _ROWID_END)
    lengths = np.frombuffer(data, "<f4", offset=middle).astype(np.float32, copy=False)
    if not ((lengths >= 0) & (lengths < np.inf)).all():
        raise _invalid(ROWS_KEY)
    return rowids, lengths


# -- postings --------------------------------------------------------------------------------


def pack_postings(terms: Sequence[str], starts: NDArray[np.int64], entries: Entries) -> Pairs:
    """The pairs of many terms. The entries of terms[i] are entries[starts[i]:starts[i + 1]]:
    at least one, with ascending ordinals."""
    ordinals = (entries >> ENTRY_SHIFT).astype(np.int64)
    units = (entries & UNIT_MASK).astype(np.int64)
    steps = np.zeros(len(ordinals), np.int64)
    steps[1:] = ordinals[1:] - ordinals[:-1]
    steps[starts] = 0  # the first ordinal of a term is stored whole
    widths = np.searchsorted(_TOPS, np.maximum.reduceat(steps, starts))
    tops = np.maximum.reduceat(units, starts)
    is_whole = (np.bitwise_or.reduceat(units % UNIT, starts) == 0) & (tops <= 0xFF * UNIT)
    kinds = np.where(is_whole, np.where(tops == UNIT, _ONCE, _WHOLE), _UNITS)
    heads = np.empty(len(starts), [("form", "<u1"), ("first", "<u4")])
    heads["form"] = 3 * kinds + widths
    heads["first"] = ordinals[starts]
    head_bytes = heads.tobytes()
    steps_by_width = {width: steps.astype(_STEPS[width]).tobytes() for width in range(3)}
    whole = (units // UNIT).astype("<u1").tobytes()
    in_units = units.astype("<u2").tobytes()
    begins = starts.tolist()
    ends = [*begins[1:], len(entries)]
    at = 0
    # Most terms occur in one row: what only the others need is not computed for all.
    for term, begin, end, kind, width in zip(
        terms, begins, ends, kinds.tolist(), widths.tolist(), strict=True
    ):
        key = TERM_TAG + term.encode()
        data = head_bytes[at : at + _POSTINGS.size]
        at += _POSTINGS.size
        if end - begin > 1:
            data += steps_by_width[width][(begin + 1) << width : end << width]
        if kind == _WHOLE:
            data += whole[begin:end]
        elif kind == _UNITS:
            data += in_units[2 * begin : 2 * end]
        yield key, data + _pack_crc(crc32(data, crc32(key)))  # _sealed(), inline


def unpack_postings(key: bytes, value: bytes, rows: int) -> Postings | FewPostings:
    """Ordinals, below `rows`, and frequencies; up to FEW as lists. Raises CorruptionError."""
    seed = crc32(key)
    if len(value) < _POSTINGS.size + CRC_SIZE or crc32(value, seed) != CRC_RESIDUE:
        raise _damaged(key)
    form, first = _POSTINGS.unpack_from(value)
    if form >= _FORMS:
        raise _invalid(key)
    kind, width = divmod(form, 3)
    step_bytes = 1 << width
    end = len(value) - CRC_SIZE
    count, rest = divmod(end - _POSTINGS.size + step_bytes, step_bytes + kind)
    if rest or not count:
        raise _invalid(key)
    middle = _POSTINGS.size + (count - 1) * step_bytes
    if count <= FEW:
        return _unpack_few(key, value, rows, count, kind, width, first)
    data = memoryview(value)[:end]
    ordinals = _ascending(
        key, first, np.frombuffer(data[_POSTINGS.size : middle], _STEPS[width]), rows
    )
    if kind == _ONCE:
        frequencies = np.ones(count, np.float32)
        return ordinals, frequencies
    frequencies = np.frombuffer(data[middle:], _STEPS[kind - 1]).astype(np.float32)
    if not frequencies.min():
        raise _invalid(key)
    if kind == _UNITS:
        frequencies /= np.float32(UNIT)
    return ordinals, frequencies


def _unpack_few(
    key: bytes, value: bytes, rows: int, count: int, kind: int, width: int, first: int
) -> FewPostings:
    """unpack_postings() for few, where calls of numpy would cost more than they save."""
    ordinals = [first]
    if count > 1:
        steps = _FEW_NUMBERS[width, count - 1].unpack_from(value, _POSTINGS.size)
        if 0 in steps:
            raise _invalid(key)
        ordinals = list(accumulate(steps, initial=first))
    if ordinals[-1] >= rows:
        raise _invalid(key)
    if kind == _ONCE:
        return ordinals, [1.0] * count
    at = _POSTINGS.size + ((count - 1) << width)
    numbers = _FEW_NUMBERS[kind - 1, count].unpack_from(value, at)
    if 0 in numbers:
        raise _invalid(key)
    unit = 1 if kind == _WHOLE else UNIT
    return ordinals, [number / unit for number in numbers]


def arrays(postings: Postings | FewPostings) -> Postings:
    """Postings as arrays."""
    ordinals, frequencies = postings
    if isinstance(ordinals, list):
        return np.array(ordinals, np.int64), np.array(frequencies, np.float32)
    assert isinstance(frequencies, np.ndarray)
    return ordinals, frequencies


def unpack_entries(key: bytes, value: bytes, rows: int) -> bytes:
    """unpack_postings() as entries, in native byte order. Raises CorruptionError."""
    if len(value) == _POSTINGS.size + CRC_SIZE and crc_matches(value, crc32(key)):
        form, first = _POSTINGS.unpack_from(value)
        if form == _ONCE and first < rows:  # most terms occur once in one row
            entry: int = first << ENTRY_SHIFT | UNIT
            return entry.to_bytes(ENTRY_BYTES, byteorder)
    ordinals, frequencies = arrays(unpack_postings(key, value, rows))
    units = np.rint(frequencies * UNIT).astype(np.uint64)
    return (ordinals.astype(np.uint64) << ENTRY_SHIFT | units).tobytes()


def _ascending(key: bytes, first: int, steps: NDArray[Any], end: int) -> NDArray[np.int64]:
    """Cumulates steps, all above 0, to numbers from `first` on. Raises CorruptionError when one is
    not below `end`."""
    numbers = np.empty(len(steps) + 1, np.int64)
    numbers[0] = min(first, end)
    numbers[1:] = steps
    if len(steps) and not steps.min():  # min() is vectorised, all() is not
        raise _invalid(key)
    np.cumsum(numbers, out=numbers)
    if not first <= int(numbers[-1]) < end:
        raise _invalid(key)
    return numbers


def _sealed(key: bytes, data: bytes) -> bytes:
    return data + append_crc(data, crc32(key))


def _unsealed(key: bytes, value: bytes, size_min: int) -> memoryview:
    if len(value) < size_min + CRC_SIZE or not crc_matches(value, crc32(key)):
        raise _damaged(key)
    return memoryview(value)[:-CRC_SIZE]


def _damaged(key: bytes) -> CorruptionError:
    return CorruptionError(f"the value of {key!r} in a text index is damaged")


def _invalid(key: bytes) -> CorruptionError:
    return CorruptionError(f"the value of {key!r} in a text index is not valid")
