"""A chain of archives: a full one, then incremental ones, each the continuation of the one before.

Invariants:
- A chain is verified whole before it is used: every block of every archive is read, and archives
  that do not follow each other are refused.
- Lsns follow each other without a gap, and records have valid keys, none of LOCAL.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, Unpack, final

from amberdb._errors import BackupChainError, CorruptionError
from amberdb._fs import FileSystem
from amberdb._public import public
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
from amberdb.engine.backup.pages import is_key, leaves_of, pairs_of
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.codec import KIND_COMMIT, KIND_EXPIRY, ArchivedRecord, decode_effects
from amberdb.engine.schema.keyspace import LOCAL

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@public
@final
@dataclass(frozen=True, slots=True)
class BackupReport:
    """One archive that was written or verified."""

    path: str
    is_full: bool
    after_lsn: Lsn
    """The last Lsn of the archive that an incremental one continues."""
    lsn: Lsn
    """The last commit in it. A chain can be restored to any commit from `after_lsn` to `lsn` of an
    incremental archive, and to `lsn` alone of a full one."""
    time: datetime
    """The time of the commit `lsn`."""
    size_bytes: int
    items: int
    """The number of pairs in a full archive, of commits in an incremental one."""
    documents: dict[str, int]
    """The number of documents by collection, in a full archive."""
    id: str
    created: datetime
    """When it was taken."""
    database: str = ""
    """The id of the database; "" from a process of an earlier version."""


@public
def verify_backup(
    chain: Paths, progress: Progress | None = None, **settings: Unpack[OpenOptions]
) -> list[BackupReport]:
    """Reads a backup, or a chain in its order, and compares every size and checksum.

    Unlike for a restore, the chain may begin with an incremental archive. `progress(path, bytes)`
    is called during the work. Raises BackupDamagedError with file and offset, BackupChainError,
    FormatError (newer).
    """
    return verify_chain(paths_of(chain), Options(**settings).fs, progress)


@public
def restore_points(chain: Paths, **settings: Unpack[OpenOptions]) -> Iterator[tuple[Lsn, datetime]]:
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
    paths: Sequence[str],
    fs: FileSystem,
    progress: Progress | None = None,
    *,
    looks_at_pages: bool = True,
) -> list[BackupReport]:
    """verify_backup() with the file system of an open database. Without `looks_at_pages` only the
    checksums of pages are compared: they were checked when they were written, or will be when they
    are used."""
    linked_headers(paths, fs)
    return [_verified(fs, path, progress, looks_at_pages) for path in paths]


def linked_headers(paths: Sequence[str], fs: FileSystem) -> list[Header]:
    """The headers of a chain. Raises BackupChainError unless each archive continues the one before;
    nothing but the headers is read."""
    headers = [read_header(fs, path) for path in paths]
    for number in range(1, len(paths)):
        check_link(headers[number - 1], headers[number], paths[number - 1], paths[number])
    return headers


def paths_of(chain: Paths) -> list[str]:
    """The absolute paths of a chain. Raises BackupChainError when it is empty."""
    given = [chain] if isinstance(chain, (str, os.PathLike)) else chain
    paths = [archive_path(path) for path in given]
    if not paths:
        raise BackupChainError("the chain is empty: name at least one archive")
    return paths


def read_header(fs: FileSystem, path: str) -> Header:
    """The header of an archive; nothing else of it is read. Raises BackupError, FormatError."""
    with opened_archive(fs, path) as archive:
        return archive.header


def check_link(before: Header, header: Header, before_path: str, path: str) -> None:
    """Raises BackupChainError unless the second archive continues the first."""
    is_same = header.database_id == before.database_id
    if is_same and header.base == before.id and header.after_lsn == before.last_lsn:
        return
    if not is_same:
        why = "is of another database"
    elif header.is_full:
        why = "is a full backup, which begins a new chain"
    else:
        why = f"continues another archive after Lsn {header.after_lsn}: one is missing, or the "
        why += "order is wrong"
    raise BackupChainError(f"{path} does not follow {before_path}: it {why}", path=path)


def _verified(
    fs: FileSystem, path: str, progress: Progress | None, looks_at_pages: bool
) -> BackupReport:
    with opened_archive(fs, path) as archive:
        blocks: Iterator[object]
        if not archive.header.is_full:
            blocks = records_of(archive)
        elif not archive.header.page_size:
            blocks = pairs_of(archive)
        elif looks_at_pages:
            blocks = leaves_of(archive)
        else:
            blocks = archive.compared()
        for _ in blocks:
            if progress is not None:
                progress(path, archive.offset)
        return report_of(path, archive.header, archive.size_bytes, archive.items)


def report_of(path: str, header: Header, size_bytes: int, items: int) -> BackupReport:
    """The report of an archive with this header."""
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
        database=header.database_id.hex(),
    )


# -- contents ------------------------------------------------------------------------------------


def records_of(archive: Archive) -> Iterator[list[ArchivedRecord]]:
    """The blocks of an incremental archive: records without a gap. Raises CorruptionError."""
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
    """Whether `lsn` is the next commit after `last`, with none missing between them."""
    return lsn_number(lsn) == lsn_number(last) + 1 and lsn_epoch(lsn) >= lsn_epoch(last)


def check_record(record: ArchivedRecord, last: int) -> None:
    """Raises CorruptionError unless the record can be the one after Lsn `last`."""
    lsn, time_us, kind, payload = record
    is_known = kind in (KIND_COMMIT, KIND_EXPIRY) and 0 <= time_us <= TIME_US_MAX
    if not is_known or not 0 < lsn <= LSN_MAX or not follows(lsn, last):
        raise CorruptionError(f"the record {lsn} cannot come after {last}")
    for key in decode_effects(payload):
        if not is_key(key) or key.startswith(LOCAL):
            raise CorruptionError(f"the record {lsn} has the invalid key {key[:40]!r}")
