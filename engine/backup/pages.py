"""The contents of a full archive: leaf pages and large values, or the pairs of an older program.

    PAGES    up to PAGES_BYTES_MAX of leaf pages, packed
    VALUES   their large values, in order: as many blocks as they need, each of whole values

Invariants:
- Keys ascend over the whole archive. Of LOCAL it has what is true of every copy of the data: the
  applied Lsn, its time, and the marks of complete indexes.
- Whatever the bytes of an archive: what is read from it are leaf pages that LMDB may map, or pairs
  that it may be given.
- A block is read into bounded memory: its own size, and PAGES_BYTES_MAX.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice, takewhile
from operator import lt
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError
from amberdb.engine.backup.archive import Archive, Content, Header, Kind
from amberdb.engine.jobs import Turns
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import (
    APPLIED,
    BUILT,
    FIRST_PREFIX,
    KEYS_END,
    LAST_TIME,
    LOCAL,
    META,
    end_of,
)
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.vector_block import check_block
from amberdb.index.ordered.keys import KEYSPACE_BYTES, LMDB_KEY_BYTES_MAX

if TYPE_CHECKING:
    from amberdb.engine.storage.leaves import Leaves
    from amberdb.engine.storage.tree_file import TreeReader

Pair: TypeAlias = tuple[bytes, bytes]

VALUES_BYTES: Final = 1 << 16
"""A block of large values ends after the value that reaches this size."""
_TURN_DOCUMENTS: Final = 128
"""Documents between two reads of the clock."""


# -- writing -------------------------------------------------------------------------------------


def page_contents(
    tree: "TreeReader",
    header: Header,
    schemas: Mapping[bytes, Schema],
    counts: Mapping[str, int],
    is_busy: Callable[[], bool],
) -> Generator[Content]:
    """The blocks of all leaf pages. While others commit, they get the interpreter often. Raises
    CorruptionError when a page or a document is damaged, or a counter is wrong."""
    check = _KeyCheck(header)
    turns = Turns()

    def pause() -> None:
        if is_busy():
            turns.offer()

    documents = _Documents(schemas, pause)
    for stored in tree.leaves():
        pause()
        leaves = _portable(stored)
        if leaves is None:
            continue
        check.add(leaves.keys(), leaves.value)
        pause()
        documents.check_pages(leaves)
        pause()
        large = leaves.large()
        yield Content(Kind.PAGES, leaves.nodes, leaves.packed())
        block: list[bytes] = []
        size = 0
        for key, page, value_size in large:
            block.append(tree.value(page, value_size))
            documents.check_large(key, block[-1])
            size += value_size
            if size >= VALUES_BYTES:
                yield Content(Kind.VALUES, 0, b"".join(block))
                block, size = [], 0
        if size:
            yield Content(Kind.VALUES, 0, b"".join(block))
    check.finish()
    documents.check_counts(counts)


def _portable(leaves: "Leaves") -> "Leaves | None":
    """The pages without the pairs that describe this data.mdb only; None if there are no others."""
    first, last = leaves.bounds()
    if first >= FIRST_PREFIX or last < LOCAL:
        return leaves
    return leaves.having({node for node, key in enumerate(leaves.keys()) if _is_portable(key)})


def _is_portable(key: bytes) -> bool:
    return not key.startswith(LOCAL) or key in (APPLIED, LAST_TIME) or key.startswith(BUILT)


@final
class _Documents:
    """Checks the documents of a backup and their vectors, and counts the documents."""

    def __init__(self, schemas: Mapping[bytes, Schema], pause: Callable[[], None]) -> None:
        self._schemas = schemas
        self._blocks = frozenset(s.vector_prefix for s in schemas.values() if s.vector_prefix)
        self._counts = dict.fromkeys(schemas, 0)
        self._pause = pause

    def check_pages(self, leaves: "Leaves") -> None:
        """Counts the documents in the pages, and checks those that are not large. Raises
        CorruptionError."""
        first, last = leaves.bounds()
        for prefix in self._schemas:
            if first < end_of(prefix) and last > prefix:
                pairs = leaves.pairs_of(prefix)
                self._counts[prefix] += len(pairs)
                for start in range(0, len(pairs), _TURN_DOCUMENTS):
                    self._pause()
                    _check_documents(pairs[start : start + _TURN_DOCUMENTS])
        for prefix in self._blocks:
            if first < end_of(prefix) and last > prefix:
                for key, value in leaves.pairs_of(prefix):
                    if value is not None:
                        check_block(key, value)

    def check_large(self, key: bytes, value: bytes) -> None:
        """Checks a large value, if it is a document or a block of vectors. Raises
        CorruptionError."""
        if key[:KEYSPACE_BYTES] in self._schemas:
            unpack(key, value)
        elif key[:KEYSPACE_BYTES] in self._blocks:
            self._pause()
            check_block(key, value)

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Raises CorruptionError unless there were as many documents as the counters say."""
        for prefix, schema in self._schemas.items():
            count, counted = counts[schema.name], self._counts[prefix]
            if count != counted:
                raise CorruptionError(
                    f"{schema.name}: the counter says {count} documents, and there are {counted}: "
                    "run `amberdb check`, then `repair`"
                )


def _check_documents(pairs: list[tuple[bytes, bytes | None]]) -> None:
    """Raises CorruptionError unless the checksums are right; large values are not looked at."""
    stored = [(key, value) for key, value in pairs if value is not None]
    residues = [crc32(value, crc32(key)) for key, value in stored]
    if residues.count(CRC_RESIDUE) != len(stored):
        for key, value in stored:
            unpack(key, value)


# -- reading -------------------------------------------------------------------------------------


def pairs_of(archive: Archive) -> Iterator[list[Pair]]:
    """The pairs of a full archive in blocks, as they may be given to LMDB: keys ascending, and the
    LOCAL entries that agree with the header. Raises CorruptionError."""
    if archive.header.page_size:
        yield from _pairs_of_pages(archive)
        return
    check = _KeyCheck(archive.header)
    for block in archive.pairs():
        if None in block.values():
            raise CorruptionError("a pair without a value")
        pairs = cast(list[Pair], list(block.items()))
        check.add([key for key, _ in pairs], [value for _, value in pairs].__getitem__)
        yield pairs
    check.finish()


def _pairs_of_pages(archive: Archive) -> Iterator[list[Pair]]:
    for leaves, _, values in leaves_of(archive):
        block: list[Pair] = []
        size = 0
        for key, stored in leaves.pairs():
            value = next(values) if stored is None else stored
            block.append((key, value))
            size += len(value)
            if size >= VALUES_BYTES:
                yield block
                block, size = [], 0
        yield block


def leaves_of(archive: Archive) -> "Iterator[tuple[Leaves, list[bytes], Iterator[bytes]]]":
    """(leaf pages, their keys, their large values) of a full archive with pages, as LMDB may map
    them: checked as pairs_of() does. Raises CorruptionError."""
    blocks = archive.pages()
    check = _KeyCheck(archive.header)
    for leaves in blocks:
        if isinstance(leaves, bytes):
            raise CorruptionError("large values that no page refers to")
        keys = leaves.keys()
        check.add(keys, leaves.value)
        values = _large_values(blocks, [size for _, _, size in leaves.large()])
        yield leaves, keys, values
        for _ in values:  # those that were not read
            pass
    check.finish()


def _large_values(blocks: "Iterator[Leaves | bytes]", sizes: list[int]) -> Iterator[bytes]:
    """The next large values of an archive, with these sizes. Raises CorruptionError."""
    data = b""
    at = 0
    for size in sizes:
        if size and at == len(data):
            block = next(blocks, b"")
            data, at = block if isinstance(block, bytes) else b"", 0
        if size > len(data) - at:
            raise CorruptionError("a large value is missing, or shorter than its page says")
        yield data[at : at + size]
        at += size
    if at != len(data):
        raise CorruptionError("large values that no page refers to")


@final
class _KeyCheck:
    """The checks of the keys of a full archive, block by block."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._last = b""
        self._local: dict[bytes, bytes] = {}

    def add(self, keys: list[bytes], value_of: Callable[[int], bytes]) -> None:
        """Checks the next keys; `value_of` gives the value of the one with a number. Raises
        CorruptionError."""
        if not _are_keys(keys, self._last) or (keys and keys[-1] >= KEYS_END):
            raise CorruptionError(f"the block that begins with the key {keys[0][:40]!r} is invalid")
        for number, key in enumerate(takewhile(FIRST_PREFIX.__gt__, keys)):
            if not is_key(key):
                raise CorruptionError(f"the key {key[:40]!r} is invalid")
            if key.startswith(LOCAL):
                self._local[key] = value_of(number)
        self._last = keys[-1] if keys else self._last

    def finish(self) -> None:
        """Raises CorruptionError unless the LOCAL entries are the Lsn and time of the header and
        marks of complete indexes."""
        local, header = self._local, self._header
        time = local.pop(LAST_TIME, None)
        is_right = local.pop(APPLIED, None) == header.last_lsn.to_bytes(8)
        is_right = is_right and int.from_bytes(time or b"") == header.time_us
        for key, value in local.items():
            is_mark = key.startswith(BUILT) and len(key) == len(BUILT) + KEYSPACE_BYTES
            is_right = is_right and is_mark and value == b"1"
        if not is_right:
            raise CorruptionError("its LOCAL entries do not agree with its header")


def is_key(key: bytes) -> bool:
    """Whether it may be the key of a pair in a backup."""
    prefix = key[:KEYSPACE_BYTES]
    return KEYSPACE_BYTES < len(key) <= LMDB_KEY_BYTES_MAX and (
        prefix in (META, LOCAL) or FIRST_PREFIX <= prefix < KEYS_END
    )


def _are_keys(keys: list[bytes], last: bytes) -> bool:
    """Whether they ascend, all after `last`, and have the size of a key. Checked as a list: a loop
    over single keys took half of the time of reading a backup."""
    if not keys:
        return True
    sizes = list(map(len, keys))
    is_ascending = last < keys[0] and all(map(lt, keys, islice(keys, 1, None)))
    return is_ascending and min(sizes) > KEYSPACE_BYTES and max(sizes) <= LMDB_KEY_BYTES_MAX
