"""restore(): makes a database from a chain of archives, as of any commit in the chain.

    chain verified -> <staging name>: a new LMDB file of the leaf pages, or, where they are not as
    this program's LMDB makes them, of the pairs -> records up to `until` through a memtable, as in
    a checkpoint -> with an automatic restore the records of the damaged database's log -> checked,
    indexes that differ from their documents rebuilt (rebuild.py) -> log, MANIFEST -> renamed

Invariants:
- Nothing is written before every archive was read whole, and the target's name appears only after
  check() found nothing in the new database. An empty directory is filled in place instead: it keeps
  its owner and its mount, and is no database until then.
- Documents that are sound are restored, whatever the state of their indexes in the archives.
- LMDB maps no page that was not checked: leaf pages are checked again as they are written, and
  every pointer to a page is made here.
- The new database has its own id, and an epoch above every Lsn of the chain: no Lsn of a commit
  after `until` is used again.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain as chained
from typing import Final, TypeAlias, Unpack, final

from amberdb._errors import (
    AmberError,
    BackupDamagedError,
    BackupExistsError,
    CorruptionError,
    FormatError,
    InvalidDocumentError,
    NotADatabaseError,
    RestorePointError,
)
from amberdb._fs import File, staging_name
from amberdb._public import public
from amberdb._time import microseconds, time_of
from amberdb._types import NO_LSN, Lsn, Progress, lsn_epoch, lsn_number
from amberdb.engine.backup.archive import Header, archive_path, opened_archive
from amberdb.engine.backup.chain import (
    BackupReport,
    Paths,
    linked_headers,
    paths_of,
    records_of,
    verify_chain,
)
from amberdb.engine.backup.history import to_entry
from amberdb.engine.backup.pages import leaves_of, pairs_of
from amberdb.engine.backup.rebuild import clear, rebuild
from amberdb.engine.commit.checkpoint import apply_memtable
from amberdb.engine.integrity.check import CheckReport, check_view
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import ArchivedRecord, decode_effects
from amberdb.engine.schema.keyspace import (
    APPLIED,
    BUILT,
    DATABASE_ID,
    FIRST_KEYSPACE,
)
from amberdb.engine.schema.ordered_index import LOSSY, MULTI
from amberdb.engine.storage.data_file import are_own_pages
from amberdb.engine.storage.directory import (
    check_path,
    complete_creation,
    creation,
    data_directory,
    database_exists,
    discard_restored,
    lock_directory,
    make_directory,
    new_manifest,
    open_errors,
    staged_beside,
)
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store, new_store
from amberdb.engine.storage.view import NEWEST, View, stored_view
from amberdb.wal import Record

logger = logging.getLogger("amberdb.engine")

Until: TypeAlias = Lsn | int | datetime | None

Later: TypeAlias = Callable[[Lsn], Iterator[Record]]
"""Gives the records after an Lsn, in order."""

_TRANSACTION_BYTES: Final = 64 << 20
"""The size of the pairs in one LMDB transaction."""


@public
@final
@dataclass(slots=True)
class RestoreReport:
    """The database that restore() made."""

    path: str
    lsn: Lsn = NO_LSN
    """The last commit in it."""
    time: datetime = field(default_factory=lambda: time_of(0))
    """The time of that commit."""
    pairs: int = 0
    """The number of pairs from the full archive."""
    commits: int = 0
    """The number of commits from incremental archives, and from the log of a damaged database."""
    documents: int = 0
    """The number of documents in the new database."""
    rebuilt: list[str] = field(default_factory=list[str])
    """The indexes that were built anew from the documents, as "collection: index": in the archives
    they differed from the documents, or another version of their analyzer had made them."""


def _none_later(after: Lsn) -> Iterator[Record]:
    """The default of `later`."""
    return iter(())


@public
def restore(
    chain: Paths,
    target: str | os.PathLike[str],
    *,
    until: Until = None,
    came_from: str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[OpenOptions],
) -> RestoreReport:
    """Makes a new database at `target` from a full backup, or from a chain that begins with one.

    `until` is an Lsn or an aware datetime, inclusive: the last commit at or before it is the last
    one restored; None restores all. `came_from` is the place that the chain was brought from, if it
    was: receipts of erase() name it in place of the files. `progress(step, count)` is called during
    the work; `settings` are those of open(). Raises BackupExistsError, RestorePointError,
    BackupDamagedError, BackupChainError, FormatError (newer), LockedError, DatabaseMissingError
    (the parent), DiskFullError, OpenError; no file is left then.
    """
    return restore_chain(chain, target, Options(**settings), until, progress, came_from=came_from)


def restore_chain(
    chain: Paths,
    target: str | os.PathLike[str],
    options: Options,
    until: Until = None,
    progress: Progress | None = None,
    later: Later = _none_later,
    came_from: str | None = None,
) -> RestoreReport:
    """restore() with Options. `later` gives the records after the last one of the chain."""
    path = archive_path(target)
    paths = paths_of(chain)
    _check_target(path, options)
    _check_until(until)
    headers = linked_headers(paths, options.fs)
    _check_point(paths[0], headers[0], headers[-1], until)
    reports = verify_chain(paths, options.fs, progress, looks_at_pages=False)
    run = _Restore(headers[0], reports, options, until, progress, later, RestoreReport(path))
    if came_from is not None:
        run.history = [replace(reports[0], path=came_from)]
    with open_errors(path):
        if options.fs.exists(path):
            _fill(path, run, options)
        else:
            real = os.path.realpath(path)  # of a link to a directory that is yet to be made
            for name in staged_beside(real, options.fs):  # left by a crash
                discard_restored(name, options)
            staged = staging_name(real)
            make_directory(staged, options)
            _fill(staged, run, options, rename_to=real)
    return run.report


def _fill(path: str, run: "_Restore", options: Options, rename_to: str | None = None) -> None:
    """Makes the database in an empty directory, which may then get its name."""
    fs = options.fs
    lock = lock_directory(path, options)
    try:
        _check_target(path, options)
        with creation(path, options, made=rename_to is not None, restores=True):
            manifest = run.make(path)
            complete_creation(path, manifest, run.report.lsn, options)
            if rename_to is not None:
                fs.rename(path, rename_to)
                fs.sync_dir(os.path.dirname(rename_to))
    finally:
        lock.close()


def _check_target(path: str, options: Options) -> None:
    """Raises BackupExistsError unless nothing is there, or an empty directory."""
    check_path(path)
    try:
        if not database_exists(path, options):
            return
    except (NotADatabaseError, CorruptionError):
        pass
    raise BackupExistsError(
        f"{path} exists, and a restore overwrites nothing: choose another path", path=path
    )


def _check_until(until: Until) -> None:
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ValueError(f"until={until!r}: give a datetime with a time zone")
    elif until is not None and type(until) is not int:
        raise ValueError(f"until={until!r}: give an Lsn or a datetime")


def _check_point(path: str, full: Header, last: Header, until: Until) -> None:
    """Raises RestorePointError unless `until` is a point within the chain. A time after the last
    commit is one: all is restored."""
    facts = {"first_lsn": Lsn(full.last_lsn), "last_lsn": Lsn(last.last_lsn)}
    if not full.is_full:
        raise RestorePointError(
            f"{path} is incremental: name the full backup that its chain begins with first",
            **facts,
        )
    begin, end = time_of(full.time_us), time_of(last.time_us)
    if isinstance(until, datetime):
        is_early, is_late = until < begin, False
    else:
        is_early = until is not None and until < full.last_lsn
        is_late = until is not None and until > last.last_lsn
    if is_early or is_late:
        where = "after them: add a later incremental backup"
        if is_early:
            where = "before them: name the chain of an older full backup"
        raise RestorePointError(
            f"the chain has the points from Lsn {full.last_lsn} ({begin.isoformat()}) to Lsn "
            f"{last.last_lsn} ({end.isoformat()}), and {until} is {where}",
            **facts,
        )


class _Restore:
    """One restore of verified archives."""

    def __init__(
        self,
        full: Header,
        chain: list[BackupReport],
        options: Options,
        until: Until,
        progress: Progress | None,
        later: Later,
        report: RestoreReport,
    ) -> None:
        self._by_pages = are_own_pages(full.page_size, full.lmdb_version)
        """Otherwise the full archive has pairs, or pages of another version or page size of LMDB,
        whose pairs are put."""
        self._chain = chain
        self.history = chain
        """The backups that the new database knows of."""
        self._options = options
        self._until = until
        self._progress = progress
        self._later = later
        self.report = report
        self._unusable: set[int] = set()
        """Keyspaces of search indexes that could not take the rows of a commit."""

    def make(self, path: str) -> Manifest:
        """Makes data.mdb in the directory. Returns the MANIFEST to write."""
        options, report = self._options, self.report
        manifest = new_manifest(options, lsn_epoch(self._chain[-1].lsn) + 1)
        directory = data_directory(path, manifest.generation)
        report.lsn, report.time = self._chain[0].lsn, self._chain[0].time
        try:
            make = self._make_file if self._by_pages else None
            with new_store(directory, options.fs, options.map_bytes, make) as store:
                if not self._by_pages:
                    self._put_pairs(store)
                with store.write() as writer:
                    writer.put(DATABASE_ID, manifest.database_id)
                    writer.put_sorted([to_entry(link) for link in self.history])
                self._put_records(store)
                self._purge(store)
                self._rebuild(store, self._unusable | self._foreign(store))
                self._check(store)
        except (BackupDamagedError, OSError):
            raise
        except (CorruptionError, FormatError, InvalidDocumentError) as error:
            raise self._unsound(error.message) from error
        except AmberError:
            raise
        except Exception as error:  # the checksums are right, so the archive is forged
            raise self._unsound(repr(error)) from error
        return replace(manifest, epoch=lsn_epoch(report.lsn) + 1)

    def _make_file(self, file: File) -> None:
        """Makes data.mdb of the pages of the full archive."""
        from amberdb.engine.storage.tree_file import TreeWriter  # brings numpy

        with opened_archive(self._options.fs, self._chain[0].path) as archive:
            tree = TreeWriter(file, archive.header.page_size)
            for leaves, keys, values in leaves_of(archive):
                tree.add(leaves, keys, values)
                self.report.pairs += leaves.nodes
                self._report("pairs", self.report.pairs)
            tree.finish()

    def _put_pairs(self, store: Store) -> None:
        """Writes the pairs of the full archive, in transactions of bounded size."""
        with opened_archive(self._options.fs, self._chain[0].path) as archive:
            blocks = pairs_of(archive)
            is_done = False
            while not is_done:
                start = archive.offset
                with store.write() as writer:
                    is_done = True
                    for pairs in blocks:
                        writer.put_sorted(pairs)
                        self.report.pairs += len(pairs)
                        self._report("pairs", self.report.pairs)
                        if archive.offset - start >= _TRANSACTION_BYTES:
                            is_done = False
                            break

    def _put_records(self, store: Store) -> None:
        memtable = Memtable()
        for block in chained(self._records(), self._later_records()):
            for lsn, time_us, _, payload in block:
                if self._is_after_until(lsn, time_us):
                    self._apply(store, memtable)
                    return
                memtable.publish(lsn, decode_effects(payload), len(payload), time_us)
                self.report.lsn, self.report.time = Lsn(lsn), time_of(time_us)
                self.report.commits += 1
            self._report("commits", self.report.commits)
            if memtable.size_bytes >= self._options.checkpoint_bytes:
                self._apply(store, memtable)
                memtable = Memtable()
        self._apply(store, memtable)

    def _later_records(self) -> Iterator[list[ArchivedRecord]]:
        for record in self._later(self.report.lsn):
            if lsn_number(record.lsn) != lsn_number(self.report.lsn) + 1:
                return
            yield [(record.lsn, record.time_us, record.kind, record.payload)]

    def _records(self) -> Iterator[list[ArchivedRecord]]:
        for report in self._chain[1:]:
            with opened_archive(self._options.fs, report.path) as archive:
                yield from records_of(archive)

    def _is_after_until(self, lsn: int, time_us: int) -> bool:
        until = self._until
        if isinstance(until, datetime):
            return time_us > microseconds(until.astimezone(UTC))
        return until is not None and lsn > until

    def _apply(self, store: Store, memtable: Memtable) -> None:
        if memtable.entries:
            with stored_view(store, memtable, NEWEST, self._options) as view:
                catalog = view.catalog
            while not self._has_applied(store, memtable, catalog):
                pass

    def _has_applied(self, store: Store, memtable: Memtable, catalog: Catalog) -> bool:
        """Writes a memtable; False when a search index was found damaged, and is left out."""
        usable = {
            prefix: index
            for prefix, index in catalog.row_indexes.items()
            if index.number not in self._unusable
        }
        try:
            with store.write() as writer:
                apply_memtable(writer, memtable, catalog, usable)
        except CorruptionError as error:
            number = error.facts.get("keyspace")
            if number not in {index.number for index in usable.values()}:
                raise
            self._unusable.add(number)
            return False
        return True

    def _purge(self, store: Store) -> None:
        """Deletes keyspaces that are no longer in the catalog: the log does not contain purges."""
        with self._view(store) as view:
            known = set(view.catalog.retired)
            for schema in view.catalog.schemas.values():
                known |= {*schema.definition.keyspaces}
            stored = view.stored_keyspaces()
        for prefix in stored:
            number = int.from_bytes(prefix)
            if number >= FIRST_KEYSPACE and number not in known:
                clear(store, number)
                with store.write() as writer:
                    for mark in (BUILT, MULTI, LOSSY):
                        writer.delete(mark + prefix)

    def _foreign(self, store: Store) -> set[int]:
        """The keyspaces of complete indexes that another version of their analyzer made."""
        with self._view(store) as view:
            return {
                index.number
                for schema in view.catalog.schemas.values()
                for index in schema.row_indexes
                if index.number in schema.foreign and view.is_built(index)
            }

    def _rebuild(self, store: Store, keyspaces: set[int]) -> None:
        for name in rebuild(store, keyspaces, self._options):
            logger.warning("%s: %s is rebuilt from the documents", self.report.path, name)
            self.report.rebuilt.append(name)
            self._report("rebuilt", len(self.report.rebuilt))

    def _check(self, store: Store) -> None:
        """Rebuilds the indexes that Database.check() would find damaged. Raises BackupDamagedError
        for the first other problem."""
        check = self._checked(store)
        if check.damaged and check.are_documents_sound:
            self._rebuild(store, set(check.damaged))
            check = self._checked(store)
        if not check.ok:
            raise self._unsound(check.problems[0])
        self.report.documents = check.documents

    def _checked(self, store: Store) -> CheckReport:
        check = CheckReport()
        with self._view(store) as view:
            assert view.get(APPLIED) == self.report.lsn.to_bytes(8)
            check_view(view, check, self._progress)
        return check

    def _view(self, store: Store) -> View:
        return stored_view(store, Memtable(), self.report.lsn, self._options)

    def _unsound(self, problem: str) -> BackupDamagedError:
        path = self._chain[0].path
        return BackupDamagedError(
            f"{path}: its contents are inconsistent ({problem}): restore another backup, or to "
            "another `until`",
            path=path,
        )

    def _report(self, step: str, count: int) -> None:
        if self._progress is not None:
            self._progress(step, count)
