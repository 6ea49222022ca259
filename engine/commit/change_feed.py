"""The change feed: the log as changes of documents, and of the names of collections.

Invariants:
- Only durable commits are published, whole, in order, each once per reading. A collection that was
  dropped meanwhile appears with its drop alone.
- A subscriber's position is an ordinary commit, so it is as durable as documents are. The log is
  held for the slowest one, up to a limit; past it, LogTruncatedError names the Lsn to resume at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, final

from amberdb import _failpoints as failpoints
from amberdb._errors import LogTruncatedError, QueryError
from amberdb._time import time_of
from amberdb._types import NO_LSN, Document, Lsn
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.schema.codec import KIND_EXPIRY, decode_effects
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import (
    COLLECTIONS,
    SUBSCRIBERS,
    end_of,
)
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
    """The change feed of an open database, and the positions of its subscribers."""

    def __init__(self, committer: Committer, retention: LogRetention) -> None:
        self._committer = committer
        self._retention = retention
        with committer.view() as view:
            self.positions = positions_of(view)
        for name, lsn in self.positions.items():
            retention.hold(_holder(name), lsn)

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
        """Raises QueryError for an Lsn that no commit has yet: the changes up to it would be
        skipped."""
        if lsn > self._committer.log.last_lsn:
            raise QueryError(f"there is no Lsn {lsn} yet: acknowledge the lsn of a change")

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Stores a position; with None removes the subscriber."""
        with OneCommit(self._committer) as batch:
            batch.set(SUBSCRIBERS + name.encode(), None if lsn is None else lsn.to_bytes(8))
            if failpoints.on:
                failpoints.reach("subscriber.before-commit")
        if failpoints.on:
            failpoints.reach("subscriber.moved")
        if lsn is None:
            self.positions.pop(name, None)
            self._retention.release(_holder(name))
        else:
            self.positions[name] = lsn
            self._retention.hold(_holder(name), lsn)

    def truncated_subscribers(self) -> list[str]:
        """The subscribers for whom the log no longer reaches back to their position, sorted."""
        log = self._committer.log
        names: list[str] = []
        for name, lsn in sorted(self.positions.items()):
            try:
                next(log.read(lsn), None)
            except LogTruncatedError:
                names.append(name)
        return names


def _holder(name: str) -> str:
    return f"subscriber {name}"


def positions_of(view: View) -> dict[str, Lsn]:
    """The positions of the subscribers, by name."""
    found = view.scan(SUBSCRIBERS, end_of(SUBSCRIBERS))
    return {key[len(SUBSCRIBERS) :].decode(): Lsn(int.from_bytes(lsn)) for key, lsn in found}


def changes(
    source: Readable, since: Lsn | None, follow: bool, timeout_s: float | None
) -> Iterator[Change]:
    """Changes after `since` (None: as far back as the log reaches).

    With `follow` it waits for more, up to `timeout_s` each time, and ends when the database
    is closed. Raises LogTruncatedError with `resume`.
    """
    log = source.log
    last = Lsn(log.first_lsn - 1) if since is None else since
    while True:
        if follow:
            log.wait(source.visible)  # only durable changes are published
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
    """The change of a commit that removes a name from the catalog: a rename or a drop."""
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

    def __repr__(self) -> str:
        return f"<amberdb.Subscriber {self.name!r} at Lsn {self.position}>"

    @property
    def position(self) -> Lsn:
        """The last Lsn that was acknowledged."""
        return self._feed.positions.get(self.name, NO_LSN)

    def changes(self, *, follow: bool = False, timeout_s: float | None = None) -> Iterator[Change]:
        """Changes after the position. Raises LogTruncatedError with `resume`: acknowledge that Lsn
        to continue from there."""
        return self._feed.changes(self.position, follow, timeout_s)

    def acknowledge(self, lsn: Lsn) -> None:
        """Moves the position to `lsn`: changes up to it do not come again, and their log may be
        recycled. Raises QueryError."""
        self._feed.check_reached(lsn)
        if lsn < self.position:
            raise QueryError(
                f"the position is {self.position} already, and cannot go back to {lsn}"
            )
        self._feed.move(self.name, lsn)

    def remove(self) -> None:
        """Removes the position; the log is held for it no longer."""
        self._feed.move(self.name, None)
