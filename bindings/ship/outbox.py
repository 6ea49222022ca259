"""The outbox of a shipper: takes an archive, sends it, and knows where the target is.

    committed since the newest archive?  ->  db.backup(base=newest)  ->  sealed  ->  target
                                        every LOOSE_MAX archives: one that joins them, which are
                                        then removed there

The folder of the outbox has the archive that waits, and the heads of those that the next one may
continue: db.backup() reads of its base nothing but the header, which is in the first HEAD_BYTES.

Invariants:
- At most one archive waits, however long the target is down; it is sent first, and the next has
  all that was committed meanwhile.
- An archive counts as shipped once the target has it whole. What it replaces is removed after it.
- The log is held by a subscriber, whose position is the end of the last archive that stays.
- A chain is not longer than CHAIN_MAX archives or a day, and its increments are not larger than
  its full archive, or CHAIN_BYTES_MIN.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, final

from amberdb import BackupChainError, BackupDamagedError, BackupReport, Database, Subscriber
from amberdb.ship.archives import (
    Kind,
    Shipped,
    is_of_another,
    new_chain,
    newest_way,
    parsed,
    shipped_of,
)
from amberdb.ship.errors import ShipError, TargetInUseError, TargetMissingError
from amberdb.ship.sealed import CHUNK_SIZE, sealed, sealed_size
from amberdb.ship.source import Source
from amberdb.ship.target import Target

logger = logging.getLogger("amberdb.ship")

LOOSE_MAX: Final = 64
CHAIN_MAX: Final = 3000
CHAIN_S: Final = 86_400
CHAIN_BYTES_MIN: Final = 64 << 20
HEAD_BYTES: Final = 5 << 20
NAME_BYTES_MAX: Final = 200
"""Of a subscriber."""
_NEXT: Final = "next.amberbak"
_LAST: Final = "last.amberbak"
_JOINT: Final = "joint.amberbak"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An archive that was taken and is not at the target yet."""

    shipped: Shipped
    path: str
    report: BackupReport


@final
class Outbox:
    """One database and one target; for one thread."""

    def __init__(
        self,
        db: Database,
        target: Target,
        folder: str,
        key: bytes | None,
        compress: Literal["zstd"] | None,
        clock: Callable[[], float],
    ) -> None:
        self._db = db
        self._target = target
        self._folder = folder
        self._key = key
        self._compress: Literal["zstd"] | None = compress
        self._clock = clock
        self._source = Source(target, key)
        self._feed: Subscriber | None = None
        self._way: list[Shipped] | None = None
        """To the newest archive at the target; None until the target was listed."""
        self._is_sure = False
        """Whether the newest archive there is known to be one of this database's."""
        self._waiting: Waiting | None = None
        self._replaced: list[str] = []
        """Names at the target that a join has replaced."""

    @property
    def newest(self) -> Shipped | None:
        """The newest archive at the target, as far as it is known."""
        return self._way[-1] if self._way else None

    @property
    def waiting(self) -> Shipped | None:
        return None if self._waiting is None else self._waiting.shipped

    def step(self) -> bool:
        """Ships one archive if there is something to ship; whether there was. Raises ShipError,
        and what Database.backup() raises."""
        self.resume()
        assert self._way is not None
        if self._waiting is None:
            if self._is_sure and self._db.refresh() <= self._way[-1].lsn:
                return False
            self._waiting = self._taken(self._way)
        self._send(self._waiting, self._way)
        return True

    # -- where it was --------------------------------------------------------------------------

    def resume(self) -> None:
        """Finds out where an earlier run has ended, once. Raises ShipError, FormatError."""
        if self._way is None:
            self._way = self._resumed()

    def _resumed(self) -> list[Shipped]:
        """The way at the target, whose ends are fetched to be continued."""
        name = f"ship {self._target.url}".encode()[:NAME_BYTES_MAX].decode(errors="ignore")
        self._feed = self._db.subscriber(name)
        there = [each for name, size in self._target.objects() if (each := parsed(name, size))]
        way = newest_way(there)
        if not way:
            return way
        joint = next(each for each in reversed(way) if each.kind != "more")
        try:
            for name, archive in ((_JOINT, joint), (_LAST, way[-1])):
                with suppress(FileNotFoundError):  # of an attempt before
                    os.unlink(self._path(name))
                self._source.fetch_head(archive, self._path(name), HEAD_BYTES)
        except (BackupDamagedError, TargetMissingError) as error:
            logger.warning("a new chain begins, since the newest cannot be continued: %s", error)
            return []
        self._replaced = [
            each.name
            for each in there
            if each.chain == joint.chain and each.kind == "more" and each.lsn <= joint.lsn
        ]
        return way

    # -- taking --------------------------------------------------------------------------------

    def _taken(self, way: list[Shipped]) -> Waiting:
        if way and not self._is_long(way):
            loose = len(_loose(way))
            joint = way[len(way) - loose - 1]
            bases: list[tuple[str, Shipped, Kind]] = [(_LAST, way[-1], "more")]
            if loose >= LOOSE_MAX:
                bases.insert(0, (_JOINT, joint, "join"))
            for name, base, kind in bases:
                try:
                    return self._archive(base.chain, kind, base.id, self._path(name))
                except (BackupChainError, BackupDamagedError) as error:
                    logger.debug("no archive of kind %s: %s", kind, error)
        now = datetime.fromtimestamp(self._clock(), UTC)
        return self._archive(new_chain(now, os.urandom(4).hex()), "full", "", None)

    def _is_long(self, way: list[Shipped]) -> bool:
        age = datetime.fromtimestamp(self._clock(), UTC) - way[0].created
        size = sum(archive.size_bytes for archive in way[1:])
        limit = max(CHAIN_BYTES_MIN, way[0].size_bytes)
        return abs(age) >= timedelta(seconds=CHAIN_S) or len(way) >= CHAIN_MAX or size > limit

    def _archive(self, chain: str, kind: Kind, base: str, base_path: str | None) -> Waiting:
        path = self._path(_NEXT)
        if os.path.exists(path):  # of an attempt that failed behind it
            os.unlink(path)
        report = self._db.backup(
            path,
            base=base_path,
            compress=self._compress,
            sent_to=f"{self._target.url}/{chain}/",
        )
        shipped = shipped_of(report, chain, kind, base, is_encrypted=self._key is not None)
        return Waiting(shipped, path, report)

    # -- sending -------------------------------------------------------------------------------

    def _send(self, waiting: Waiting, way: list[Shipped]) -> None:
        shipped = waiting.shipped
        if is_of_another(shipped, way[-1] if way else None):
            raise TargetInUseError(
                f"{self._target.url} has the archives of another database: ship to a place where "
                "nothing is"
            )
        size = waiting.report.size_bytes
        if self._key is None:
            self._target.put(shipped.name, _parts(waiting.path), size)
        else:
            parts = sealed(_parts(waiting.path), self._key)
            self._target.put(shipped.name, parts, sealed_size(size))
        self._waiting = None
        self._is_sure = True
        if shipped.kind == "full":
            way[:] = []
        elif shipped.kind == "join":
            loose = _loose(way)
            self._replaced += [archive.name for archive in loose]
            del way[len(way) - len(loose) :]
        way.append(shipped)
        self._keep_head(waiting.path, shipped.kind)
        if shipped.kind != "more":
            self._tidy(shipped)

    def _keep_head(self, path: str, kind: Kind) -> None:
        if os.path.getsize(path) > HEAD_BYTES:
            os.truncate(path, HEAD_BYTES)
        last, joint = self._path(_LAST), self._path(_JOINT)
        os.replace(path, last)
        if kind != "more":
            if os.path.exists(joint):
                os.unlink(joint)
            os.link(last, joint)

    def _tidy(self, shipped: Shipped) -> None:
        """Lets the log go that is not needed, and removes what was replaced."""
        if self._feed is not None and self._feed.position < shipped.lsn:
            self._feed.acknowledge(shipped.lsn)
        try:
            self._target.delete(self._replaced)
            self._replaced = []
        except ShipError as error:  # tried again after the next join
            logger.warning("archives that were replaced are still there: %s", error)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _loose(way: list[Shipped]) -> list[Shipped]:
    """The archives after the last one that stays."""
    count = 0
    while way[-1 - count].kind == "more":
        count += 1
    return way[len(way) - count :]


def _parts(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while part := file.read(CHUNK_SIZE):
            yield part
