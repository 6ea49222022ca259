"""A chain of archives: a full one, and incremental ones, each of which goes on from the one before.

Invariants:
- A chain is looked at whole before anything is done with it: every block of every archive is read,
  and archives that do not follow each other are refused.
- Keys ascend, and those of the LOCAL tree are the few that a backup takes along; Lsns follow each
  other without a gap. So whatever the bytes say, LMDB gets pairs that it can hold.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile
from operator import lt
from typing import Final, TypeAlias, Unpack, cast, final

from amberdb._errors import BackupChainError, CorruptionError
from amberdb._fs import FileSystem
from amberdb._time import time_of
from amberdb._types import Lsn, Progress, lsn_epoch, lsn_number
from amberdb.engine.backup.archive import (
    LSN_MAX,
    TIME_US_MAX,
    Archive,
    Header,
    archive_path,
    opened_archive,
)
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.codec import KIND_COMMIT, KIND_EXPIRY, ArchivedRecord, decode_effects
from amberdb.engine.schema.keyspace import (
    APPLIED,
    BUILT,
    FIRST_KEYSPACE,
    LAST_TIME,
    LOCAL,
    META,
    prefix_of,
)
from amberdb.index.ordered.keys import KEYSPACE_BYTES, LMDB_KEY_BYTES_MAX

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Pair: TypeAlias = tuple[bytes, bytes]

_FIRST: Final = prefix_of(FIRST_KEYSPACE)


@final
@dataclass(frozen=True, slots=True)
class BackupReport:
    """One archive, as it was written or verified."""

    path: str
    is_full: bool
    after_lsn: Lsn
    """Of an incremental archive: the last Lsn of the one that it goes on from."""
    lsn: Lsn
    """The last commit in it: the database can be restored to any from `after_lsn` on (of a full
    one, to this)."""
    time: datetime
    """Of that commit."""
    size_bytes: int
    items: int
    """Pairs of keys and values, or commits in an incremental archive."""
    documents: dict[str, int]
    """By collection, in a full archive."""
    id: str
    created: datetime
    """When it was taken."""


def verify_backup(
    chain: Paths, progress: Progress | None = None, **settings: Unpack[OpenOptions]
) -> list[BackupReport]:
    """Reads all of a backup, or of a chain in its order, and compares every size and checksum.

    A chain may begin with an incremental archive here. `progress(path, bytes)` is called as it
    goes. Raises BackupDamagedError with file and offset, BackupChainError, FormatError (newer).
    """
    return verify_chain(paths_of(chain), Options(**settings).fs, progress)


def points(chain: Paths, **settings: Unpack[OpenOptions]) -> Iterator[tuple[Lsn, datetime]]:
    """Every commit that a restore of this chain can end at: Lsn and time, ascending. Raises as
    `verify_backup` does."""
    fs = Options(**settings).fs
    for path in paths_of(chain):
        with opened_archive(fs, path) as archive:
            header = archive.header
            if header.is_full:
                yield Lsn(header.last_lsn), time_of(header.time_us)
                continue
            for block in records_of(archive):
                for lsn, time_us, _, _ in block:
                    yield Lsn(lsn), time_of(time_us)


def verify_chain(
    paths: Sequence[str], fs: FileSystem, progress: Progress | None = None
) -> list[BackupReport]:
    """The same, inside."""
    linked_headers(paths, fs)
    return [_verified(fs, path, progress) for path in paths]


def linked_headers(paths: Sequence[str], fs: FileSystem) -> list[Header]:
    """Of archives that go on from each other, of which no more is read."""
    headers = [read_header(fs, path) for path in paths]
    for number in range(1, len(paths)):
        check_link(headers[number - 1], headers[number], paths[number - 1], paths[number])
    return headers


def paths_of(chain: Paths) -> list[str]:
    """Raises BackupChainError for a chain of nothing."""
    given = [chain] if isinstance(chain, (str, os.PathLike)) else chain
    paths = [archive_path(path) for path in given]
    if not paths:
        raise BackupChainError("a chain has at least one archive: name it")
    return paths


def read_header(fs: FileSystem, path: str) -> Header:
    """Of an archive of which no more is read. Raises BackupError and its kin."""
    with opened_archive(fs, path) as archive:
        return archive.header


def check_link(before: Header, header: Header, before_path: str, path: str) -> None:
    """Raises BackupChainError unless the second archive goes on from the first."""
    is_same = header.database_id == before.database_id
    if is_same and header.base == before.id and header.after_lsn == before.last_lsn:
        return
    if not is_same:
        why = "is of another database"
    elif header.is_full:
        why = "is a full backup, which begins a chain of its own"
    else:
        why = f"goes on from Lsn {header.after_lsn} of another archive: one is missing, or the "
        why += "order is wrong"
    raise BackupChainError(f"{path} does not follow {before_path}: it {why}", path=path)


def _verified(fs: FileSystem, path: str, progress: Progress | None) -> BackupReport:
    with opened_archive(fs, path) as archive:
        read = pairs_of if archive.header.is_full else records_of
        items = 0
        for found in read(archive):
            items += len(found)
            if progress is not None:
                progress(path, archive.offset)
        return report_of(path, archive.header, archive.size_bytes, items)


def report_of(path: str, header: Header, size_bytes: int, items: int) -> BackupReport:
    return BackupReport(
        path=path,
        is_full=header.is_full,
        after_lsn=Lsn(header.after_lsn),
        lsn=Lsn(header.last_lsn),
        time=time_of(header.time_us),
        size_bytes=size_bytes,
        items=items,
        documents=dict(header.documents),
        id=header.id.hex(),
        created=time_of(header.created_us),
    )


# -- what is in them -----------------------------------------------------------------------------


def pairs_of(archive: Archive) -> Iterator[list[Pair]]:
    """All pairs of a full archive, keys ascending, those of LOCAL as the header has it. Raises
    CorruptionError."""
    last = b""
    facts: dict[bytes, bytes] = {}
    for block in archive.pairs():
        keys = list(block)
        if not _are_keys(keys, last) or None in block.values():
            raise CorruptionError(f"a block from the key {keys[0][:40]!r} on cannot be there")
        for key in takewhile(_FIRST.__gt__, keys):
            if not _is_key(key):
                raise CorruptionError(f"the key {key[:40]!r} cannot be there")
            if key.startswith(LOCAL):
                facts[key] = cast(bytes, block[key])
        last = keys[-1] if keys else last
        yield cast(list[Pair], list(block.items()))
    _check_facts(facts, archive.header)


def _is_key(key: bytes) -> bool:
    prefix = key[:KEYSPACE_BYTES]
    return KEYSPACE_BYTES < len(key) <= LMDB_KEY_BYTES_MAX and (
        prefix in (META, LOCAL) or prefix >= _FIRST
    )


def _are_keys(keys: list[bytes], last: bytes) -> bool:
    """Whether they ascend, behind `last`, and have a key's size; not one by one, which would be
    half of the time that a backup is read in."""
    if not keys:
        return True
    sizes = list(map(len, keys))
    is_ascending = last < keys[0] and all(map(lt, keys, islice(keys, 1, None)))
    return is_ascending and min(sizes) > KEYSPACE_BYTES and max(sizes) <= LMDB_KEY_BYTES_MAX


def _check_facts(facts: dict[bytes, bytes], header: Header) -> None:
    """The LOCAL tree says what the header says, and which indexes are complete; no more."""
    time = facts.pop(LAST_TIME, None)
    is_right = facts.pop(APPLIED, None) == header.last_lsn.to_bytes(8)
    is_right = is_right and int.from_bytes(time or b"") == header.time_us
    for key, value in facts.items():
        if len(key) != len(BUILT) + KEYSPACE_BYTES or not key.startswith(BUILT) or value != b"1":
            is_right = False
    if not is_right:
        raise CorruptionError("its facts about the database do not agree with its header")


def records_of(archive: Archive) -> Iterator[list[ArchivedRecord]]:
    """All records of an incremental archive, without a gap. Raises CorruptionError."""
    header = archive.header
    last, time_us = header.after_lsn, None
    for block in archive.records():
        for record in block:
            check_record(record, last)
            last, time_us, _, _ = record
        yield block
    if last != header.last_lsn or time_us not in (None, header.time_us):
        raise CorruptionError("it ends at another commit than its header says")


def follows(lsn: int, last: int) -> bool:
    """Whether no commit is missing between the two."""
    return lsn_number(lsn) == lsn_number(last) + 1 and lsn_epoch(lsn) >= lsn_epoch(last)


def check_record(record: ArchivedRecord, last: int) -> None:
    """Raises CorruptionError unless this can be the record behind `last`."""
    lsn, time_us, kind, payload = record
    is_known = kind in (KIND_COMMIT, KIND_EXPIRY) and 0 <= time_us <= TIME_US_MAX
    if not is_known or not 0 < lsn <= LSN_MAX or not follows(lsn, last):
        raise CorruptionError(f"the record {lsn} cannot be behind {last}")
    for key in decode_effects(payload):
        if not _is_key(key) or key.startswith(LOCAL):
            raise CorruptionError(f"the record {lsn} has the key {key[:40]!r}, which cannot be")
