"""A folder of backups: which archives are in it, which chains they make, and which may go.

Invariants:
- Only files whose name ends as a backup's does are looked at, and only their headers are read; one
  that cannot be read is left alone.
- What is pruned is never the base of what is kept; what was just taken is kept.
- An archive is removed before the one that it goes on from: a crash leaves no gap.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from amberdb._errors import AmberError
from amberdb._fs import FileSystem
from amberdb._time import time_of
from amberdb.engine.backup.archive import Header
from amberdb.engine.backup.chain import read_header

SUFFIX: Final = ".amberbak"


@final
@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One archive of a folder."""

    path: str
    header: Header

    @property
    def created(self) -> datetime:
        return time_of(self.header.created_us)


Chain = list[ArchiveFile]
"""A full archive, and those that go on from it."""


def archives_in(fs: FileSystem, directory: str) -> list[ArchiveFile]:
    """All that can be read, in the order of their last Lsns: a clock may have been set back, and a
    restored database has Lsns above those of the one before."""
    found: list[ArchiveFile] = []
    for name in fs.listdir(directory) if fs.is_dir(directory) else []:
        path = os.path.join(directory, name)
        if name.endswith(SUFFIX):
            try:
                found.append(ArchiveFile(path, read_header(fs, path)))
            except (AmberError, OSError):
                continue
    return sorted(found, key=_order)


def chains_of(archives: Iterable[ArchiveFile]) -> list[Chain]:
    """The chains that they make, that with the newest archive last."""
    chains: list[Chain] = []
    for each in archives:
        if each.header.is_full:
            chains.append([each])
            continue
        for chain in chains:
            if chain[-1].header.id == each.header.base:
                chain.append(each)
    return sorted(chains, key=lambda chain: _order(chain[-1]))


def to_prune(chains: list[Chain], newest: str, keep_hourly: int, keep_daily: int) -> list[str]:
    """The paths of what is no longer kept, in the order in which they may be removed.

    Kept are `newest`, which was just taken, the newest archive of each of the last `keep_hourly`
    hours that have one, the newest full one of each of the last `keep_daily` days, and what these
    go on from.
    """
    every = [each for chain in chains for each in chain]
    full = [each for each in every if each.header.is_full]
    wanted = {newest}
    wanted |= _newest(every, keep_hourly, lambda time: (*time.timetuple()[:4],))
    wanted |= _newest(full, keep_daily, lambda time: (*time.timetuple()[:3],))
    gone: list[str] = []
    for chain in chains:
        while chain and chain[-1].path not in wanted:
            gone.append(chain.pop().path)
    return gone


def _newest(
    archives: list[ArchiveFile], count: int, bucket: Callable[[datetime], tuple[int, ...]]
) -> set[str]:
    """The newest archive of each of the last `count` buckets that have one."""
    by_bucket: dict[tuple[int, ...], ArchiveFile] = {}
    for each in sorted(archives, key=_order):
        by_bucket[bucket(each.created)] = each
    return {by_bucket[key].path for key in sorted(by_bucket)[-count:]} if count else set()


def _order(archived: ArchiveFile) -> tuple[int, int]:
    return archived.header.last_lsn, archived.header.created_us
