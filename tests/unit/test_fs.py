"""The file seam: what is written is whole, names change at once, locks exclude."""

import errno
import os
from pathlib import Path

import pytest

from amberdb._fs import (
    File,
    FileSystem,
    OsFileSystem,
    first_free_name,
    replace_file,
    replace_files,
)
from support.faulty_fs import FaultyFileSystem, fail_on


@pytest.fixture
def fs() -> FileSystem:
    return OsFileSystem()


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
    replace_file(fs, path + ".tmp", b"another program's")
    replace_file(fs, path, b"first, and longer")
    replace_file(fs, path, b"second")
    assert fs.read(path) == b"second"
    assert fs.read(path + ".tmp") == b"another program's"
    assert fs.listdir(os.path.dirname(path)) == ["file", "file.tmp"]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_beside_it(path: str) -> None:
    faulty = FaultyFileSystem()
    replace_file(faulty, path, b"old")
    for kind in ("open", "pwrite", "sync", "rename"):
        suffix = "file" if kind == "rename" else "file.tmp"
        faulty.hook = fail_on(kind, suffix, OSError(errno.ENOSPC, "injected"))
        with pytest.raises(OSError, match="injected"):
            replace_file(faulty, path, b"new")
        assert faulty.read(path) == b"old"
        assert faulty.listdir(os.path.dirname(path)) == ["file"]


def test_files_that_are_replaced_together_are_each_old_or_new_after_any_failure(
    tmp_path: Path,
) -> None:
    paths = [str(tmp_path / f"{number}") for number in range(3)]
    files = [(path, b"new") for path in paths]
    faulty = FaultyFileSystem()
    replace_files(faulty, files)
    kinds = [kind for kind, _ in faulty.calls]
    assert kinds == ["open", "pwrite"] * 3 + ["open", "sync"] * 3 + ["rename"] * 3 + ["sync_dir"]
    for number in range(1, len(kinds)):
        for path in paths[1:]:
            replace_file(faulty, path, b"old")
        faulty.arm(fail_at=number)
        with pytest.raises(OSError):  # noqa: PT011
            replace_files(faulty, files)
        faulty.disarm()
        assert faulty.listdir(str(tmp_path)) == ["0", "1", "2"]
        found = [faulty.read(path) for path in paths[1:]]
        assert found in ([b"old", b"old"], [b"new", b"old"], [b"new", b"new"])


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
    seen, kept = fs.map_shared(path), fs.map_shared(path, writable=True)
    kept[0] = ord("c")
    assert bytes(seen) == b"cld!"
    with pytest.raises(TypeError):
        seen[0] = 0
    replace_file(fs, path, b"new.")
    assert (bytes(seen), bytes(fs.map_shared(path))) == (b"cld!", b"new.")


def test_a_replaced_file_has_another_identity(fs: FileSystem, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        fs.file_identity(path)
    replace_file(fs, path, b"one")
    before = fs.file_identity(path)
    assert fs.file_identity(path) == before
    replace_file(fs, path, b"two")
    assert fs.file_identity(path) != before


def test_the_first_free_name_is_numbered(fs: FileSystem, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    assert first_free_name(fs, path, ".bak") == path + ".bak"
    for name in (".bak", ".1.bak", ".3.bak"):
        (tmp_path / f"x{name}").touch()
    assert first_free_name(fs, path, ".bak") == path + ".2.bak"
    assert first_free_name(fs, path, ".bak", fits=lambda name: ".1." in name) == path + ".1.bak"


class _Reluctant:
    """os.pread and os.pwrite that do one byte at a time, as signals may make them."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self.real_pread(fd, min(size, 1), offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self.real_pwrite(fd, data[:1], offset)

    real_pread = staticmethod(os.pread)
    real_pwrite = staticmethod(os.pwrite)


def test_short_reads_and_writes_are_continued(
    fs: FileSystem, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reluctant = _Reluctant()
    for name in ("pread", "pwrite"):
        monkeypatch.setattr(os, name, getattr(reluctant, name))
    file: File = fs.open(path, create=True)
    file.pwrite(b"hello", 2)
    assert file.pread(5, 2) == b"hello"
    assert file.pread(50, 2) == b"hello"
    file.close()
