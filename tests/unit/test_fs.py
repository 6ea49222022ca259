"""The file seam, both faces: what is written is whole, names change at once, locks exclude."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amberdb._fs import File, FileSystem, OsFileSystem, replace_file
from support.faulty_fs import FaultyFileSystem


@pytest.fixture(params=[False, True], ids=["native", "portable"])
def fs(request: pytest.FixtureRequest) -> FileSystem:
    return OsFileSystem(portable=request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def test_bytes_are_read_where_they_were_written(fs: FileSystem, path: str) -> None:
    file = fs.open(path, create=True)
    file.pwrite(b"hello", 3)
    file.pwrite(b"J", 4)
    assert file.pread(100, 0) == b"\0\0\0hJllo"
    assert file.pread(2, 3) == b"hJ"
    assert file.pread(5, 100) == b""
    assert file.size() == 8
    file.close()


def test_truncation_cuts_and_extends(fs: FileSystem, path: str) -> None:
    file = fs.open(path, create=True)
    file.pwrite(b"hello", 0)
    file.truncate(2)
    assert file.pread(9, 0) == b"he"
    file.truncate(4)
    assert file.pread(9, 0) == b"he\0\0"
    file.close()


def test_sync_returns_and_the_bytes_are_there(fs: FileSystem, path: str) -> None:
    file = fs.open(path, create=True)
    file.pwrite(b"x", 0)
    file.sync()
    file.close()
    fs.sync_dir(os.path.dirname(path))
    assert fs.read(path) == b"x"


def test_create_refuses_a_file_that_is_there(fs: FileSystem, path: str) -> None:
    fs.open(path, create=True).close()
    with pytest.raises(FileExistsError):
        fs.open(path, create=True)


def test_open_refuses_a_file_that_is_not_there(fs: FileSystem, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        fs.open(path)
    assert not fs.exists(path)


def test_read_only_file_cannot_be_written(fs: FileSystem, path: str) -> None:
    fs.open(path, create=True).close()
    file = fs.open(path, read_only=True)
    with pytest.raises(OSError, match="descriptor"):
        file.pwrite(b"x", 0)
    file.close()


def test_a_file_is_closed_once(fs: FileSystem, path: str) -> None:
    file = fs.open(path, create=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="descriptor"):
        file.pread(1, 0)


def test_directories_are_made_listed_and_removed(fs: FileSystem, tmp_path: Path) -> None:
    inner = str(tmp_path / "inner")
    fs.mkdir(inner)
    for name in ("b", "a"):
        fs.open(os.path.join(inner, name), create=True).close()
    assert fs.is_dir(inner)
    assert not fs.is_dir(os.path.join(inner, "a"))
    assert fs.listdir(inner) == ["a", "b"]
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(inner)
    for name in ("a", "b"):
        fs.unlink(os.path.join(inner, name))
    fs.rmdir(inner)
    assert not fs.exists(inner)


def test_rename_replaces(fs: FileSystem, tmp_path: Path) -> None:
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    replace_file(fs, old, b"1")
    replace_file(fs, new, b"2")
    fs.rename(old, new)
    assert fs.read(new) == b"1"
    assert not fs.exists(old)


def test_replaced_file_is_whole_and_nothing_is_left_beside_it(fs: FileSystem, path: str) -> None:
    fs.open(path + ".tmp", create=True).close()  # of an attempt that was interrupted
    replace_file(fs, path, b"first, and longer")
    replace_file(fs, path, b"second")
    assert fs.read(path) == b"second"
    assert fs.listdir(os.path.dirname(path)) == ["file"]


def test_a_mapped_file_is_whole_and_stays_so(fs: FileSystem, path: str) -> None:
    replace_file(fs, path, b"abc", iter([b"", b"def"]))
    mapped = fs.map(path)
    assert bytes(mapped) == b"abcdef"
    replace_file(fs, path, b"")
    assert bytes(mapped) == b"abcdef"
    assert bytes(fs.map(path)) == b""


def test_much_is_synced_in_parts(fs: FileSystem, path: str) -> None:
    faulty = FaultyFileSystem(fs)
    replace_file(faulty, path, b"a", (bytes(9 << 20) for _ in range(4)))
    assert [kind for kind, _ in faulty.calls].count("sync") == 3
    assert len(fs.read(path)) == 1 + 4 * (9 << 20)


def test_lock_excludes_and_names_the_owner(fs: FileSystem, path: str) -> None:
    owner = f"{os.getpid()} here"
    lock = fs.lock(path, owner)
    with pytest.raises(BlockingIOError) as caught:
        fs.lock(path, "other")
    assert caught.value.filename2 == owner
    lock.close()
    lock.close()
    fs.lock(path, "other").close()


def test_shared_locks_exclude_only_owners(path: str) -> None:
    fs = OsFileSystem()
    with pytest.raises(FileNotFoundError):
        fs.lock_shared(path)
    owner = fs.lock(path, "1 here")
    with pytest.raises(BlockingIOError) as caught:
        fs.lock_shared(path)
    assert caught.value.filename2 == "1 here"
    owner.close()
    first, second = fs.lock_shared(path), fs.lock_shared(path)
    first.close()
    with pytest.raises(BlockingIOError):
        fs.lock(path, "2 here")
    second.close()
    fs.lock(path, "2 here").close()


def test_what_is_stored_in_a_shared_file_is_seen(fs: FileSystem, path: str) -> None:
    Path(path).write_bytes(b"old!")
    seen, kept = fs.share(path), fs.share(path, writable=True)
    kept[0] = ord("c")
    assert bytes(seen) == b"cld!"
    with pytest.raises(TypeError):
        seen[0] = 0
    replace_file(fs, path, b"new.")
    assert (bytes(seen), bytes(fs.share(path))) == (b"cld!", b"new.")


def test_a_stamp_is_another_one_after_a_replacement(fs: FileSystem, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        fs.stamp(path)
    replace_file(fs, path, b"one")
    before = fs.stamp(path)
    assert fs.stamp(path) == before
    replace_file(fs, path, b"two")
    assert fs.stamp(path) != before


def test_lock_of_a_dead_process_is_taken_over(path: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(path).write_text(f"{child.stdout.strip()} here")
    OsFileSystem(portable=True).lock(path, f"{os.getpid()} here").close()
    assert not os.path.exists(path)


@pytest.mark.parametrize("owner", ["1 here", f"{os.getpid()} here"], ids=["other", "own"])
def test_pid_lock_of_a_live_process_is_kept(path: str, owner: str) -> None:
    Path(path).write_text(owner)
    with pytest.raises(BlockingIOError):
        OsFileSystem(portable=True).lock(path, "other")


def test_pid_lock_without_a_pid_is_of_nobody_alive(path: str) -> None:
    Path(path).write_text("")
    OsFileSystem(portable=True).lock(path, "1 here").close()


class _Reluctant:
    """os.pread and os.pwrite that do one byte at a time, as signals may make them."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self.real_pread(fd, min(size, 1), offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self.real_pwrite(fd, data[:1], offset)

    def write(self, fd: int, data: bytes) -> int:
        return self.real_write(fd, data[:1])

    def read(self, fd: int, size: int) -> bytes:
        return self.real_read(fd, min(size, 1))

    real_pread = staticmethod(os.pread)
    real_pwrite = staticmethod(os.pwrite)
    real_write = staticmethod(os.write)
    real_read = staticmethod(os.read)


def test_short_reads_and_writes_are_continued(
    fs: FileSystem, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reluctant = _Reluctant()
    for name in ("pread", "pwrite", "read", "write"):
        monkeypatch.setattr(os, name, getattr(reluctant, name))
    file: File = fs.open(path, create=True)
    file.pwrite(b"hello", 2)
    assert file.pread(5, 2) == b"hello"
    assert file.pread(50, 2) == b"hello"
    file.close()
