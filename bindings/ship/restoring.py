"""restore_from(): makes a database of what was shipped, as of any commit.

Invariants:
- Archives are fetched into a folder beside the new database, which is removed in any case.
- An archive that a shipper removes meanwhile, since another one replaces it, is no failure: the
  target is listed again.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias, Unpack

import amberdb
from amberdb import AmberError, BackupDamagedError, OpenOptions, RestoreReport
from amberdb.ship.archives import Shipped, Until, way_until
from amberdb.ship.contents import listed
from amberdb.ship.errors import TargetMissingError
from amberdb.ship.keys import checked
from amberdb.ship.source import Source
from amberdb.ship.target import S3Options, Target, target_of

Progress: TypeAlias = Callable[[str, int], None]

THREADS: Final = 8
LISTINGS: Final = 3


def restore_from(
    target: str,
    path: str | os.PathLike[str],
    *,
    until: Until = None,
    key: bytes | None = None,
    s3: S3Options | None = None,
    progress: Progress | None = None,
    **settings: Unpack[OpenOptions],
) -> RestoreReport:
    """Makes a new database at `path` of the newest archives at a target.

        restore_from("s3://bucket/memory", "again.amber")
        restore_from("s3://bucket/memory", "before.amber", until=datetime(2026, 11, 30, tzinfo=UTC))

    until     an Lsn or an aware datetime: the last commit at or before it is the last one restored
    key       the key of the archives, if they are encrypted
    progress  called as `progress(step, count)`; `settings` are those of open()

    Raises TargetMissingError when nothing was shipped there, RestorePointError, ArchiveKeyError,
    BackupDamagedError, the other errors of targets, and those of amberdb.restore().
    """
    if isinstance(until, datetime) and until.tzinfo is None:
        raise ValueError(f"until={until!r}: give a datetime with a time zone")
    place = target_of(target, s3)
    source = Source(place, None if key is None else checked(key))
    parent = os.path.dirname(os.path.realpath(path))
    folder = tempfile.mkdtemp(prefix=f"{os.path.basename(path)}.fetch-", dir=parent)
    try:
        way = _fetched(place, source, until, folder, progress)
        chain = [os.path.join(folder, os.path.basename(each.name)) for each in way]
        came_from = f"{place.url}/{way[0].chain}/"
        try:
            return amberdb.restore(
                chain, path, until=until, came_from=came_from, progress=progress, **settings
            )
        except BackupDamagedError as error:
            message = error.message.replace(os.path.join(folder, ""), came_from)
            raise BackupDamagedError(message, **{**error.facts, "path": came_from}) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(
    place: Target, source: Source, until: Until, folder: str, progress: Progress | None
) -> Sequence[Shipped]:
    """The archives to restore, which are in the folder now."""
    for attempt in range(LISTINGS):
        archives = listed(place)
        way = way_until(archives, until)
        if not way:
            raise TargetMissingError(
                f"{place.url} has no archive to begin with: correct the URL, or ship to it first"
            )
        try:
            with ThreadPoolExecutor(THREADS, "amberdb-fetch") as threads:
                done = threads.map(partial(_fetch, source, folder), way)
                for count, _ in enumerate(done, 1):
                    if progress is not None:
                        progress("archives", count)
            return way
        except TargetMissingError:
            if attempt + 1 == LISTINGS:
                raise
    raise AssertionError("endless")


def _fetch(source: Source, folder: str, archive: Shipped) -> None:
    path = os.path.join(folder, os.path.basename(archive.name))
    if not os.path.exists(path):
        try:
            source.fetch(archive, path)
        except (AmberError, OSError):
            if os.path.exists(path):
                os.unlink(path)
            raise
