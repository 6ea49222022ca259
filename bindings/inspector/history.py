"""The history of a document, as far as the log still holds it.

    oldest Lsn of the log ... version ... version ... read_to

Invariants:
- Work is bounded: a reading ends after `budget_s`, and says up to which Lsn it has read, where the
  next one goes on. The last VERSIONS_MAX versions of a reading are kept.
- A collection that was renamed is followed under its former names.
- A version without a predecessor in the log has no differences: what was before is not known.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from amberdb import Change, Database, Document, LogTruncatedError, Lsn
from amberdb.inspector.differences import Difference, differences

VERSIONS_MAX: Final = 100
BUDGET_S: Final = 2.0
_CHECKED_EVERY: Final = 256
"""Changes between two looks at the clock."""


@final
@dataclass(frozen=True, slots=True)
class Version:
    """A version of the document, or its end."""

    lsn: Lsn
    time: datetime
    op: str
    """ "put", "delete" or "expire"."""
    document: Document | None
    differences: tuple[Difference, ...] | None
    """From the version before; None where the log does not hold that one."""


@final
@dataclass(frozen=True, slots=True)
class History:
    """The versions of one document."""

    versions: tuple[Version, ...]
    """The newest first."""
    oldest_lsn: Lsn | None
    """The first commit that the log still holds; None when it holds none."""
    read_to: Lsn
    """The last commit that was read."""
    is_complete: bool
    """All of the log was read; otherwise read_history(since=read_to) goes on."""
    dropped: int
    """Versions that were read before those that are kept."""


def read_history(
    db: Database,
    collection: str,
    id: str,
    *,
    since: Lsn | None = None,
    budget_s: float = BUDGET_S,
) -> History:
    """The versions of a document that the log holds after `since`; None: after the oldest commit.
    Also of a document that was deleted. Raises CollectionMissingError."""
    definition = db.definition(collection)
    reading = _Reading(db, since, budget_s)
    versions: deque[Version] = deque(maxlen=VERSIONS_MAX)
    before: Document | None = None
    count = 0
    for change in reading.changes():
        if change.id != id or change.collection != definition.name_at(change.lsn):
            continue
        after = change.document
        compared = None
        if after is not None and before is not None:
            compared = tuple(differences(before, after))
        versions.append(Version(change.lsn, change.time, change.op, after, compared))
        before = after
        count += 1
    return History(
        versions=tuple(reversed(versions)),
        oldest_lsn=reading.oldest_lsn,
        read_to=reading.read_to,
        is_complete=reading.is_complete,
        dropped=count - len(versions),
    )


@final
class _Reading:
    """One reading of the log, up to its budget."""

    def __init__(self, db: Database, since: Lsn | None, budget_s: float) -> None:
        self._db = db
        self._since = since
        self._until = time.monotonic() + budget_s
        self.oldest_lsn: Lsn | None = None
        self.read_to = Lsn(0) if since is None else since
        self.is_complete = False

    def changes(self) -> Iterator[Change]:
        """The changes; a commit is read whole, so that `read_to` can be gone on from."""
        if self._since is not None:
            first = next(self._db.changes(), None)
            self.oldest_lsn = None if first is None else first.lsn
        checked = 0
        for number, change in enumerate(self._all()):
            if self.oldest_lsn is None:
                self.oldest_lsn = change.lsn
            if change.lsn != self.read_to and number - checked >= _CHECKED_EVERY:
                checked = number
                if time.monotonic() > self._until:
                    return
            self.read_to = change.lsn
            yield change
        self.is_complete = True

    def _all(self) -> Iterator[Change]:
        try:
            yield from self._db.changes(self._since)
        except LogTruncatedError as error:
            if error.resume is None:
                return
            yield from self._db.changes(error.resume)
