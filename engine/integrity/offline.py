"""check() of a closed database, which may be too damaged to open.

    lock -> MANIFEST -> pages of data.mdb -> LMDB, read-only -> every record of the log ->
    check() of the view that an open would show

Invariants:
- No file is changed but LOCK: no recovery, no cut, no file is extended.
- LMDB maps data.mdb only if every reachable page was found sound: damage cannot crash the process.
- Each problem names its file, and the offset if it has one.
"""

import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Unpack

from amberdb._errors import (
    AmberError,
    CorruptionError,
    DatabaseMissingError,
    FormatError,
    NotADatabaseError,
)
from amberdb._fs import FileSystem
from amberdb._public import public
from amberdb._types import NO_LSN, Lsn, Progress
from amberdb.engine.integrity.check import CheckReport, check_applied, check_view
from amberdb.engine.options import OpenOptions, Options
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import DATABASE_ID
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.data_file import DATA_FILE, check_file, check_version, verify_file
from amberdb.engine.storage.directory import (
    WAL,
    data_directory,
    generation_of,
    lock_directory,
    open_errors,
)
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import stored_view
from amberdb.wal import LogCheck, Record, check_log, segment_ids


@dataclass(slots=True)
class OfflineCheck:
    """The state of a closed database, as far as its files can be read."""

    path: str
    manifest: Manifest | None = None
    generation: int = 1
    database_id: bytes | None = None
    applied: Lsn | None = None
    """The Lsn that LMDB has applied, if its pages are sound."""
    is_data_sound: bool = False
    needs_data: bool = False
    """Whether data.mdb has to be rebuilt: it has a problem, or its state is unknown."""
    log: LogCheck = field(default_factory=LogCheck)
    report: CheckReport = field(default_factory=CheckReport)

    @property
    def clean_lsn(self) -> Lsn:
        """The last Lsn at a clean close; NO_LSN after an unclean one, or if it is unknown."""
        return (self.manifest.clean_lsn if self.manifest is not None else None) or NO_LSN

    @property
    def data(self) -> str:
        return data_directory(self.path, self.generation)

    @property
    def log_directory(self) -> str:
        return os.path.join(self.path, WAL)


@public
def check(
    path: str | os.PathLike[str], progress: Progress | None = None, **settings: Unpack[OpenOptions]
) -> CheckReport:
    """Checks a closed database, also one that cannot be opened; changes nothing.

    Reads every reachable page of data.mdb and every record of the log. If these are sound, it also
    compares everything that Database.check() compares. `settings` are those of open(). Raises
    LockedError, DatabaseMissingError, NotADatabaseError, FormatError (newer), OpenError.
    """
    options = Options(**settings)
    with locked_path(os.fspath(path), options) as whole:
        return check_offline(whole, options, progress).report


@contextmanager
def locked_path(path: str, options: Options) -> Generator[str]:
    """The absolute path of a database, locked, whatever the state of its files. Raises
    DatabaseMissingError, NotADatabaseError, LockedError, OpenError."""
    fs = options.fs
    path = os.path.abspath(path)
    with open_errors(path):
        if not fs.exists(path):
            raise DatabaseMissingError(f"there is no database at {path}", path=path)
        names = fs.listdir(path) if fs.is_dir(path) else []
        if not any(name in (manifests.NAME, WAL) or generation_of(name) for name in names):
            raise NotADatabaseError(f"{path} is not a database: choose another path", path=path)
        lock = lock_directory(path, options)
        try:
            yield path
        finally:
            lock.close()


def check_offline(path: str, options: Options, progress: Progress | None) -> OfflineCheck:
    """Checks the files of a locked database, in the order in which an open reads them."""
    result = OfflineCheck(path)
    _read_manifest(result, options.fs)
    if progress is not None:
        progress(DATA_FILE, 0)
    result.is_data_sound = _is_sound(result, options.fs)
    store = None
    try:
        if result.is_data_sound:
            store = _open(result, options)
        result.database_id = _majority(result, store, options.fs)
        _read(result, store, options, progress)
    finally:
        if store is not None:
            store.close()
    result.needs_data = result.needs_data or result.applied is None
    if result.applied is not None and result.applied > max(result.log.last_lsn, result.clean_lsn):
        result.needs_data = True  # no other source confirms that commit
    return result


def _read_manifest(result: OfflineCheck, fs: FileSystem) -> None:
    report = result.report
    where = os.path.join(result.path, manifests.NAME)
    generations = [number for n in fs.listdir(result.path) if (number := generation_of(n))]
    try:
        result.manifest = manifests.read(fs, result.path)
    except FormatError:
        raise
    except (FileNotFoundError, IsADirectoryError):
        report.add(f"{where} is missing")
    except NotADatabaseError:
        report.add(f"{where} offset 0: it is not a MANIFEST of AmberDB")
    except AmberError as error:
        report.add(str(error))
    if result.manifest is not None:
        check_version(result.path, result.manifest.lmdb_version)
        result.generation = result.manifest.generation
    elif generations:
        result.generation = max(generations)
    for number in generations:
        if number != result.generation:
            unused = data_directory(result.path, number)
            report.notes.append(f"{unused} is not in use")


def _is_sound(result: OfflineCheck, fs: FileSystem) -> bool:
    """Whether LMDB can map the file without a crash; adds problems."""
    where = os.path.join(result.data, DATA_FILE)
    try:
        check_file(fs, where, repair=False)
    except CorruptionError as error:
        result.report.add(str(error))
        return False
    except OSError as error:
        result.report.add(f"{where} cannot be read: {error.strerror}")
        return False
    problems = verify_file(where)
    for problem in problems:
        result.report.add(problem)
    return not problems


def _open(result: OfflineCheck, options: Options) -> Store | None:
    try:
        store = Store(
            result.data, fs=options.fs, create=False, map_bytes=options.map_bytes, read_only=True
        )
    except AmberError as error:
        result.report.add(str(error))
        result.is_data_sound = False
        return None
    result.applied = store.applied_lsn
    return store


def _majority(result: OfflineCheck, store: Store | None, fs: FileSystem) -> bytes | None:
    """The database id by majority of MANIFEST, data and log; a file that differs is a problem."""
    where = os.path.join(result.path, manifests.NAME)
    stored: list[tuple[str, bytes]] = []
    if result.manifest is not None:
        stored.append((where, result.manifest.database_id))
    if store is not None:
        stored.append((store.path, store.get(DATABASE_ID) or b""))
    segments = Counter(segment_ids(fs, result.log_directory)).most_common(1)
    stored += [(result.log_directory, own) for own, _ in segments]
    if not stored:
        return None
    id = Counter(own for _, own in stored).most_common(1)[0][0]
    for path, own in stored:
        if own != id and path != result.log_directory:  # its segments are checked one by one
            result.report.add(f"{path} belongs to another database than the other files")
            result.needs_data = result.needs_data or path != where
            result.manifest = None if path == where else result.manifest
    return id if len(id) == 16 else None


def _read(
    result: OfflineCheck, store: Store | None, options: Options, progress: Progress | None
) -> None:
    """Checks the log, and the view that an open would show."""
    report = result.report
    memtable = Memtable()
    applied = result.applied
    last: list[Record] = []

    def replay(record: Record) -> None:
        effects = decode_effects(record.payload)
        report.log_records += 1
        if progress is not None and not report.log_records % 1000:
            progress("log", report.log_records)
        if record.lsn == applied:
            last.append(record)
        elif applied is not None and record.lsn > applied:
            memtable.publish(record.lsn, effects, len(record.payload), record.time_us)

    result.log = check_log(
        options.fs,
        result.log_directory,
        result.database_id,
        applied=applied,
        clean_last=result.manifest.clean_lsn if result.manifest is not None else None,
        replay=replay,
    )
    report.notes += result.log.notes
    for problem in result.log.problems:
        report.add(problem)
    if store is None:
        return
    before = len(report.problems)
    if result.log.problems:
        memtable = Memtable()  # LMDB alone still has to be consistent
    lsn = max(store.applied_lsn, memtable.last_lsn)
    try:
        with stored_view(store, memtable, lsn, options) as view:
            for record in last:
                check_applied(view, record, report)
            check_view(view, report, progress)
    except AmberError as error:
        report.add(str(error))
    result.needs_data = result.needs_data or len(report.problems) > before
