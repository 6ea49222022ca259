"""Names and headers of segments."""

import errno
from dataclasses import replace

import pytest

from amberdb._bytes import append_crc
from amberdb._errors import CorruptionError, FormatError
from amberdb._types import Lsn
from amberdb.wal.segment import (
    HEADER_SIZE,
    MAGIC,
    RECORDS_START,
    SegmentHeader,
    SyncFailedError,
    create_zeroed,
    decode_header,
    encode_header,
    load_segment,
    new_salt,
    parse_name,
    segment_name,
    size_for,
)
from support.faulty_fs import FaultyFileSystem, fail_on
from unit.wal.helpers import DATABASE_ID, LogDirectory

HEADER = SegmentHeader(
    database_id=DATABASE_ID,
    salt=new_salt(),
    first_lsn=Lsn(11),
    previous_first=Lsn(1),
    previous_last=Lsn(10),
    previous_crc=77,
    size=4096,
    recycled=True,
)


def test_header_comes_back() -> None:
    assert decode_header(encode_header(HEADER), "x") == HEADER
    assert decode_header(encode_header(replace(HEADER, recycled=False)), "x").recycled is False


def test_every_flipped_bit_of_the_header_is_noticed() -> None:
    data = encode_header(HEADER)
    for bit in range(8 * HEADER_SIZE):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptionError, FormatError)):
            decode_header(bytes(flipped), "x")


def test_magic_version_and_checksum_have_their_own_errors() -> None:
    data = encode_header(HEADER)
    newer = MAGIC + (2).to_bytes(4, "little") + bytes(HEADER_SIZE - 16)
    older = MAGIC + bytes(HEADER_SIZE - 12)
    with pytest.raises(CorruptionError, match="not a log segment") as caught:
        decode_header(b"X" + data[1:], "x")
    assert caught.value.offset == 0
    with pytest.raises(FormatError, match="newer"):
        decode_header((newer + append_crc(newer)).ljust(RECORDS_START, b"\0"), "x")
    with pytest.raises(CorruptionError, match="header of x is damaged") as caught:
        decode_header((older + append_crc(older)).ljust(RECORDS_START, b"\0"), "x")
    assert caught.value.offset == 0
    with pytest.raises(CorruptionError, match="damaged"):
        decode_header(data[:70] + b"?" + data[71:], "x")
    with pytest.raises(CorruptionError, match="too short") as caught:
        decode_header(data[: RECORDS_START - 1], "x")
    assert caught.value.offset == 0


def test_names() -> None:
    assert segment_name(0xABC) == "0000000000000abc.wal"
    assert parse_name("0000000000000abc.wal") == 0xABC
    for name in ("abc.wal", "0000000000000ABC.wal", "0000000000000abc.wal.broken", "free-0.seg"):
        assert parse_name(name) is None


def test_large_record_gets_a_segment_that_fits() -> None:
    assert size_for(100, 4096) == 4096
    assert size_for(4096 - RECORDS_START - 8, 4096) == 4096
    assert size_for(4096 - RECORDS_START, 4096) == 8192


def test_segment_is_checked_against_name_and_database(directory: LogDirectory) -> None:
    directory.create().close()
    (path,) = directory.segments()
    first = parse_name(path[-20:])
    assert first is not None
    assert load_segment(directory.fs, path, first, DATABASE_ID).size == 4096
    with pytest.raises(CorruptionError, match="another database") as caught:
        load_segment(directory.fs, path, first, b"f" * 16)
    assert caught.value.offset == 16
    with pytest.raises(CorruptionError, match="name of another") as caught:
        load_segment(directory.fs, path, first + 1, DATABASE_ID)
    assert caught.value.offset == 40


def test_failed_fill_leaves_no_file(fs: FaultyFileSystem, directory: LogDirectory) -> None:
    path = directory.path + "/new"
    for operation in ("pwrite", "sync"):
        fs.hook = fail_on(operation, "new.tmp", OSError(errno.EIO, "injected"))
        with pytest.raises(OSError, match="injected"):
            create_zeroed(fs, path, 4096)
        assert fs.listdir(directory.path) == []
    with pytest.raises(SyncFailedError):
        create_zeroed(fs, path, 4096)
    fs.hook = fail_on("unlink", "", OSError(errno.EIO, "second"))
    fs.hook = None
    for size in (3 << 20, (1 << 20) + 4096):
        create_zeroed(fs, path, size)
        assert fs.read(path) == bytes(size)
        fs.unlink(path)
