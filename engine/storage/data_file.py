"""The LMDB data file, read without LMDB: its meta pages, its size, its version."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, cast

import lmdb

from amberdb._errors import CorruptionError, FormatError
from amberdb._fs import FileSystem

_META = Struct("<IIQQ" + "IHHQQQQQ" * 2 + "QQ")
assert _META.size == 136


PAGE_HEADER_SIZE = 16


PAGE_SIZE = 4096
"""Where no meta page says otherwise."""


_MAGIC = 0xBEEFC0DE


class Tree(NamedTuple):
    """The root of one tree, as a meta page has it."""

    depth: int
    root: int


@dataclass(frozen=True, slots=True, order=True)
class Meta:
    """A meta page that can be one."""

    transaction: int
    page_size: int
    last_page: int
    free: Tree
    main: Tree


def read_metas(head: bytes) -> list[Meta]:
    """The valid ones of the two, from the first 64 KiB of the file."""
    found: list[Meta] = []
    page_size = PAGE_SIZE
    for number in range(2):
        offset = number * page_size + PAGE_HEADER_SIZE
        if len(head) < offset + _META.size:
            break
        magic, version, _, _, *trees, last_page, transaction = _META.unpack_from(head, offset)
        size = trees[0]
        if magic == _MAGIC and version == 1 and 512 <= size <= 1 << 16 and not size & (size - 1):
            page_size = size
            free, main = Tree(trees[2], trees[7]), Tree(trees[10], trees[15])
            found.append(Meta(transaction, size, last_page, free, main))
    return found


DATA_FILE = "data.mdb"


def lmdb_version() -> int:
    major, minor, patch = lmdb.version()[:3]
    return major << 16 | minor << 8 | patch


def check_version(path: str, wrote: int) -> None:
    """Raises FormatError when another engine of LMDB wrote the data."""
    if wrote >> 8 != lmdb_version() >> 8:
        raise FormatError(
            f"{path} was written by LMDB {_dotted(wrote)}, and this is "
            f"{_dotted(lmdb_version())}: open it with the version that wrote it",
            path=path,
        )


def _dotted(version: int) -> str:
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"


def check_file(fs: FileSystem, path: str, *, repair: bool = True) -> None:
    """Whether LMDB may map this file. Raises CorruptionError naming what is wrong.

    Only unwritten free pages may be missing at the end: with `repair` the file is extended by
    them.
    """
    if not fs.exists(path):
        raise CorruptionError(f"{path} is missing: restore a backup", path=path, offset=0)
    file = fs.open(path, read_only=True)
    try:
        size = file.size()
        metas = read_metas(file.pread(1 << 16, 0))
        if not metas and size > 1 << 16:
            raise CorruptionError(f"{path}: both meta pages are damaged", path=path, offset=0)
    finally:
        file.close()
    if not metas:
        raise CorruptionError(f"{path}: no LMDB meta page in it", path=path, offset=0)
    meta = max(metas)
    wanted = (meta.last_page + 1) * meta.page_size
    if size < wanted:
        problems = verify_file(path)
        if problems:
            raise CorruptionError(
                f"{path}: {size} bytes, but its meta page speaks of {wanted}, and {problems[0]}: "
                "the file was truncated; restore a backup",
                path=path,
                offset=size,
            )
        if not repair:
            return
        file = fs.open(path)
        try:
            file.truncate(wanted)
        finally:
            file.close()


def verify_file(path: str) -> list[str]:
    """Reads every page that can be reached, without LMDB; what is wrong with them, and where."""
    from lmdb import verify  # needed once in a thousand opens

    look = cast(
        "Callable[[str, bool], list[str]]",
        verify.verify,  # pyright: ignore[reportUnknownMemberType]
    )
    try:
        found = look(path, False)
    except verify.VerifyError as error:
        found = [str(error)]
    except Exception as error:  # bytes that the verifier did not think of
        found = [f"the verifier failed: {error!r}"]
    return [_with_offset(path, problem) for problem in found]


def _with_offset(path: str, problem: str) -> str:
    page = re.search(r"\bpage (\d+)", problem)
    where = f" offset {int(page[1]) * PAGE_SIZE}" if page else ""
    return f"{path}{where}: {problem}"
