"""The change feed: the log, told as changes of documents, and of the names of collections.

Invariants:
- Only durable commits are told, whole, in order, each once per reading. Of a collection that was
  dropped meanwhile nothing is told but that.
- A subscriber's position is an ordinary commit, so it survives what documents survive. The log is
  kept for the slowest one, up to a limit; past it, LogTruncatedError names where to go on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, final

from amberdb import _failpoints as failpoints
from amberdb._errors import LogTruncatedError, QueryError
from amberdb._time import time_of
from amberdb._types import NO_LSN, Document, Lsn
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.history import noted
from amberdb.engine.commit.committer import KIND_EXPIRY, Committer
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import ARCHIVED, COLLECTIONS, DATABASE_ID, SUBSCRIBERS, end_of
from amberdb.engine.storage.memtable import Effects
from amberdb.engine.storage.readable import Readable
from amberdb.engine.storage.view import State, View
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.wal import Record

NAME_BYTES_MAX = 200

Op = Literal["put", "delete", "expire", "rename", "drop"]


@final
@dataclass(frozen=True, slots=True)
class Change:
    """One document, as one commit left it; or the end of a collection, or of its name."""

    lsn: Lsn
    time: datetime
    collection: str
    """What it was called then."""
    op: Op
    id: str
    """Empty when all of the collection was renamed or dropped."""
    document: Document | None
    """Whole after a put; None when it was deleted or had expired."""
    new_name: str | None = None
    """Of a collection that was renamed."""


class Feed:
    """Owned by the Database."""

    def __init__(self, committer: Committer, log_bytes_max: int) -> None:
        self._committer = committer
        self._log_bytes_max = log_bytes_max
        self.positions: dict[str, Lsn] = {}
        self.archived: Lsn | None = None
        """Where the newest backup ends, while another one can go on from there."""
        self.pinned: Lsn | None = None
        """Where a backup that is running begins to read the log."""
        self._is_held = False

    def load(self, view: View) -> None:
        """The positions as stored, and the newest backup if it is of this very database."""
        archive = archive_of(view, self._committer.store.get(DATABASE_ID) or b"")
        if archive is not None:
            self.archived, self._is_held = archive
        self.positions = positions_of(view)

    def retained(self, applied: Lsn) -> Lsn:
        """The Lsn up to which the log may go, once `applied` is in LMDB."""
        held = list(self.positions.values())
        if self._is_held and self.archived is not None:
            held.append(self.archived)
        if self.pinned is not None:
            held.append(self.pinned)
        if not held or self._committer.log.bytes_used > self._log_bytes_max:
            return applied
        if failpoints.on:
            failpoints.reach("subscriber.log-kept")
        return min(applied, *held)

    def changes(self, since: Lsn | None, follow: bool, timeout_s: float | None) -> Iterator[Change]:
        """As `changes()` of this module."""
        return changes(self._committer, since, follow, timeout_s)

    def subscriber(self, name: str, since: Lsn | None) -> "Subscriber":
        """Raises QueryError for a name that is not a short str."""
        if type(name) is not str or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise QueryError(f"a subscriber's name is a str of 1 to {NAME_BYTES_MAX} bytes")
        if name not in self.positions:
            start = self._committer.visible if since is None else since
            self.move(name, Lsn(start))
        return Subscriber(self, name)

    def check_reached(self, lsn: Lsn) -> None:
        """Raises QueryError for an Lsn that no commit has been given yet: what comes up to it
        would never be told."""
        if lsn > self._committer.log.last_lsn:
            raise QueryError(f"there is no Lsn {lsn} yet: acknowledge the lsn of a change")

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Keeps a position, or with None forgets the subscriber."""
        self._store({SUBSCRIBERS + name.encode(): None if lsn is None else lsn.to_bytes(8)})
        if lsn is None:
            self.positions.pop(name, None)
        else:
            self.positions[name] = lsn

    def archive(self, report: BackupReport, is_held: bool) -> None:
        """Keeps where a backup has ended; `is_held`: the log behind it as well."""
        id = self._committer.store.get(DATABASE_ID) or b""
        self._store({ARCHIVED: id + report.lsn.to_bytes(8) + bytes([is_held])}, [report])
        self.archived = report.lsn
        self._is_held = is_held

    def end_chain(self) -> None:
        """Lets go of the log that the next incremental backup would need: it has to be full."""
        if self.archived is not None:
            self._store({ARCHIVED: None})
            self.archived = None

    def cut_off(self) -> list[str]:
        """The subscribers for whom the log no longer reaches back to their position, sorted."""
        log = self._committer.log
        found: list[str] = []
        for name, lsn in sorted(self.positions.items()):
            try:
                next(log.read(lsn), None)
            except LogTruncatedError:
                found.append(name)
        return found

    def _store(self, effects: Effects, backups: Iterable[BackupReport] = ()) -> None:
        writer = self._committer.begin()
        try:
            for key, value in (effects | noted(writer.view, backups)).items():
                writer.set(key, value)
        except BaseException as error:
            self._committer.rollback(writer, error)
            raise
        if failpoints.on:
            failpoints.reach("subscriber.before-commit")
        self._committer.commit(writer)
        if failpoints.on:
            failpoints.reach("subscriber.moved")


def archive_of(view: View, database_id: bytes) -> tuple[Lsn, bool] | None:
    """Where the newest backup of this very database ends, and whether the log is held for it."""
    stored = view.get(ARCHIVED)
    if stored is None or not stored.startswith(database_id):
        return None
    return Lsn(int.from_bytes(stored[-9:-1])), stored[-1] == 1


def positions_of(view: View) -> dict[str, Lsn]:
    """Of the subscribers, by name."""
    found = view.scan(SUBSCRIBERS, end_of(SUBSCRIBERS))
    return {key[len(SUBSCRIBERS) :].decode(): Lsn(int.from_bytes(lsn)) for key, lsn in found}


def changes(
    source: Readable, since: Lsn | None, follow: bool, timeout_s: float | None
) -> Iterator[Change]:
    """Changes behind `since` (None: as far back as the log reaches).

    With `follow` it waits for more, up to `timeout_s` each time, and ends when the database
    is closed. Raises LogTruncatedError with `resume`.
    """
    log = source.log
    last = Lsn(log.first_lsn - 1) if since is None else since
    while True:
        if follow:
            log.wait(source.visible)  # only what is durable is told
        for record in log.read(last):
            yield from _changes_of(source.state, record)
            last = record.lsn
        if not follow or not source.wait_for_commit(last, timeout_s):
            return


def _changes_of(state: State, record: Record) -> Iterator[Change]:
    schemas = state.catalog.by_keyspace()
    time = time_of(record.time_us)
    effects = decode_effects(record.payload)
    for key, value in effects.items():
        if value is None and key.startswith(COLLECTIONS):
            yield _of_name(record.lsn, time, key, effects)
        schema = schemas.get(key[:KEYSPACE_BYTES])
        if schema is None:
            continue
        name = schema.definition.name_at(record.lsn)
        id = key[KEYSPACE_BYTES:].decode()
        if value is not None:
            document = unpack(key, value).document()
            yield Change(record.lsn, time, name, "put", id, document)
        else:
            op: Op = "expire" if record.kind == KIND_EXPIRY else "delete"
            yield Change(record.lsn, time, name, op, id, None)


def _of_name(lsn: Lsn, time: datetime, gone: bytes, effects: Mapping[bytes, object]) -> Change:
    """Of a commit that takes a name out of the catalog, and puts another one in or none."""
    entries = [key for key in effects if key.startswith(COLLECTIONS) and key != gone]
    new_name = entries[0][len(COLLECTIONS) :].decode() if entries else None
    op: Op = "drop" if new_name is None else "rename"
    return Change(lsn, time, gone[len(COLLECTIONS) :].decode(), op, "", None, new_name)


@final
class Subscriber:
    """A reader of the feed whose position the database keeps; made by db.subscriber()."""

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed = feed
        self.name = name

    @property
    def position(self) -> Lsn:
        """The last Lsn that was acknowledged."""
        return self._feed.positions.get(self.name, NO_LSN)

    def changes(self, *, follow: bool = False, timeout_s: float | None = None) -> Iterator[Change]:
        """Changes behind the position. Raises LogTruncatedError with `resume`: acknowledge that
        Lsn to go on from there."""
        return self._feed.changes(self.position, follow, timeout_s)

    def acknowledge(self, lsn: Lsn) -> None:
        """Everything up to `lsn` is done with: it will not be told again, and its log may go."""
        self._feed.check_reached(lsn)
        if lsn < self.position:
            raise QueryError(
                f"the position is {self.position} already, and cannot go back to {lsn}"
            )
        self._feed.move(self.name, lsn)

    def remove(self) -> None:
        """Forgets the position and lets the log go."""
        self._feed.move(self.name, None)
