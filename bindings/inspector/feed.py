"""The newest changes of a database, and those that come.

Invariants:
- Work is bounded: only the last commits are read, not all of the log.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, final

from amberdb import Change, Database, LogTruncatedError, Lsn
from amberdb.inspector.values import cell, shown

COMMITS: Final = 200
SHOWN: Final = 50
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


def newest_changes(db: Database, limit: int = SHOWN) -> tuple[list[ChangeLine], Lsn]:
    """The last changes, the newest first, of the last COMMITS commits, and the Lsn after which
    changes_after() goes on."""
    last = Lsn(db.refresh())
    # The number is in the lower bits of an Lsn: of a log that began less than COMMITS ago it is
    # the first of this epoch, and what an earlier one holds is left out.
    since = Lsn(max(last - COMMITS, last >> 40 << 40))
    lines = deque(_changes(db, since), limit)
    return [_line(change) for change in reversed(lines)], last


def changes_after(db: Database, since: Lsn, timeout_s: float) -> Iterator[ChangeLine]:
    """The changes after `since` as they come, until none has come for so long."""
    try:
        yield from map(_line, db.changes(since, follow=True, timeout_s=timeout_s))
    except LogTruncatedError as error:
        if error.resume is not None:
            yield from map(_line, db.changes(error.resume, follow=True, timeout_s=timeout_s))


def _changes(db: Database, since: Lsn) -> Iterator[Change]:
    try:
        yield from db.changes(since)
    except LogTruncatedError as error:
        if error.resume is not None:
            yield from db.changes(error.resume)


def _line(change: Change) -> ChangeLine:
    summary = change.new_name or ""
    if change.document is not None:
        fields = {name: value for name, value in change.document.items() if name != "id"}
        summary = cell(shown(fields), _SUMMARY_CHARS_MAX)
    return ChangeLine(change.lsn, change.time, change.op, change.collection, change.id, summary)
