"""STATUS: the words that a writer stores, and the files that a reader ignores."""

import os
from pathlib import Path

import pytest

from amberdb import Lsn
from amberdb._fs import OsFileSystem, boot_id
from amberdb.engine.storage import status as statuses
from amberdb.engine.storage.status import Status

ID = bytes(range(16))
FS = OsFileSystem()


def begun(tmp_path: Path, last: int = 7) -> Status:
    return Status.begin(FS, str(tmp_path), ID, Lsn(last))


def read(tmp_path: Path, id: bytes = ID) -> Status | None:
    return Status.read(FS, str(tmp_path), id)


def test_what_one_stores_the_other_sees(tmp_path: Path) -> None:
    writer = begun(tmp_path)
    reader = read(tmp_path)
    assert reader is not None
    assert (reader.visible, reader.durable) == (7, 7)
    writer.set_visible(9)
    assert (reader.visible, reader.durable) == (9, 7)
    writer.set_durable(8)
    assert (reader.visible, reader.durable) == (9, 8)


def test_the_next_writer_goes_on_in_the_file_that_readers_have(tmp_path: Path) -> None:
    begun(tmp_path)
    reader = read(tmp_path)
    assert reader is not None
    begun(tmp_path, 12)
    assert (reader.visible, reader.durable) == (12, 12)


def test_what_says_nothing_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(tmp_path) is None
    begun(tmp_path)
    path = tmp_path / statuses.NAME
    whole = path.read_bytes()
    assert read(tmp_path, bytes(16)) is None
    for at in range(56):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read(tmp_path) is None, at
    for damaged in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(damaged)
        assert read(tmp_path) is None
    path.write_bytes(whole)
    assert read(tmp_path) is not None
    monkeypatch.setattr(statuses, "boot_id", lambda: bytes(16))
    assert read(tmp_path) is None
    begun(tmp_path, 8)  # after a restart of the machine
    found = read(tmp_path)
    assert found is not None
    assert found.visible == 8


@pytest.mark.parametrize("left", [b"", b"x" * 72, b"x" * statuses.SIZE, b"x" * 5000])
def test_whatever_is_there_is_put_right(tmp_path: Path, left: bytes) -> None:
    (tmp_path / statuses.NAME).write_bytes(left)
    begun(tmp_path)
    found = read(tmp_path)
    assert found is not None
    assert (found.visible, found.durable) == (7, 7)
    assert os.path.getsize(tmp_path / statuses.NAME) == statuses.SIZE


def test_a_boot_has_one_id() -> None:
    assert len(boot_id()) == 16
    assert boot_id() == boot_id()
