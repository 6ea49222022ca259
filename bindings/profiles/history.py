"""The log of profiles: the fields that each change had before and after it, and what takes it back.

    insert   before None          after the profile
    update   before the fields    after the same fields
    delete   before the profile   after None

A field that was not there is missing in `before`, one that was removed in `after`.

Invariants:
- The order of the changes of a profile is their `position`, which no clock sets.
- A change is taken back only while its fields are as it left them: what came later is not lost.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, final

from amberdb import ConflictError, Database, Document, Ordered, Page, Transaction

_UNLOGGED: Final = ("id", "last_updated")


@final
class Log:
    """The log of one collection of profiles, with entries that are kept for so long."""

    def __init__(self, db: Database, name: str, retention: timedelta) -> None:
        self.name = name
        self._retention = retention
        self._collection = db.collection(
            name,
            indexes=[Ordered("user_id", "position")],
            expires_at="expiry_date",
            owner="profiles",
        )

    def write(
        self,
        tx: Transaction,
        user_id: str,
        before: Document | None,
        after: Document | None,
        now: datetime,
    ) -> None:
        """Adds the entry of a change, if it is one."""
        old, new = _differing(before, after)
        if (old, new) == ({}, {}):
            return
        log = tx[self.name]
        last = log.find({"user_id": user_id}, order_by="-position", limit=1)
        log.put(
            {
                "user_id": user_id,
                "position": last[0]["position"] + 1 if last else 1,
                "action": "insert" if before is None else "delete" if after is None else "update",
                "before": old,
                "after": new,
                "created_at": now,
                "expiry_date": now + self._retention,
            }
        )

    def entry(self, at: Database | Transaction, log_id: str) -> Document:
        """Raises MissingKeyError."""
        return at[self.name][log_id]

    def of(self, user_id: str, limit: int, after: str | None) -> Page:
        """Entries of a user, the newest first."""
        return self._collection.find(
            {"user_id": user_id}, order_by="-position", limit=limit, after=after
        )


def taken_back(entry: Document, profile: Document | None) -> Document | None:
    """The profile without the change of an entry. Raises ConflictError for later changes."""
    before, after = entry["before"], entry["after"]
    names = {*(before or ()), *(after or ())}
    if before is None and profile is not None:
        names |= profile.keys() - set(_UNLOGGED)  # nothing may have been added to it
    if (profile is None) != (after is None) or _of(profile, names) != after:
        raise ConflictError(
            f"the profile of {entry['user_id']!r} was changed after the log entry {entry['id']!r}: "
            "undo the later changes first",
            key=entry["user_id"],
        )
    if before is None:
        return None
    kept = {name: value for name, value in (profile or {}).items() if name not in names}
    return {**kept, "id": entry["user_id"], **before}


def _differing(
    before: Document | None, after: Document | None
) -> tuple[Document | None, Document | None]:
    """The fields that differ, as they were and as they are."""
    old, new = before or {}, after or {}
    names = {
        name
        for name in (old.keys() | new.keys()).difference(_UNLOGGED)
        if name not in old or name not in new or old[name] != new[name]
    }
    return _of(before, names), _of(after, names)


def _of(document: Mapping[str, Any] | None, names: set[str]) -> Document | None:
    return None if document is None else {n: v for n, v in document.items() if n in names}
