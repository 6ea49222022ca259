"""The shipper: a thread that ships what was committed, every `every_ms`.

Invariants:
- No failure of the target reaches a writer: it is logged once for a row of failures, is in
  status(), and is tried again after pauses that double, up to RETRY_S.
- It begins again where the target is, not where it believes to have been.
- When close() returns no thread of it runs, and its folder is removed.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, final

from amberdb import ClosedError, Database, Lsn
from amberdb._connect import connect_or_open
from amberdb.ship.errors import TargetUnreachableError
from amberdb.ship.keys import checked
from amberdb.ship.outbox import Outbox
from amberdb.ship.target import S3Options, target_of

logger = logging.getLogger("amberdb.ship")

EVERY_MS: Final = 500
RETRY_S: Final = 5.0
"""The longest pause after a failure."""


@final
@dataclass(frozen=True, slots=True)
class ShipStatus:
    """How far a shipper is."""

    target: str
    lsn: Lsn | None = None
    """The last commit that is at the target; None while that is not known."""
    time: datetime | None = None
    """The time of that commit."""
    shipped_at: datetime | None = None
    """When this shipper found nothing left to ship the last time, or shipped an archive."""
    archives: int = 0
    """The number of archives that this shipper has sent."""
    size_bytes: int = 0
    """Of these archives."""
    failed: int = 0
    """The number of attempts that failed."""
    last_error: str | None = None
    """Why the last attempt failed; None since one succeeded."""
    retry_in_s: float | None = None
    """The pause after the last failure."""


@final
class Shipper:
    """Ships the commits of a database; made by ship()."""

    def __init__(
        self, db: Database, outbox: Outbox, folder: str, url: str, every_s: float,
        clock: Callable[[], float], *, owns_db: bool,
    ) -> None:  # fmt: skip
        self._db = db
        self._outbox = outbox
        self._folder = folder
        self._every_s = every_s
        self._clock = clock
        self._owns_db = owns_db
        self._step = threading.Lock()
        """Held during a step."""
        self._state = threading.Condition()
        self._status = ShipStatus(url)
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Shipper":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        status = self.status()
        return f"<amberdb.ship.Shipper to {status.target!r} at Lsn {status.lsn}>"

    def start(self) -> None:
        """Begins to ship in a thread. Called by ship()."""
        self._thread = threading.Thread(target=self._run, name="amberdb-ship", daemon=True)
        self._thread.start()

    def status(self) -> ShipStatus:
        """How far it is, and what failed."""
        with self._state:
            return self._status

    def ship_now(self) -> ShipStatus:
        """Ships until nothing that was committed before the call is left. Raises ShipError, and
        what Database.backup() raises."""
        with self._step:
            last = self._db.refresh()
            while self._outbox.step():
                self._note_shipped()
                if self._outbox.newest is not None and self._outbox.newest.lsn >= last:
                    break  # others may commit faster than it ships
            self._note_idle()
        return self.status()

    def wait_for(self, lsn: int, timeout_s: float | None = None) -> bool:
        """Waits until the commit `lsn` is at the target; whether it came in time."""
        with self._state:
            return self._state.wait_for(
                lambda: self._status.lsn is not None and self._status.lsn >= lsn, timeout_s
            )

    def close(self) -> None:
        """Ships what is left, if the target takes it at once, and ends the thread. Close it before
        the database. A second call does nothing."""
        with self._state:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._state.notify_all()
        try:
            if self._thread is not None:
                self._thread.join()
                with self._step:
                    if self._attempt() and self._status.lsn is not None:
                        self._attempt()  # behind an archive that was waiting
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._owns_db:
                self._db.close()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        due = time.monotonic()
        while self._waits_until(due):
            due = time.monotonic() + self._every_s
            try:
                with self._step:
                    is_well = self._attempt()
            except ClosedError:
                return
            failures = 0 if is_well else failures + 1
            if failures:
                pause_s = min(self._every_s * 2 ** min(failures, 20), RETRY_S)
                self._note(retry_in_s=pause_s)
                due = time.monotonic() + pause_s

    def _waits_until(self, due: float) -> bool:
        """Whether it is to go on."""
        with self._state:
            self._state.wait_for(lambda: self._is_stopped, max(0.0, due - time.monotonic()))
            return not self._is_stopped

    def _attempt(self) -> bool:
        """Ships one archive if one is due; whether that went well. Raises ClosedError."""
        try:
            if self._outbox.step():
                self._note_shipped()
            else:
                self._note_idle()
        except ClosedError as error:
            self._note(last_error=f"{error}: close the shipper before its database")
            raise
        except Exception as error:
            status = self.status()
            if status.last_error is None:
                logger.warning(
                    "shipping to %s failed, and is tried again: %s", status.target, error
                )
            self._note(failed=status.failed + 1, last_error=str(error))
            return False
        return True

    def _note_shipped(self) -> None:
        newest = self._outbox.newest
        assert newest is not None
        status = self.status()
        if status.last_error is not None:
            logger.info("shipping to %s goes on at Lsn %d", status.target, newest.lsn)
        self._note(
            archives=status.archives + 1,
            size_bytes=status.size_bytes + newest.size_bytes,
        )
        self._note_idle()

    def _note_idle(self) -> None:
        newest = self._outbox.newest
        if newest is not None:
            self._note(
                lsn=newest.lsn,
                time=newest.time,
                shipped_at=datetime.fromtimestamp(self._clock(), UTC),
                last_error=None,
                retry_in_s=None,
            )

    def _note(self, **facts: object) -> None:
        with self._state:
            self._status = replace(self._status, **facts)  # type: ignore[arg-type]
            self._state.notify_all()


def ship(
    db: Database | str | os.PathLike[str],
    target: str,
    *,
    every_ms: float = EVERY_MS,
    key: bytes | None = None,
    compress: Literal["zstd"] | None = None,
    s3: S3Options | None = None,
    clock: Callable[[], float] = time.time,
) -> Shipper:
    """Ships incremental backups to a target that is not a folder of this database, in a thread.

        with amberdb.open("memory.amber") as db, ship(db, "s3://bucket/memory") as shipper:
            ...
            shipper.status().lsn

    db        an open database, also a shared one; or the path of one, which is then opened to be
              shared, beside other processes, and closed with the shipper
    target    s3://bucket/prefix (extra `s3`) or file:///folder; the bucket or folder exists
    every_ms  how often what was committed is shipped
    key       32 bytes: archives are encrypted with it (extra `crypto`); see key_from()
    compress  "zstd" (extra `zstd`) or None
    s3        what the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...) does not say

    A target that does not answer is tried again. Raises TargetUrlError, TargetMissingError,
    TargetAccessError, ArchiveKeyError, ShipExtraError.
    """
    if not every_ms > 0:
        raise ValueError(f"every_ms={every_ms!r}: give a number above 0")
    place = target_of(target, s3)
    if key is not None:
        checked(key)
    owns_db = not isinstance(db, Database)
    opened = db if isinstance(db, Database) else connect_or_open(db, create=False)
    folder = ""
    try:
        folder = _folder_of(opened.path)
        outbox = Outbox(opened, place, folder, key, compress, clock)
        shipper = Shipper(
            opened, outbox, folder, place.url, every_ms / 1000, clock, owns_db=owns_db
        )
        try:
            outbox.resume()
        except TargetUnreachableError as error:
            logger.warning("%s: it is tried again", error)
        shipper.start()
    except BaseException:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if owns_db:
            opened.close()
        raise
    return shipper


def _folder_of(path: str) -> str:
    """A new folder for archives that wait, beside the database: there is room for it there. Those
    of processes that were killed are removed."""
    parent, name = os.path.split(path)
    if not os.path.isdir(path):  # a database in memory
        return tempfile.mkdtemp(prefix="amberdb-ship-")
    start = f"{name}.ship-"
    for each in os.listdir(parent or "."):
        pid = each.removeprefix(start).partition("-")[0]
        if each.startswith(start) and pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(os.path.join(parent, each), ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{start}{os.getpid()}-", dir=parent or None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
