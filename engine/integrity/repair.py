"""Repair of a damaged database: new data from every readable document, and the log cut at damage.

    OfflineCheck -> readable documents of data.mdb and log, under a staging name -> data-<n+1> ->
    MANIFEST -> the old data renamed -> log cut

Invariants:
- A run that is not applied changes nothing: it does the same work in a staging directory, so its
  report is the same.
- Nothing is destroyed: whatever is replaced or cut is kept under a `.broken` name.
- MANIFEST is the switch: the old database is there before it is written, the new one after. A
  repair that was interrupted can be run again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import final

from amberdb._errors import StorageError
from amberdb._fs import (
    FileSystem,
    first_free_name,
    remove_directory,
    replace_file,
    staging_name,
)
from amberdb._public import public
from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Lsn, Progress, lsn_epoch
from amberdb.engine.integrity.offline import OfflineCheck
from amberdb.engine.integrity.salvage import Loss, Salvage
from amberdb.engine.options import Options
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.cache_file import FOLDER as CACHE_FOLDER
from amberdb.engine.storage.data_file import DATA_FILE, lmdb_version
from amberdb.engine.storage.directory import data_directory
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.status import NAME as STATUS
from amberdb.engine.storage.store import new_store
from amberdb.wal import LogRepair, Record, log_begins, segment_ids
from amberdb.wal import repair as repair_log


@public
@final
@dataclass(slots=True)
class RepairReport:
    """The problems that repair() found, what it did or would do, and what is lost."""

    applied: bool = False
    """False: nothing was changed; the report says what `apply=True` would do."""
    problems: list[str] = field(default_factory=list[str])
    actions: list[str] = field(default_factory=list[str])
    broken: list[str] = field(default_factory=list[str])
    """The files and directories that keep what was damaged or cut."""
    lost_lsns: list[tuple[Lsn, Lsn]] = field(default_factory=list[tuple[Lsn, Lsn]])
    """Ranges (first, last) of commits that are lost, as far as any file still mentions them."""
    feed_begins: Lsn | None = None
    """The log starts again after this Lsn: the data has the changes up to it, the feed does not."""
    documents: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: the number of documents kept, when the data was rebuilt."""
    missing: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: how many documents fewer were kept than its counter says."""
    lost_ids: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(collection, id) of lost documents that an index or a damaged value still names; the first
    1,000."""
    lost_vectors: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(collection, id) of documents that were kept without a vector, which is lost; the first
    1,000."""
    doubtful: int = 0
    """Documents from pages that no tree refers to, while LMDB's list of free pages was damaged:
    some may be older versions, or may have been deleted."""
    renamed: list[str] = field(default_factory=list[str])
    """Collections whose declaration is lost: restored from an older declaration, or without
    indexes and named after the number of their keyspace, `recovered-16`."""
    dropped_indexes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(collection, index) where the recovered documents do not allow the index."""

    @property
    def is_needed(self) -> bool:
        """Whether there was anything to repair."""
        return bool(self.problems)


class Repair:
    """One repair of a closed database that was checked, and whose lock is held."""

    def __init__(
        self,
        checked: OfflineCheck,
        options: Options,
        report: RepairReport,
        progress: Progress | None,
    ) -> None:
        """Raises StorageError when no file says which database it is."""
        if checked.database_id is None:
            raise StorageError(
                f"{checked.path}: neither MANIFEST nor data nor log can be read: restore a backup",
                path=checked.path,
            )
        self._id: bytes = checked.database_id
        self._checked = checked
        self._options = options
        self._fs: FileSystem = options.fs
        self._report = report
        self._progress = progress
        self._generation = checked.generation
        self._applied = checked.applied

    def run(self, apply: bool) -> None:
        """Completes the report; changes the database only with `apply`."""
        staging = ""
        if self._checked.needs_data:
            staging = self._make_data()
        planned = self._repair_log(apply=False)
        self._report_lost(planned)
        if not apply:
            if staging:
                _remove(self._fs, staging)
            self._plan_manifest(staging)
            return
        # Both are derived, and may be of commits that are lost: their rowids and Lsns will be
        # given to others.
        for name in (CACHE_FOLDER, STATUS):
            _remove(self._fs, os.path.join(self._checked.path, name))
        if staging:
            self._fs.rename(staging, data_directory(self._checked.path, self._generation))
            self._fs.sync_dir(self._checked.path)
        self._write_manifest(planned)
        if staging:
            self._keep_broken_data()
        self._repair_log(apply=True)

    # -- data --------------------------------------------------------------------------------

    def _make_data(self) -> str:
        """Makes a new generation beside the old one. Returns its staging directory."""
        checked, fs, report = self._checked, self._fs, self._report
        number = checked.generation + 1
        while fs.exists(data_directory(checked.path, number)):
            number += 1
        self._generation = number
        staging = staging_name(data_directory(checked.path, number))
        try:
            with new_store(staging, fs, self._options.map_bytes) as store:
                loss = self._fill(Salvage(store, self._id, self._progress))
        except BaseException:
            _remove(fs, staging)
            raise
        report.documents, report.missing = loss.documents, loss.missing
        report.lost_ids, report.doubtful = loss.lost_ids, loss.doubtful
        report.lost_vectors, report.renamed = loss.lost_vectors, loss.renamed
        report.actions.append(
            f"{data_directory(checked.path, number)} is made from the "
            f"{sum(loss.documents.values())} readable documents; {loss.gaps} places could not be "
            "read; indexes are rebuilt"
        )
        return staging

    def _fill(self, salvage: Salvage) -> Loss:
        checked, fs = self._checked, self._fs
        old = os.path.join(checked.data, DATA_FILE)
        begins = log_begins(fs, checked.log_directory, self._id)
        salvage.read_pages(fs, old, begins)
        self._applied = self._true_applied(salvage)
        if self._applied is None and begins:
            self._report.lost_lsns.append((Lsn((1 << LSN_NUMBER_BITS) + 1), begins))
        planned = self._repair_log(apply=False, replay=salvage.replay)
        self._applied = max(planned.last_lsn, self._applied or NO_LSN)
        schemas = salvage.finish(self._applied, self._options)
        salvage.name_lost(fs, old, schemas)
        return salvage.loss

    def _true_applied(self, salvage: Salvage) -> Lsn | None:
        """The last Lsn in the data: its own entry, if another source confirms it."""
        confirmed = max(self._checked.clean_lsn, self._checked.log.last_lsn, salvage.newest)
        stored = salvage.stored_applied
        if stored is not None and salvage.newest <= stored <= confirmed:
            return stored
        return salvage.newest or None

    def _keep_broken_data(self) -> None:
        fs, old = self._fs, self._checked.data
        if fs.exists(old):
            broken = first_free_name(fs, old + ".broken")
            fs.rename(old, broken)
            fs.sync_dir(self._checked.path)
            self._report.broken.append(broken)

    # -- log ---------------------------------------------------------------------------------

    def _repair_log(
        self, *, apply: bool, replay: Callable[[Record], None] | None = None
    ) -> LogRepair:
        directory = self._checked.log_directory
        fs, checked = self._fs, self._checked
        ids = segment_ids(fs, directory)
        if not fs.is_dir(directory) or (ids and self._id not in ids):  # missing, or another's
            if not apply:
                return LogRepair(self._applied or NO_LSN, [], is_restarted=True)
            if fs.exists(directory):
                self._report.broken.append(first_free_name(fs, directory + ".broken"))
                fs.rename(directory, self._report.broken[-1])
            fs.mkdir(directory, like=checked.path)
            fs.sync_dir(checked.path)
        done = repair_log(
            self._fs, directory, self._id, applied=self._applied, apply=apply, replay=replay
        )
        if apply:
            self._report.broken += [cut.broken for cut in done.cuts]
        return done

    def _report_lost(self, planned: LogRepair) -> None:
        report = self._report
        for cut in planned.cuts:
            where = f"{cut.segment} offset {cut.offset}"
            report.actions.append(f"{where}: {cut.size} bytes are cut and kept as {cut.broken}")
        last = max(planned.last_lsn, self._applied or NO_LSN)
        highest = max(
            self._checked.clean_lsn,
            self._checked.log.last_lsn,
            *(cut.last_lost or NO_LSN for cut in planned.cuts),
            NO_LSN,
        )
        if highest > last:
            report.lost_lsns.append((Lsn(last + 1), highest))
        if planned.is_restarted:
            report.feed_begins = last

    # -- MANIFEST ----------------------------------------------------------------------------

    def _plan_manifest(self, staging: str) -> None:
        if self._checked.manifest is None or staging:
            where = os.path.join(self._checked.path, manifests.NAME)
            self._report.actions.append(f"{where} is rewritten")

    def _write_manifest(self, planned: LogRepair) -> None:
        """Writes it without a clean close, so that the next open takes a new epoch."""
        fs, checked = self._fs, self._checked
        where = os.path.join(checked.path, manifests.NAME)
        lost = [last for _, last in self._report.lost_lsns]
        highest = max(planned.last_lsn, self._applied or NO_LSN, *lost)
        manifest = checked.manifest
        if manifest is None:
            self._keep_broken_manifest(where)
            manifest = Manifest(
                database_id=self._id,
                generation=self._generation,
                epoch=1,
                clean_lsn=None,
                created_us=int(self._options.clock() * 1_000_000),
                lmdb_version=lmdb_version(),
            )
            self._plan_manifest("")
        epoch = max(manifest.epoch, lsn_epoch(highest))
        replace(manifest, generation=self._generation, epoch=epoch, clean_lsn=None).write(
            fs, checked.path
        )

    def _keep_broken_manifest(self, where: str) -> None:
        """Keeps an unreadable MANIFEST; a file stays in place until the new one replaces it."""
        fs = self._fs
        if fs.exists(where):
            broken = first_free_name(fs, where + ".broken")
            if fs.is_dir(where):
                fs.rename(where, broken)
            else:
                replace_file(fs, broken, fs.read(where))
            self._report.broken.append(broken)


def _remove(fs: FileSystem, path: str) -> None:
    """Removes a file, or a directory of files, if it exists."""
    if fs.is_dir(path):
        remove_directory(fs, path)
    elif fs.exists(path):
        fs.unlink(path)
