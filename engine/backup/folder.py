"""A folder of backups: its archives, the chains that they form, and which of them to prune.

Invariants:
- Only files with the suffix of a backup count, and only their headers are read; a file that cannot
  be read is ignored.
- The base of an archive that is kept is never pruned, nor is the newest archive.
- An archive is removed before its base: a crash leaves no chain with a gap.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
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
    """An archive in a folder."""

    path: str
    header: Header

    @property
    def created(self) -> datetime:
        return time_of(self.header.created_us)


Chain = list[ArchiveFile]
"""A full archive and its incremental ones, in their order."""


def archives_in(fs: FileSystem, directory: str) -> list[ArchiveFile]:
    """All readable archives, in the order of their last Lsns, not of their times: a clock may have
    been set back, and a restored database continues with higher Lsns."""
    archives: list[ArchiveFile] = []
    for name in fs.listdir(directory) if fs.is_dir(directory) else []:
        path = os.path.join(directory, name)
        if name.endswith(SUFFIX):
            try:
                archives.append(ArchiveFile(path, read_header(fs, path)))
            except (AmberError, OSError):
                continue
    return sorted(archives, key=_order)


def chains_of(archives: Iterable[ArchiveFile]) -> list[Chain]:
    """The chains that the archives form, the one with the newest archive last."""
    chains: list[Chain] = []
    for archive in archives:
        if archive.header.is_full:
            chains.append([archive])
            continue
        for chain in chains:
            if chain[-1].header.id == archive.header.base:
                chain.append(archive)
    return sorted(chains, key=lambda chain: _order(chain[-1]))


def to_prune(chains: list[Chain], newest: str, keep_hourly: int, keep_daily: int) -> list[str]:
    """The paths of the archives to remove, in the order in which to remove them.

    Kept are `newest`, the newest archive of each of the last `keep_hourly` hours that have one, the
    newest full archive of each of the last `keep_daily` days, and the bases of these. An archive
    that was taken by a wrong clock has a time after that of a later archive, or makes earlier ones
    look so: kept is what either time asks for, its own and the latest that its place allows.
    """
    archives = sorted((archive for chain in chains for archive in chain), key=_order)
    kept = {newest}
    for times in ([archive.created for archive in archives], _latest_times(archives)):
        dated = list(zip(times, archives, strict=True))
        full = [pair for pair in dated if pair[1].header.is_full]
        kept |= _newest(dated, keep_hourly, lambda time: (*time.timetuple()[:4],))
        kept |= _newest(full, keep_daily, lambda time: (*time.timetuple()[:3],))
    pruned: list[str] = []
    for chain in chains:
        while chain and chain[-1].path not in kept:
            pruned.append(chain.pop().path)
    return pruned


def _latest_times(archives: list[ArchiveFile]) -> list[datetime]:
    """For each archive the earliest of its time and those of the archives after it."""
    return list(accumulate((archive.created for archive in reversed(archives)), min))[::-1]


def _newest(
    dated: list[tuple[datetime, ArchiveFile]],
    count: int,
    bucket: Callable[[datetime], tuple[int, ...]],
) -> set[str]:
    """The newest archive of each of the last `count` buckets that have one."""
    by_bucket: dict[tuple[int, ...], ArchiveFile] = {}
    for time, archive in dated:
        by_bucket[bucket(time)] = archive
    return {by_bucket[key].path for key in sorted(by_bucket)[-count:]} if count else set()


def _order(archive: ArchiveFile) -> tuple[int, int]:
    return archive.header.last_lsn, archive.header.created_us
