"""restore(): a database out of a chain of archives, as of any commit that the chain has.

    chain verified -> <target>.tmp: pairs into a new LMDB, keys ascending -> records up to `until`
    through a memtable, as a checkpoint takes them -> checked -> log, MANIFEST -> renamed

Invariants:
- Nothing is written before every archive was read whole, and nothing has the target's name before
  what was made agrees with itself in everything that check() compares.
- No file of an archive reaches the disk: only pairs do, in an LMDB file of our own making.
- The new database has an id of its own, and an epoch above every Lsn of the chain: no Lsn of the
  commits behind `until` is given again.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias, Unpack, final

from amberdb._errors import (
    AmberError,
    BackupDamagedError,
    BackupExistsError,
    CorruptionError,
    FormatError,
    RestorePointError,
)
from amberdb._time import microseconds, time_of
from amberdb._types import NO_LSN, Lsn, Progress, lsn_epoch
from amberdb.engine.backup.archive import Header, archive_path, opened_archive
from amberdb.engine.backup.chain import (
    BackupReport,
    Paths,
    linked_headers,
    pairs_of,
    paths_of,
    records_of,
    verify_chain,
)
from amberdb.engine.backup.history import to_entry
from amberdb.engine.commit.checkpoint import apply_memtable
from amberdb.engine.integrity.check import CheckReport, check_view
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.codec import ArchivedRecord, decode_effects
from amberdb.engine.schema.keyspace import (
    APPLIED,
    BUILT,
    DATABASE_ID,
    FIRST_KEYSPACE,
    end_of,
    prefix_of,
)
from amberdb.engine.schema.ordered_index import MULTI
from amberdb.engine.storage.directory import (
    acquire_staging,
    data_directory,
    discard_staging,
    new_manifest,
    open_errors,
    publish_staging,
)
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store, new_store
from amberdb.engine.storage.view import NEWEST, stored_view
from amberdb.index.ordered.keys import KEYSPACE_BYTES

Until: TypeAlias = Lsn | int | datetime | None

_TRANSACTION_BYTES: Final = 64 << 20
"""Of pairs in one LMDB transaction."""
_CHUNK: Final = 1000


@final
@dataclass(slots=True)
class RestoreReport:
    """What restore() has made."""

    path: str
    lsn: Lsn = NO_LSN
    """The last commit in it."""
    time: datetime = field(default_factory=lambda: time_of(0))
    """Of that commit."""
    pairs: int = 0
    """Out of the full archive."""
    commits: int = 0
    """Out of incremental ones."""
    documents: int = 0


def restore(
    chain: Paths,
    target: str | os.PathLike[str],
    *,
    until: Until = None,
    progress: Progress | None = None,
    **settings: Unpack[OpenOptions],
) -> RestoreReport:
    """Makes a new database at `target` of a full backup, or of a chain that begins with one.

    `until` is an Lsn, or an aware datetime: the last commit at or before it is the last one that
    is restored; None restores all. `progress(step, count)` is called as it goes; `settings` are
    those of open(). Raises BackupExistsError, RestorePointError, BackupDamagedError,
    BackupChainError, FormatError (newer), LockedError, DatabaseMissingError (the parent),
    DiskFullError, OpenError; then nothing is left.
    """
    return restore_chain(chain, target, Options(**settings), until, progress)


def restore_chain(
    chain: Paths,
    target: str | os.PathLike[str],
    options: Options,
    until: Until = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """restore(), with the options of the database."""
    path = archive_path(target)
    paths = paths_of(chain)
    if options.fs.exists(path):
        raise BackupExistsError(
            f"{path} exists, and a restore overwrites nothing: choose another path", path=path
        )
    _check_until(until)
    headers = linked_headers(paths, options.fs)
    _check_point(paths[0], headers[0], headers[-1], until)
    reports = verify_chain(paths, options.fs, progress)
    with open_errors(path):
        aside, lock = acquire_staging(path, options)
        try:
            try:
                making = _Restore(reports, options, until, progress, RestoreReport(path))
                manifest = making.run(aside)
                publish_staging(path, aside, manifest, making.report.lsn, options)
            except BaseException:
                with suppress(OSError, AmberError):
                    discard_staging(aside, options)
                raise
        finally:
            lock.close()
    return making.report


def _check_until(until: Until) -> None:
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ValueError(f"until={until!r}: give a datetime with a zone")
    elif until is not None and type(until) is not int:
        raise ValueError(f"until={until!r}: give an Lsn or a datetime")


def _check_point(path: str, full: Header, last: Header, until: Until) -> None:
    """Raises RestorePointError unless the chain has it."""
    facts = {"first_lsn": Lsn(full.last_lsn), "last_lsn": Lsn(last.last_lsn)}
    if not full.is_full:
        raise RestorePointError(
            f"{path} is incremental: a chain begins with a full backup; name that first", **facts
        )
    begin, end = time_of(full.time_us), time_of(last.time_us)
    if isinstance(until, datetime):
        is_early, is_late = until < begin, False
    else:
        is_early = until is not None and until < full.last_lsn
        is_late = until is not None and until > last.last_lsn
    if is_early or is_late:
        raise RestorePointError(
            f"the chain has the points from Lsn {full.last_lsn} ({begin.isoformat()}) to Lsn "
            f"{last.last_lsn} ({end.isoformat()}), and {until} is "
            + (
                "before them: name the chain of an older full backup" if is_early else "behind them"
            ),
            **facts,
        )


class _Restore:
    """One run, over archives that were verified."""

    def __init__(
        self,
        chain: list[BackupReport],
        options: Options,
        until: Until,
        progress: Progress | None,
        report: RestoreReport,
    ) -> None:
        self._chain = chain
        self._options = options
        self._until = until
        self._progress = progress
        self.report = report

    def run(self, aside: str) -> Manifest:
        """Fills the directory; what is still to be written of it."""
        options, report = self._options, self.report
        manifest = new_manifest(options, lsn_epoch(self._chain[-1].lsn) + 1)
        directory = data_directory(aside, manifest.generation)
        report.lsn, report.time = self._chain[0].lsn, self._chain[0].time
        with new_store(directory, options.fs, options.map_bytes) as store:
            try:
                self._put_pairs(store, manifest)
                self._put_records(store)
                self._purge(store)
                self._check(store)
            except (BackupDamagedError, OSError):
                raise
            except (CorruptionError, FormatError) as error:
                raise self._unsound(error.message) from error
            except AmberError:
                raise
            except Exception as error:  # its checksums are right: a forger's work, and no damage
                raise self._unsound(repr(error)) from error
        return manifest

    def _put_pairs(self, store: Store, manifest: Manifest) -> None:
        """In bounded transactions: nobody reads before the last one."""
        with opened_archive(self._options.fs, self._chain[0].path) as archive:
            blocks = pairs_of(archive)
            while True:
                start = archive.offset
                with store.write() as writer:
                    for pairs in blocks:
                        writer.append_sorted(pairs)
                        self.report.pairs += len(pairs)
                        self._tell("pairs", self.report.pairs)
                        if archive.offset - start >= _TRANSACTION_BYTES:
                            break
                    else:
                        writer.put(DATABASE_ID, manifest.database_id)
                        writer.put_sorted(map(to_entry, self._chain))
                        return

    def _put_records(self, store: Store) -> None:
        memtable = Memtable()
        for block in self._records():
            for lsn, time_us, _, payload in block:
                if self._is_behind(lsn, time_us):
                    self._apply(store, memtable)
                    return
                memtable.publish(lsn, decode_effects(payload), len(payload), time_us)
                self.report.lsn, self.report.time = Lsn(lsn), time_of(time_us)
                self.report.commits += 1
            self._tell("commits", self.report.commits)
            if memtable.size_bytes >= self._options.checkpoint_bytes:
                self._apply(store, memtable)
                memtable = Memtable()
        self._apply(store, memtable)

    def _records(self) -> Iterator[list[ArchivedRecord]]:
        for report in self._chain[1:]:
            with opened_archive(self._options.fs, report.path) as archive:
                yield from records_of(archive)

    def _is_behind(self, lsn: int, time_us: int) -> bool:
        until = self._until
        if isinstance(until, datetime):
            return time_us > microseconds(until.astimezone(UTC))
        return until is not None and lsn > until

    def _apply(self, store: Store, memtable: Memtable) -> None:
        if memtable.entries:
            with stored_view(store, memtable, NEWEST, self._options.document_bytes_max) as view:
                row_indexes = view.catalog.row_indexes
            with store.write() as writer:
                apply_memtable(writer, memtable, row_indexes)

    def _purge(self, store: Store) -> None:
        """Trees that the catalog does not know any more: a purge is not in the log."""
        with stored_view(store, Memtable(), NEWEST, self._options.document_bytes_max) as view:
            known = set(view.catalog.retired)
            for schema in view.catalog.schemas.values():
                known |= {schema.definition.keyspace, schema.definition.expiry_keyspace}
                known |= {index.keyspace for index in schema.definition.indexes}
        low = prefix_of(FIRST_KEYSPACE)
        while (number := _next_keyspace(store, low)) is not None:
            prefix = prefix_of(number)
            low = end_of(prefix)
            removed = 0 if number in known else _CHUNK
            while removed == _CHUNK:
                with store.write() as writer:
                    removed = writer.delete_range(prefix, low, _CHUNK)
                    for mark in (BUILT, MULTI):
                        writer.delete(mark + prefix)

    def _check(self, store: Store) -> None:
        """Raises BackupDamagedError unless all agrees, as Database.check() has it."""
        report = self.report
        found = CheckReport()
        with stored_view(store, Memtable(), report.lsn, self._options.document_bytes_max) as view:
            assert view.get(APPLIED) == report.lsn.to_bytes(8)
            check_view(view, found, self._progress)
        if not found.ok:
            raise self._unsound(found.problems[0])
        report.documents = found.documents

    def _unsound(self, problem: str) -> BackupDamagedError:
        path = self._chain[0].path
        return BackupDamagedError(
            f"{path}: what it holds does not agree with itself ({problem}): take another backup, "
            "or another `until`",
            path=path,
        )

    def _tell(self, what: str, count: int) -> None:
        if self._progress is not None:
            self._progress(what, count)


def _next_keyspace(store: Store, low: bytes) -> int | None:
    """The first tree from `low` on that has a key."""
    txn = store.begin()
    try:
        cursor = txn.cursor()
        return int.from_bytes(cursor.key()[:KEYSPACE_BYTES]) if cursor.set_range(low) else None
    finally:
        txn.abort()
