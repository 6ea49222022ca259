"""Whatever lies in the log directory: typed errors, and no record that was not written."""

import os
import tempfile
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import AmberError
from amberdb._fs import OsFileSystem
from amberdb._types import NO_LSN
from amberdb.wal import Log, LogOptions, repair
from amberdb.wal.record import find_headers, read_header, salted, scan
from amberdb.wal.segment import RECORDS_START, decode_header

DATABASE_ID = b"0123456789abcdef"
OPTIONS = LogOptions(segment_bytes_min=4096, segment_bytes_max=4096)
FS = OsFileSystem()
SALT = salted(0x0102030405060708)


@cache
def valid() -> tuple[dict[str, bytes], list[bytes]]:
    """A log of a few segments, as name -> bytes, and its payloads."""
    payloads = [b"%04d" % n * (n % 40) for n in range(100)]
    with tempfile.TemporaryDirectory() as path:
        log = Log.create(FS, path, database_id=DATABASE_ID, options=OPTIONS)
        for number, payload in enumerate(payloads):
            log.append(payload, number, 1, "always")
            if number % 10 == 0:
                log.sync()
        log.close()
        names = [name for name in FS.listdir(path) if name.endswith(".wal")]
        return {name: FS.read(os.path.join(path, name)) for name in names}, payloads


def open_all(path: str, epoch: int = 2) -> list[bytes]:
    found: list[bytes] = []
    log, _ = Log.open(
        FS,
        path,
        database_id=DATABASE_ID,
        options=OPTIONS,
        applied=NO_LSN,
        clean_last=None,
        epoch=epoch,
        replay=lambda record: found.append(record.payload),
    )
    assert [record.payload for record in log.read(NO_LSN)] == found
    log.close()
    return found


def check(files: dict[str, bytes]) -> None:
    """Opens; if that is refused, repairs and opens. What is found is a prefix."""
    _, payloads = valid()
    with tempfile.TemporaryDirectory() as path:
        for name, data in files.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)
        try:
            found = open_all(path)
        except AmberError:
            try:
                repair(FS, path, DATABASE_ID, applied=NO_LSN)
            except AmberError:
                return
            found = open_all(path, epoch=3)
    assert found == payloads[: len(found)]


@given(st.binary(max_size=2000))
def test_random_bytes_hold_no_records(data: bytes) -> None:
    assert list(scan(data, 0, SALT, SALT.chain, 1)) == []
    list(find_headers(data, 0, SALT, 0))
    read_header(data, 0, SALT)
    try:
        decode_header(data.ljust(RECORDS_START, b"\0"), "x")
    except AmberError:
        pass


@given(st.binary(max_size=2000), st.booleans())
def test_random_bytes_as_a_segment(data: bytes, after_header: bool) -> None:
    files, _ = valid()
    name = min(files)
    check({name: files[name][:RECORDS_START] + data if after_header else data})


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, bytes]:
    files = {name: bytearray(data) for name, data in valid()[0].items()}
    names = sorted(files)
    for _ in range(draw(st.integers(1, 4))):
        data = files[draw(st.sampled_from(names))]
        if not data:
            continue
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at : at + 512] = bytes(len(data[at : at + 512]))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + draw(st.integers(1, 64))]
            case 4:
                data[at:at] = draw(st.binary(min_size=1, max_size=64))
            case _:
                source = files[draw(st.sampled_from(names))]
                start = draw(st.integers(0, max(0, len(source) - 1)))
                data[at : at + 256] = source[start : start + 256]
    for name in draw(st.lists(st.sampled_from(names), max_size=1)):
        del files[name]
    return {name: bytes(data) for name, data in files.items()}


@given(mutations())
def test_mutated_log(files: dict[str, bytes]) -> None:
    check(files)


def test_unchanged_log_is_whole() -> None:
    files, payloads = valid()
    with tempfile.TemporaryDirectory() as path:
        for name, data in files.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)
        assert open_all(path) == payloads
