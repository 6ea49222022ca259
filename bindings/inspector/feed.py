"""The newest changes of a database, and those that come.

Invariants:
- Work is bounded: only the last commits are read, not all of the log.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from amberdb import Change, Database, LogTruncatedError, Lsn
from amberdb.inspector.values import cell, shown

COMMITS: Final = 200
"""The most commits that one call reads."""
SHOWN: Final = 50
LSN_NUMBER_BITS: Final = 40
_SUMMARY_CHARS_MAX: Final = 160


@final
@dataclass(frozen=True, slots=True)
class ChangeLine:
    """A change, as a line."""

    lsn: Lsn
    time: datetime
    op: str
    collection: str
    id: str
    summary: str
    """The beginning of the document, or the new name of a collection."""


@final
@dataclass(frozen=True, slots=True)
class Changes:
    """Some changes, the newest first."""

    lines: tuple[ChangeLine, ...]
    last: Lsn
    """The last commit that was looked at: the next call goes on after it."""
    skipped: int
    """Commits that are left out, since too many have come at once."""


def newest_changes(db: Database, limit: int = SHOWN) -> Changes:
    """The last changes, of the last COMMITS commits."""
    last = Lsn(db.refresh())
    # The number is in the lower bits of an Lsn: of a log that began less than COMMITS ago it is
    # the first of this epoch, and what an earlier one holds is left out.
    since = Lsn(max(last - COMMITS, last >> LSN_NUMBER_BITS << LSN_NUMBER_BITS))
    return Changes(_newest(db, since, limit), last, 0)


def wait_for_changes(db: Database, since: Lsn, timeout_s: float, limit: int = SHOWN) -> Changes:
    """Waits for a change after `since`, then the newest ones; none at the timeout."""
    if next(_changes(db, since, timeout_s), None) is None:
        return Changes((), since, 0)
    last = Lsn(db.refresh())
    first = Lsn(max(since, last - COMMITS))
    return Changes(_newest(db, first, limit), last, first - since)


def _newest(db: Database, since: Lsn, limit: int) -> tuple[ChangeLine, ...]:
    kept = deque(_changes(db, since), limit)
    return tuple(_line(change) for change in reversed(kept))


def _changes(db: Database, since: Lsn, timeout_s: float | None = None) -> Iterator[Change]:
    """The changes after `since`, or after the oldest commit that the log holds; with a timeout
    those that come too."""
    options: dict[str, Any] = {} if timeout_s is None else {"follow": True, "timeout_s": timeout_s}
    try:
        yield from db.changes(since, **options)
    except LogTruncatedError as error:
        if error.resume is not None:
            yield from db.changes(error.resume, **options)


def _line(change: Change) -> ChangeLine:
    summary = change.new_name or ""
    if change.document is not None:
        fields = {name: value for name, value in change.document.items() if name != "id"}
        summary = cell(shown(fields), _SUMMARY_CHARS_MAX)
    return ChangeLine(change.lsn, change.time, change.op, change.collection, change.id, summary)
