"""Looking at a database that nobody has open, and that perhaps cannot be opened.

    lock -> MANIFEST -> pages of data.mdb -> LMDB, to read only -> every record of the log ->
    check() of what an opening would show

Invariants:
- Nothing is changed, but the name in LOCK: no recovery, no cut, no file made longer.
- LMDB maps data.mdb only when every page that can be reached was found sound, so that no damage
  ends the process.
- Each finding names its file, and the place where there is one.
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
    open_errors,
    take_lock,
)
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import stored_view
from amberdb.wal import LogCheck, Record, check_log, segment_ids


@dataclass(slots=True)
class OfflineCheck:
    """The parts of a closed database, as far as they can be made out."""

    path: str
    manifest: Manifest | None = None
    generation: int = 1
    database_id: bytes | None = None
    applied: Lsn | None = None
    """What LMDB says, when its pages are sound."""
    is_data_sound: bool = False
    needs_data: bool = False
    """Whether anything in data.mdb is not as it should be, or cannot be told."""
    log: LogCheck = field(default_factory=LogCheck)
    report: CheckReport = field(default_factory=CheckReport)

    @property
    def clean_lsn(self) -> Lsn:
        """Where it was closed cleanly; NO_LSN where it was not, or nobody knows."""
        return (self.manifest.clean_lsn if self.manifest is not None else None) or NO_LSN

    @property
    def data(self) -> str:
        return data_directory(self.path, self.generation)

    @property
    def log_directory(self) -> str:
        return os.path.join(self.path, WAL)


def check_closed(
    path: str | os.PathLike[str], progress: Progress | None = None, **settings: Unpack[OpenOptions]
) -> CheckReport:
    """Examines a database that nobody has open, also one that cannot be opened; changes nothing.

    Every page of data.mdb that can be reached and every record of the log is read, and where
    they are sound, everything that Database.check() compares. `settings` are those of open().
    Raises LockedError, DatabaseMissingError, NotADatabaseError, FormatError (newer), OpenError.
    """
    options = Options(**settings)
    with held(os.fspath(path), options) as whole:
        return examine(whole, options, progress).report


@contextmanager
def held(path: str, options: Options) -> Generator[str]:
    """The absolute path of a database, locked, whatever state it is in."""
    fs = options.fs
    path = os.path.abspath(path)
    with open_errors(path):
        if not fs.exists(path):
            raise DatabaseMissingError(f"there is no database at {path}", path=path)
        names = fs.listdir(path) if fs.is_dir(path) else []
        if not any(n in (manifests.NAME, WAL) or generation_of(n) for n in names):
            raise NotADatabaseError(f"{path} is not a database: choose another path", path=path)
        lock = take_lock(path, options)
        try:
            yield path
        finally:
            lock.close()


def examine(path: str, options: Options, progress: Progress | None) -> OfflineCheck:
    """All that check() can find, in the order in which an opening would meet it."""
    found = OfflineCheck(path)
    _read_manifest(found, options.fs)
    if progress is not None:
        progress(DATA_FILE, 0)
    found.is_data_sound = _is_sound(found, options.fs)
    store = None
    try:
        if found.is_data_sound:
            store = _open(found, options)
        found.database_id = _majority(found, store, options.fs)
        _read(found, store, options, progress)
    finally:
        if store is not None:
            store.close()
    found.needs_data = found.needs_data or found.applied is None
    if found.applied is not None and found.applied > max(found.log.last_lsn, found.clean_lsn):
        found.needs_data = True  # nothing else bears out that there was such a commit
    return found


def _read_manifest(found: OfflineCheck, fs: FileSystem) -> None:
    report = found.report
    where = os.path.join(found.path, manifests.NAME)
    generations = [number for n in fs.listdir(found.path) if (number := generation_of(n))]
    try:
        found.manifest = manifests.read(fs, found.path)
    except FormatError:
        raise
    except (FileNotFoundError, IsADirectoryError):
        report.add(f"{where} is missing")
    except NotADatabaseError:
        report.add(f"{where} offset 0: it does not begin as a MANIFEST does")
    except AmberError as error:
        report.add(str(error))
    if found.manifest is not None:
        check_version(found.path, found.manifest.lmdb_version)
        found.generation = found.manifest.generation
    elif generations:
        found.generation = max(generations)
    for number in generations:
        if number != found.generation:
            unused = data_directory(found.path, number)
            report.notes.append(f"{unused} is not in use")


def _is_sound(found: OfflineCheck, fs: FileSystem) -> bool:
    """Whether LMDB may map the file, and finds its way in it."""
    where = os.path.join(found.data, DATA_FILE)
    try:
        check_file(fs, where, mend=False)
    except CorruptionError as error:
        found.report.add(str(error))
        return False
    except OSError as error:
        found.report.add(f"{where} cannot be read: {error.strerror}")
        return False
    problems = verify_file(where)
    for problem in problems:
        found.report.add(problem)
    return not problems


def _open(found: OfflineCheck, options: Options) -> Store | None:
    try:
        store = Store(
            found.data, fs=options.fs, create=False, map_bytes=options.map_bytes, read_only=True
        )
    except AmberError as error:
        found.report.add(str(error))
        found.is_data_sound = False
        return None
    found.applied = store.applied_lsn
    return store


def _majority(found: OfflineCheck, store: Store | None, fs: FileSystem) -> bytes | None:
    """Which database it is, by MANIFEST, data and most of the log; what differs is a problem."""
    where = os.path.join(found.path, manifests.NAME)
    said: list[tuple[str, bytes]] = []
    if found.manifest is not None:
        said.append((where, found.manifest.database_id))
    if store is not None:
        said.append((store.path, store.get(DATABASE_ID) or b""))
    segments = Counter(segment_ids(fs, found.log_directory)).most_common(1)
    said += [(found.log_directory, own) for own, _ in segments]
    if not said:
        return None
    id = Counter(own for _, own in said).most_common(1)[0][0]
    for path, own in said:
        if own != id and path != found.log_directory:  # whose segments are looked at one by one
            found.report.add(f"{path} belongs to another database than the rest")
            found.needs_data = found.needs_data or path != where
            found.manifest = None if path == where else found.manifest
    return id if len(id) == 16 else None


def _read(
    found: OfflineCheck, store: Store | None, options: Options, progress: Progress | None
) -> None:
    """The log, and the view that an opening would show."""
    report = found.report
    memtable = Memtable()
    applied = found.applied
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

    found.log = check_log(
        options.fs,
        found.log_directory,
        found.database_id,
        applied=applied,
        clean_last=found.manifest.clean_lsn if found.manifest is not None else None,
        replay=replay,
    )
    report.notes += found.log.notes
    for problem in found.log.problems:
        report.add(problem)
    if store is None:
        return
    before = len(report.problems)
    if found.log.problems:
        memtable = Memtable()  # LMDB by itself still has to agree with itself
    lsn = max(store.applied_lsn, memtable.last_lsn)
    try:
        with stored_view(store, memtable, lsn, options.document_bytes_max) as view:
            for record in last:
                check_applied(view, record, report)
            check_view(view, report, progress)
    except AmberError as error:
        report.add(str(error))
    found.needs_data = found.needs_data or len(report.problems) > before
