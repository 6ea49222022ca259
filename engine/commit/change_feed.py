"""The change feed: the log as changes of documents, and of the names of collections.

Invariants:
- Only durable commits are published: complete, in order, each once per reading. Of a collection
  that was dropped since, only the drop is published.
- A subscriber's position is an ordinary commit, so it is as durable as documents are. The log is
  held for the slowest one, up to a limit; past it, LogTruncatedError names the Lsn to resume at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, final

from amberdb import _failpoints as failpoints
from amberdb._errors import LogTruncatedError, QueryError
from amberdb._plain import plain_text
from amberdb._public import public
from amberdb._time import time_of
from amberdb._types import NO_LSN, Document, Lsn
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.retention import LogRetention
from amberdb.engine.schema.codec import KIND_EXPIRY, decode_document, decode_effects
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import COLLECTIONS, SUBSCRIBERS, end_of
from amberdb.engine.storage.readable import Owner, Readable
from amberdb.engine.storage.view import State, View
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.wal import Record

NAME_BYTES_MAX = 200

Op = Literal["put", "delete", "expire", "rename", "drop"]


@public
@final
@dataclass(frozen=True, slots=True)
class Change:
    """The change of one document by one commit; or the drop or the renaming of a collection."""

    lsn: Lsn
    time: datetime
    collection: str
    """The collection's name at that time."""
    op: Op
    id: str
    """Empty for "rename" and "drop"."""
    document: Document | None
    """The whole document for "put", otherwise None."""
    new_name: str | None = None
    """The collection's name after a "rename"."""


class Positions(Protocol):
    """The change feed and the positions of its subscribers, as a subscriber needs them."""

    def changes(
        self, owner: Owner, since: Lsn | None, follow: bool, timeout_s: float | None
    ) -> Iterator[Change]:
        """changes() of the database."""
        ...

    def position(self, name: str) -> Lsn:
        """The last Lsn that a subscriber has acknowledged; NO_LSN of one that was removed."""
        ...

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Stores a position; with None removes the subscriber. Raises QueryError for an Lsn that
        was not committed yet."""
        ...


@final
class Feed:
    """The change feed of an open database, and the positions of its subscribers."""

    def __init__(self, committer: Committer, retention: LogRetention) -> None:
        self._committer = committer
        self._retention = retention
        with committer.view() as view:
            self.positions = positions_of(view)
        for name, lsn in self.positions.items():
            retention.hold(_holder(name), lsn)

    def changes(
        self, owner: Owner, since: Lsn | None, follow: bool, timeout_s: float | None
    ) -> Iterator[Change]:
        """changes() of this database."""
        return changes(self._committer, owner, since, follow, timeout_s)

    def subscriber(self, name: str, owner: Owner, since: Lsn | None) -> "Subscriber":
        """The subscriber with this name, created at `since` (None: at the newest commit). Raises
        QueryError for an invalid name."""
        name = subscriber_name(name)
        if name not in self.positions:
            start = self._committer.visible if since is None else since
            self.move(name, Lsn(start))
        return Subscriber(self, name, owner)

    def position(self, name: str) -> Lsn:
        """The last Lsn that a subscriber has acknowledged; NO_LSN of one that was removed."""
        return self.positions.get(name, NO_LSN)

    def move(self, name: str, lsn: Lsn | None) -> None:
        """Stores a position; with None removes the subscriber. Raises QueryError for an Lsn after
        the last commit: later changes would be skipped."""
        if lsn is not None and lsn > self._committer.log.last_lsn:
            raise QueryError(f"there is no Lsn {lsn} yet: acknowledge the lsn of a change")
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


def subscriber_name(name: str) -> str:
    """The name, of which a subscriber may be made. Raises QueryError."""
    text = plain_text(name)
    if text is None or not 0 < len(text.encode("utf-8", "replace")) <= NAME_BYTES_MAX:
        raise QueryError(
            f"a subscriber's name is a str of 1 to {NAME_BYTES_MAX} bytes, not {name!r}"
        )
    return text


def _holder(name: str) -> str:
    return f"subscriber {name}"


def positions_of(view: View) -> dict[str, Lsn]:
    """The positions of the subscribers, by name."""
    entries = view.scan(SUBSCRIBERS, end_of(SUBSCRIBERS))
    return {key[len(SUBSCRIBERS) :].decode(): Lsn(int.from_bytes(lsn)) for key, lsn in entries}


def changes(
    source: Readable, owner: Owner, since: Lsn | None, follow: bool, timeout_s: float | None
) -> Iterator[Change]:
    """The changes after `since` (None: from the oldest record in the log).

    With `follow` it waits for more, each time up to `timeout_s`, until the owner is closed.
    Raises LogTruncatedError with `resume`.
    """
    log = source.log
    last = Lsn(log.first_lsn - 1) if since is None else since
    is_at_oldest = since is None
    while True:
        if follow:
            log.wait(source.visible)  # only durable changes are published
        try:
            for record in log.read(last):
                is_at_oldest = False
                owner.check_open()
                yield from _changes_of(source.state, record)
                last = record.lsn
        except LogTruncatedError as error:
            if not is_at_oldest or error.resume is None:
                raise
            last = error.resume  # a checkpoint recycled the oldest segment meanwhile
            continue
        if not follow or not source.wait_for_commit(last, timeout_s, owner):
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
            document = decode_document(unpack(key, value).body)
            yield Change(record.lsn, time, name, "put", id, document)
        else:
            op: Op = "expire" if record.kind == KIND_EXPIRY else "delete"
            yield Change(record.lsn, time, name, op, id, None)


def _of_name(lsn: Lsn, time: datetime, removed: bytes, effects: Mapping[bytes, object]) -> Change:
    """The change of a commit that removes a name from the catalog: a rename or a drop."""
    entries = [key for key in effects if key.startswith(COLLECTIONS) and key != removed]
    new_name = entries[0][len(COLLECTIONS) :].decode() if entries else None
    op: Op = "drop" if new_name is None else "rename"
    return Change(lsn, time, removed[len(COLLECTIONS) :].decode(), op, "", None, new_name)


@public
@final
class Subscriber:
    """A reader of the feed whose position the database keeps; made by db.subscriber()."""

    def __init__(self, feed: Positions, name: str, owner: Owner) -> None:
        self._feed = feed
        self._owner = owner
        self.name = name

    def __repr__(self) -> str:
        return f"<amberdb.Subscriber {self.name!r} at Lsn {self.position}>"

    @property
    def position(self) -> Lsn:
        """The last Lsn that was acknowledged."""
        return self._feed.position(self.name)

    def changes(self, *, follow: bool = False, timeout_s: float | None = None) -> Iterator[Change]:
        """Changes after the position. Raises LogTruncatedError with `resume`: acknowledge that Lsn
        to continue from there."""
        return self._feed.changes(self._owner, self.position, follow, timeout_s)

    def acknowledge(self, lsn: Lsn) -> None:
        """Moves the position to `lsn`: changes up to it do not come again, and their log may be
        recycled. Raises QueryError."""
        self._owner.check_open()
        if lsn < self.position:
            raise QueryError(
                f"the position is {self.position} already, and cannot move back to {lsn}"
            )
        self._feed.move(self.name, lsn)

    def remove(self) -> None:
        """Removes the subscriber; the log is no longer held for it."""
        self._owner.check_open()
        self._feed.move(self.name, None)
