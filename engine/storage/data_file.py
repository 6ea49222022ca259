"""The LMDB data file, read without LMDB: its meta pages, its size, the version that wrote it.

    meta page   page header 16 | magic u32 | version u32 | address u64 | map size u64 |
                free tree 48 | main tree 48 | last page u64 | transaction u64
    tree        page size u32 (of the free tree) | flags u16 | depth u16 | four counts u64 |
                root page u64

Invariants:
- Pages 0 and 1 are meta pages; the one of the newer transaction counts.
- Nothing here maps the file: a file shorter than its meta pages say would kill the process that
  maps it (SIGBUS).
"""

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, cast

import lmdb

from amberdb._errors import CorruptionError, FormatError
from amberdb._fs import FileSystem
from amberdb.engine.storage.page_format import META, NO_PAGE, PAGE_HEADER_SIZE

DATA_FILE = "data.mdb"
PAGE_SIZE = 4096
"""The page size where no meta page can be read."""
HEAD_BYTES = 1 << 16
"""The start of the file that has both meta pages, whatever the page size."""
PAGE_SIZE_MIN, PAGE_SIZE_MAX = 1 << 9, 1 << 15
"""LMDB's limits."""
_MAGIC = 0xBEEFC0DE
_VERSION = 1
_META_PAGE = Struct("<IIQQ" + "IHHQQQQQ" * 2 + "QQ")
assert _META_PAGE.size == 136
_TREE = Struct("<IHHQQQQQ")
TREE_SIZE = 48
"""The bytes that describe a tree, as the value of its name."""
assert _TREE.size == TREE_SIZE
_PAGE_HEAD = Struct("<QHHI")
assert _PAGE_HEAD.size == PAGE_HEADER_SIZE
_INTEGER_KEYS = 8
"""The flag of the free tree."""


class Tree(NamedTuple):
    """One tree: its depth, its pages by kind, its entries, and its root page."""

    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


def pack_tree(tree: Tree) -> bytes:
    """What describes a tree beside its name."""
    return _TREE.pack(0, 0, *tree)


def unpack_tree(value: bytes) -> Tree:
    """The tree of TREE_SIZE bytes beside its name."""
    return Tree(*_TREE.unpack(value)[2:])


@dataclass(frozen=True, slots=True, order=True)
class Meta:
    """The content of a meta page."""

    transaction: int
    page_size: int
    last_page: int
    free: Tree
    main: Tree


def read_metas(head: bytes) -> list[Meta]:
    """The meta pages that are valid, none to two, from the first 64 KiB of the file."""
    metas: list[Meta] = []
    page_size = PAGE_SIZE
    for number in range(2):
        offset = number * page_size + PAGE_HEADER_SIZE
        if len(head) < offset + _META_PAGE.size:
            break
        magic, version, _, _, *trees, last_page, transaction = _META_PAGE.unpack_from(head, offset)
        size = trees[0]
        is_page_size = PAGE_SIZE_MIN <= size <= PAGE_SIZE_MAX and not size & (size - 1)
        if magic == _MAGIC and version == _VERSION and is_page_size:
            page_size = size
            free, main = Tree(*trees[2:8]), Tree(*trees[10:16])
            metas.append(Meta(transaction, size, last_page, free, main))
    return metas


def meta_pages(page_size: int, last_page: int, main: Tree) -> bytes:
    """The two meta pages of a new file without free pages: of an empty one, and of one commit."""
    no_tree = (0, 0, 0, 0, 0, NO_PAGE)
    pages: list[bytes] = []
    for number, tree, last in ((0, no_tree, 1), (1, main, last_page)):
        head = _PAGE_HEAD.pack(number, 0, META, 0)
        free = (page_size, _INTEGER_KEYS, *no_tree)
        meta = _META_PAGE.pack(_MAGIC, _VERSION, 0, 0, *free, 0, 0, *tree, last, number)
        pages.append((head + meta).ljust(page_size, b"\0"))
    return b"".join(pages)


def check_file(fs: FileSystem, path: str, *, repair: bool = True) -> None:
    """Raises CorruptionError unless LMDB may map this file.

    Only unwritten free pages may be missing at the end: with `repair` the file is extended by
    them.
    """
    if not fs.exists(path):
        raise CorruptionError(f"{path} is missing: restore a backup", path=path, offset=0)
    file = fs.open(path, read_only=True)
    try:
        size = file.size()
        metas = read_metas(file.pread(HEAD_BYTES, 0))
        if not metas and size > HEAD_BYTES:
            raise CorruptionError(
                f"{path}: both meta pages are damaged: restore a backup", path=path, offset=0
            )
    finally:
        file.close()
    if not metas:
        raise CorruptionError(
            f"{path}: no LMDB meta page in it: restore a backup", path=path, offset=0
        )
    meta = max(metas)
    wanted = (meta.last_page + 1) * meta.page_size
    if size < wanted:
        problems = verify_file(path)
        if problems:
            raise CorruptionError(
                f"{path}: the file was truncated to {size} of {wanted} bytes ({problems[0]}): "
                "restore a backup",
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
    """Reads every page that can be reached, without LMDB, and returns the problems with their
    offsets."""
    from lmdb import verify  # imported on demand: few opens need it

    check = cast(
        "Callable[[str, bool], list[str]]",
        verify.verify,  # pyright: ignore[reportUnknownMemberType]
    )
    try:
        problems = check(path, False)
    except verify.VerifyError as error:
        problems = [str(error)]
    except Exception as error:  # damage that the verifier does not expect
        problems = [f"the verifier failed: {error!r}"]
    return [_with_offset(path, problem) for problem in problems]


def lmdb_version() -> int:
    """The version of the LMDB library: major << 16 | minor << 8 | patch."""
    major, minor, patch = lmdb.version()[:3]
    return major << 16 | minor << 8 | patch


def are_own_pages(page_size: int, wrote: int) -> bool:
    """Whether the LMDB of this process would write such pages: its page size is the system's, and
    `wrote` has its major and minor number."""
    own_size = min(mmap.PAGESIZE, PAGE_SIZE_MAX)
    return page_size == own_size and wrote >> 8 == lmdb_version() >> 8


def check_version(path: str, wrote: int) -> None:
    """Raises FormatError when `wrote`, the version of LMDB that wrote the data, has another major
    or minor number than this one."""
    if wrote >> 8 != lmdb_version() >> 8:
        raise FormatError(
            f"{path} was written by LMDB {_dotted(wrote)}, and this is "
            f"{_dotted(lmdb_version())}: open it with the version that wrote it",
            path=path,
        )


def _dotted(version: int) -> str:
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"


def _with_offset(path: str, problem: str) -> str:
    page = re.search(r"\bpage (\d+)", problem)
    where = f" offset {int(page[1]) * PAGE_SIZE}" if page else ""
    return f"{path}{where}: {problem}"
