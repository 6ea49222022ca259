"""Cache files: every changed byte is detected, and nothing is raised for it."""

import logging
from pathlib import Path

import pytest

from amberdb import StorageError
from amberdb._fs import OsFileSystem
from amberdb._types import Lsn
from amberdb.engine.storage import cache_file
from amberdb.engine.storage.cache_file import ALIGNMENT, HEADER_SIZE, CacheFolder, Label, Unusable
from support.faulty_fs import FaultyFileSystem

ID = b"0123456789abcdef"
CONFIGURATION = b"c" * 16
LABEL = Label(keyspace=7, configuration=CONFIGURATION, lsn=Lsn(5), floor=3)
SECTIONS = [[b"abc", b"", b"defg"], [], [b"x" * 65]]


def _folder(path: Path, last_lsn: int = 5, database_id: bytes = ID) -> CacheFolder:
    return CacheFolder(OsFileSystem(), str(path), database_id, Lsn(last_lsn), {7, 8})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    sections = [[memoryview(piece) for piece in pieces] for pieces in SECTIONS]
    _folder(tmp_path).write(LABEL, sections)
    return tmp_path / "cache" / "7.cache"


def _content(folder: CacheFolder) -> list[bytes] | None:
    """None when the folder refuses the file, or one of its sections."""
    cached = folder.read(7, CONFIGURATION)
    if cached is None:
        return None
    try:
        return [bytes(cached.section(number)) for number in range(6)]
    except Unusable:
        return None


def test_what_was_written_is_read(file: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert _content(folder) == [b"abcdefg", b"", b"x" * 65, b"", b"", b""]
    cached = folder.read(7, CONFIGURATION)
    assert cached is not None
    assert cached.label == LABEL
    assert [path.name for path in file.parent.iterdir()] == ["7.cache"]
    assert file.stat().st_size == HEADER_SIZE + ALIGNMENT + 65


@pytest.mark.parametrize("thread_bytes", [1, 1 << 22])
def test_every_flipped_byte_is_noticed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread_bytes: int
) -> None:
    monkeypatch.setattr(cache_file, "_THREAD_BYTES", thread_bytes)
    whole = file.read_bytes()
    padding = range(HEADER_SIZE + 7, HEADER_SIZE + ALIGNMENT)
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        content = _content(_folder(tmp_path))
        assert (content is not None) == (at in padding), at


def test_every_length_but_the_right_one_is_noticed(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        assert _content(_folder(tmp_path)) is None
        assert not file.exists()
    file.write_bytes(whole + b"\0")
    assert _content(_folder(tmp_path)) is None


def test_a_file_of_something_else_is_dropped(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = file.read_bytes()
    other = file.with_name("8.cache")
    other.write_bytes(whole)
    with caplog.at_level(logging.WARNING):
        assert _folder(tmp_path).read(8, CONFIGURATION) is None
        assert (
            "8.cache is removed and will be built again: it belongs to another index" in caplog.text
        )
        assert not other.exists()
        assert _folder(tmp_path).read(7, b"d" * 16) is None
        assert "another declaration" in caplog.text
        assert not file.exists()
        file.write_bytes(whole)
        _folder(tmp_path, database_id=b"f" * 16)
        assert "another database" in caplog.text
    assert not file.exists()


def test_what_the_log_lost_is_removed_at_open(file: Path, tmp_path: Path) -> None:
    _folder(tmp_path, last_lsn=5)
    assert file.exists()
    _folder(tmp_path, last_lsn=4)  # the device lost synced records: their Lsns are given again
    assert not file.exists()


def test_what_the_log_lost_and_cannot_be_removed_is_not_opened_over(
    file: Path, tmp_path: Path
) -> None:
    """Later its Lsn would be before the end of the log, and its rows would have other content."""
    fs = FaultyFileSystem()
    for kind in ("unlink", "sync_dir"):
        fs.arm((kind,), 1)
        with pytest.raises(StorageError, match="remove it") as caught:
            CacheFolder(fs, str(tmp_path), ID, Lsn(4), {7})
        assert caught.value.path == str(file)


def test_a_file_of_no_index_is_removed_at_open(file: Path, tmp_path: Path) -> None:
    CacheFolder(OsFileSystem(), str(tmp_path), ID, Lsn(5), {8})
    assert not file.exists()


def test_unfinished_files_are_removed_at_open(file: Path, tmp_path: Path) -> None:
    unfinished = file.with_name("7.cache.tmp")
    unfinished.write_bytes(b"abc")
    _folder(tmp_path)
    assert not unfinished.exists()
    assert file.exists()


def test_dropping_twice_and_reading_nothing(file: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.drop(7)
    folder.drop(7)
    assert not file.exists()
    assert folder.read(7, CONFIGURATION) is None


def test_a_folder_that_cannot_be_read_is_no_error(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.unlink()
    file.mkdir()
    with caplog.at_level(logging.WARNING):
        assert _folder(tmp_path).read(7, CONFIGURATION) is None
    assert "cannot be removed" in caplog.text
