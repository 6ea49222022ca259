"""Durable files for people and other programs: exports, sinks, archives.

This is the only module of bindings/ that imports `amberdb._fs`. The public API has no files, and
a file that replaces another needs the care of the core: staging name, sync, rename, sync of the
directory.

Invariants:
- A file takes its name when all of its content is on disk; until then the old file is untouched.
- A new file is for its owner alone. One that replaces another has that one's permissions, and of a
  link the file behind it is replaced.
- One process writes to a file.
"""

import gzip
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from typing import BinaryIO, Final, TextIO, cast

from amberdb import _fs

_OS: Final = _fs.OsFileSystem()
GROUP_FILES: Final = 1000
GROUP_BYTES: Final = 16 << 20


def append_lines(path: str | os.PathLike[str], lines: bytes) -> None:
    """Appends whole lines and syncs; creates the file when it is missing. After a line that a crash
    cut short they start on a new line. Raises OSError."""
    _fs.append_lines(_OS, os.fspath(path), lines)


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Creates or replaces a file, atomically and durably. Raises OSError."""
    target = os.path.realpath(path)
    _fs.replace_file(_OS, target, content, private=True, verify=partial(_keep_mode, target))


def replace_file_parts(path: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
    """replace_file() for a file that is larger than memory. Raises OSError."""
    _fs.replace_file(_OS, os.path.realpath(path), b"", parts, private=True)


def private_file(path: str) -> BinaryIO:
    """A new file for its owner alone, open for writing. It is not synced. Raises OSError."""
    return open(path, "xb", opener=_private)


def is_staged(name: str) -> bool:
    """Whether it is the name of a file that is being written, or whose writer was killed."""
    return _fs.staged_for(name) is not None


def replace_files(directory: str | os.PathLike[str], files: Iterable[tuple[str, bytes]]) -> int:
    """Creates or replaces files of a directory, which is made if missing, from their names and
    contents: each atomically and durably, a group of them in the time of a few syncs; how many.
    Raises OSError."""
    target = os.path.realpath(directory)
    os.makedirs(target, exist_ok=True)
    count = 0
    for group in _groups(files):
        paths = [(os.path.realpath(os.path.join(target, name)), data) for name, data in group]
        _fs.replace_files(_OS, paths, private=True, verify=_keep_mode)
        count += len(paths)
    _OS.sync_dir(target)
    _OS.sync_dir(os.path.dirname(target))
    return count


def _groups(files: Iterable[tuple[str, bytes]]) -> Generator[list[tuple[str, bytes]]]:
    """Files that are staged together: GROUP_FILES, or about GROUP_BYTES."""
    group: list[tuple[str, bytes]] = []
    size = 0
    for name, data in files:
        group.append((name, data))
        size += len(data)
        if len(group) == GROUP_FILES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def remove_staged(directory: str | os.PathLike[str], ending: str) -> None:
    """Removes what killed writers of files with this ending have left in a directory, where
    nobody may be writing. Raises OSError."""
    for name in os.listdir(directory):
        if (_fs.staged_for(name) or "").endswith(ending):
            _OS.unlink(os.path.join(directory, name))


def rename_file(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Renames within a directory, durably. Raises OSError."""
    _OS.rename(os.fspath(path), os.fspath(target))
    _OS.sync_dir(os.path.dirname(target) or ".")


@contextmanager
def whole_file(path: str) -> Generator[TextIO]:
    """A text file that is created or replaced, durably, when the block ends without an error;
    compressed when the path ends in .gz. Raises OSError."""
    with whole_binary_file(path) as raw:
        if path.endswith(".gz"):
            # No time and no name in the header: equal documents make equal files.
            with gzip.GzipFile("", "wb", 6, raw, 0) as packed, _text(packed) as text:
                yield text
        else:
            with _text(raw) as text:
                yield text


@contextmanager
def whole_binary_file(path: str) -> Generator[BinaryIO]:
    """As whole_file(), for bytes as they are."""
    target = os.path.realpath(path)
    staging = _fs.staging_name(target)
    try:
        with open(staging, "xb", opener=_private) as raw:
            yield raw
        file = _OS.open(staging)
        try:
            file.sync()
        finally:
            file.close()
        _keep_mode(target, staging)
        rename_file(staging, target)
    except BaseException:
        if os.path.exists(staging):
            os.unlink(staging)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keep_mode(target: str, staging: str) -> None:
    """Gives a file that is about to replace another one its permissions."""
    if os.path.exists(target):
        os.chmod(staging, stat.S_IMODE(os.stat(target).st_mode))


def _text(raw: BinaryIO | gzip.GzipFile) -> TextIOWrapper:
    return TextIOWrapper(cast(BinaryIO, raw), encoding="utf-8", newline="\n")
