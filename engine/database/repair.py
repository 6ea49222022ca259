"""repair(): the way out when a database cannot be opened, or check() finds it damaged.

    examine -> what is left of data.mdb and log, into data-<n+1>.tmp -> renamed -> MANIFEST ->
    the old data set aside -> log cut -> opened, indexes built, checked

Invariants:
- Without `apply` nothing is changed; the same work is done aside, so the report is the same.
- Nothing is destroyed: what is replaced or cut is kept under a `.broken` name.
- MANIFEST is the moment of truth: before it the old database is there, behind it the new one, and
  a repair that was interrupted can be run again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Unpack, final

from amberdb._errors import DuplicateKeyError, InvalidDocumentError, StorageError
from amberdb._fs import FileSystem, first_free_name, remove_directory, replace_file
from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Lsn, Progress, lsn_epoch
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_with
from amberdb.engine.integrity.offline import OfflineCheck, examine, held
from amberdb.engine.integrity.salvage import Loss, Salvage
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.cache_file import FOLDER as CACHE_FOLDER
from amberdb.engine.storage.data_file import DATA_FILE, lmdb_version
from amberdb.engine.storage.directory import data_directory
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.status import NAME as STATUS
from amberdb.engine.storage.store import new_store
from amberdb.wal import LogRepair, Record, log_begins, segment_ids
from amberdb.wal import repair as repair_log


@final
@dataclass(slots=True)
class RepairReport:
    """What repair() found, did or would do, and what is lost by it."""

    applied: bool = False
    """False: nothing was changed, and this is what `apply` would do."""
    problems: list[str] = field(default_factory=list[str])
    actions: list[str] = field(default_factory=list[str])
    broken: list[str] = field(default_factory=list[str])
    """The files and directories that keep what was damaged or cut."""
    lost_lsns: list[tuple[Lsn, Lsn]] = field(default_factory=list[tuple[Lsn, Lsn]])
    """First and last of the commits that are lost, as far as anything still speaks of them."""
    feed_begins: Lsn | None = None
    """Where the log starts anew: the changes up to it are in the data, and not in the feed."""
    documents: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: how many are kept in data that were made anew."""
    missing: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: how many fewer that is than its count says."""
    lost_ids: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Collection and id, of the documents that something still names; the first 1,000."""
    doubtful: int = 0
    """Documents out of pages that no tree leads to any more, while LMDB's list of free pages was
    damaged too: some may be older versions, or may have been deleted."""
    renamed: list[str] = field(default_factory=list[str])
    """Collections whose declaration is lost: as an older one had it, or without indexes and called
    after the number of their tree, `recovered-16`."""
    dropped_indexes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Collection and index, where what was recovered does not allow for the index."""

    @property
    def is_needed(self) -> bool:
        """Whether there was anything to repair."""
        return bool(self.problems)


def repair(
    path: str | os.PathLike[str],
    *,
    apply: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[OpenOptions],
) -> RepairReport:
    """Makes a database of what can be read of a damaged one; by default it only says how.

    `progress(what, count)` is called as it goes; `settings` are those of open(). Raises
    LockedError, DatabaseMissingError, NotADatabaseError, FormatError, DiskFullError, OpenError,
    and StorageError when nothing tells which database it is, or when what was made is not sound.
    """
    options = Options(**settings)
    with held(os.fspath(path), options) as whole:
        found = examine(whole, options, progress)
        report = RepairReport(applied=apply, problems=list(found.report.problems))
        if not report.is_needed:
            return report
        if found.database_id is None:
            raise StorageError(
                f"{whole}: neither MANIFEST nor data nor log can be read: restore a backup",
                path=whole,
            )
        _Repair(found, options, report, progress).run(apply)
    if apply:
        _finish(whole, options, report, progress)
    return report


class _Repair:
    """One run, over what was examined."""

    def __init__(
        self,
        found: OfflineCheck,
        options: Options,
        report: RepairReport,
        progress: Progress | None,
    ) -> None:
        assert found.database_id is not None
        self._id: bytes = found.database_id
        self._found = found
        self._options = options
        self._fs: FileSystem = options.fs
        self._report = report
        self._progress = progress
        self._generation = found.generation
        self._applied = found.applied

    def run(self, apply: bool) -> None:
        aside = ""
        if self._found.needs_data:
            aside = self._make_data()
        kept = self._repair_log(apply=False)
        self._count_lost(kept)
        if not apply:
            if aside:
                _remove(self._fs, aside)
            self._plan_manifest(aside)
            return
        # Derived, and of commits that may be lost: their rowids and Lsns will be given again.
        for name in (CACHE_FOLDER, STATUS):
            _remove(self._fs, os.path.join(self._found.path, name))
        if aside:
            self._fs.rename(aside, data_directory(self._found.path, self._generation))
            self._fs.sync_dir(self._found.path)
        self._write_manifest(kept)
        if aside:
            self._set_data_aside()
        self._repair_log(apply=True)

    # -- data --------------------------------------------------------------------------------

    def _make_data(self) -> str:
        """A new generation beside the old one, still under a temporary name."""
        found, fs, report = self._found, self._fs, self._report
        number = found.generation + 1
        while fs.exists(data_directory(found.path, number)):
            number += 1
        self._generation = number
        aside = data_directory(found.path, number) + ".tmp"
        _remove(fs, aside)
        try:
            with new_store(aside, fs, self._options.map_bytes) as store:
                loss = self._fill(Salvage(store, self._id, self._progress))
        except BaseException:
            _remove(fs, aside)
            raise
        report.documents, report.missing = loss.documents, loss.missing
        report.lost_ids, report.doubtful = loss.lost_ids, loss.doubtful
        report.renamed = loss.renamed
        report.actions.append(
            f"{data_directory(found.path, number)} is made of {sum(loss.documents.values())} "
            f"documents that can be read; {loss.gaps} places could not be; indexes are built anew"
        )
        return aside

    def _fill(self, salvage: Salvage) -> Loss:
        found, fs = self._found, self._fs
        old = os.path.join(found.data, DATA_FILE)
        begins = log_begins(fs, found.log_directory, self._id)
        salvage.read_pages(fs, old, begins)
        self._applied = self._true_applied(salvage)
        if self._applied is None and begins:
            self._report.lost_lsns.append((Lsn((1 << LSN_NUMBER_BITS) + 1), begins))
        kept = self._repair_log(apply=False, replay=salvage.replay)
        self._applied = max(kept.last_lsn, self._applied or NO_LSN)
        schemas = salvage.finish(self._applied, self._options.document_bytes_max)
        salvage.name_lost(fs, old, schemas)
        return salvage.loss

    def _true_applied(self, salvage: Salvage) -> Lsn | None:
        """Up to which Lsn the data goes: what it says, if anything else bears it out."""
        borne_out = max(self._found.clean_lsn, self._found.log.last_lsn, salvage.newest)
        said = salvage.stored_applied
        if said is not None and salvage.newest <= said <= borne_out:
            return said
        return salvage.newest or None

    def _set_data_aside(self) -> None:
        fs, old = self._fs, self._found.data
        if fs.exists(old):
            broken = first_free_name(fs, old + ".broken")
            fs.rename(old, broken)
            fs.sync_dir(self._found.path)
            self._report.broken.append(broken)

    # -- log ---------------------------------------------------------------------------------

    def _repair_log(
        self, *, apply: bool, replay: Callable[[Record], None] | None = None
    ) -> LogRepair:
        directory = self._found.log_directory
        fs, found = self._fs, self._found
        ids = segment_ids(fs, directory)
        if not fs.is_dir(directory) or (ids and self._id not in ids):  # missing, or another's
            if not apply:
                return LogRepair(self._applied or NO_LSN, [], is_restarted=True)
            if fs.exists(directory):
                self._report.broken.append(first_free_name(fs, directory + ".broken"))
                fs.rename(directory, self._report.broken[-1])
            fs.mkdir(directory)
            fs.sync_dir(found.path)
        done = repair_log(
            self._fs, directory, self._id, applied=self._applied, apply=apply, replay=replay
        )
        if apply:
            self._report.broken += [cut.broken for cut in done.cuts]
        return done

    def _count_lost(self, kept: LogRepair) -> None:
        report = self._report
        for cut in kept.cuts:
            where = f"{cut.segment} offset {cut.offset}"
            report.actions.append(f"{where}: {cut.size} bytes are cut and kept as {cut.broken}")
        last = max(kept.last_lsn, self._applied or NO_LSN)
        highest = max(
            self._found.clean_lsn,
            self._found.log.last_lsn,
            *(cut.last_lost or NO_LSN for cut in kept.cuts),
            NO_LSN,
        )
        if highest > last:
            report.lost_lsns.append((Lsn(last + 1), highest))
        if kept.is_restarted:
            report.feed_begins = last

    # -- MANIFEST ----------------------------------------------------------------------------

    def _plan_manifest(self, aside: str) -> None:
        if self._found.manifest is None or aside:
            where = os.path.join(self._found.path, manifests.NAME)
            self._report.actions.append(f"{where} is written anew")

    def _write_manifest(self, kept: LogRepair) -> None:
        """Says that there was no clean close, so that the next opening takes a new epoch."""
        fs, found = self._fs, self._found
        where = os.path.join(found.path, manifests.NAME)
        lost = [last for _, last in self._report.lost_lsns]
        highest = max(kept.last_lsn, self._applied or NO_LSN, *lost)
        manifest = found.manifest
        if manifest is None:
            if fs.exists(where) and not fs.is_dir(where):
                broken = first_free_name(fs, where + ".broken")
                replace_file(fs, broken, fs.read(where))
                self._report.broken.append(broken)
            elif fs.is_dir(where):
                broken = first_free_name(fs, where + ".broken")
                fs.rename(where, broken)
                self._report.broken.append(broken)
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
            fs, found.path
        )


# -- after it ------------------------------------------------------------------------------------


def _finish(path: str, options: Options, report: RepairReport, progress: Progress | None) -> None:
    """Opens it as anybody would, builds the indexes, and checks."""
    options = replace(options, background=False)
    with open_with(path, options, create=False) as db:
        while True:
            try:
                db.build_indexes(progress)
                break
            except (DuplicateKeyError, InvalidDocumentError):
                _drop_unbuilt(db, report)
        found = db.check(progress)
    if not found.ok:
        raise StorageError(
            f"{path} was repaired and is not sound: {found.problems[0]}; what was there is kept "
            f"in {', '.join(report.broken)}",
            path=path,
            report=report,
        )


def _drop_unbuilt(db: Database, report: RepairReport) -> None:
    """Takes back the first declaration that is not built: they are built in this order."""
    collections = db.stats()["collections"]
    for name in db.collections():
        states = collections[name]["indexes"]
        specs = [index.spec for index in db.definition(name).indexes]
        for spec in specs:
            if states[spec.name] == "building":
                report.dropped_indexes.append((name, spec.name))
                db.collection(name, indexes=[kept for kept in specs if kept is not spec])
                return


def _remove(fs: FileSystem, path: str) -> None:
    """A file, or a directory of files, if it is there."""
    if fs.is_dir(path):
        remove_directory(fs, path)
    elif fs.exists(path):
        fs.unlink(path)
