"""User profiles: one document per user, changed field by field, counted without races.

Invariants:
- Changes are merged into the stored maps, so two callers that each add a fact keep both.
- `created_at` is set once, `last_updated` by every change, in the same commit.
- A counter is read and written in one transaction.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, final

from amberdb import (
    Database,
    Document,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Page,
    Transaction,
)
from amberdb._shared.clock import SteadyClock
from amberdb._shared.patches import merging
from amberdb._shared.queries import between

COLLECTION: Final = "user_memories"
MAPS: Final = ("basic_info", "personality", "life_context", "interests")
"""Fields that hold maps (or lists). Maps are merged."""


@final
class UserProfiles:
    """Profiles over an open database; threads may share it.

    name    name of the collection
    clock   function that returns epoch seconds
    """

    def __init__(
        self, db: Database, *, name: str = COLLECTION, clock: Callable[[], float] = time.time
    ) -> None:
        self.db = db
        self.name = name
        self._clock = SteadyClock(clock)
        self._collection = db.collection(
            name,
            indexes=[Ordered("last_updated"), Ordered("conversation_count")],
            required={"user_id": str, "conversation_count": int},
        )

    def get(self, user_id: str) -> Document | None:
        """The whole profile, or None."""
        profile: Document | None = self._collection.get(user_id)
        return profile

    def save(self, user_id: str, changes: Mapping[str, Any] | None = None, **more: Any) -> Document:
        """Creates the profile or merges the changes into it; the profile after that. None as a
        value is stored, amberdb.REMOVE removes the field. Raises InvalidDocumentError."""
        given = {**(changes or {}), **more}
        with self.db.transaction() as tx:
            return self._saved(tx, user_id, given)

    def count_conversation(self, user_id: str, by: int = 1) -> int:
        """Adds to `conversation_count`, creating a missing profile; the new count."""
        with self.db.transaction() as tx:
            before = tx[self.name].get(user_id)
            count = by if before is None else before["conversation_count"] + by
            self._saved(tx, user_id, {"conversation_count": count})
        return count

    def delete(self, user_id: str) -> None:
        """Deletes the profile. Raises MissingKeyError."""
        if not self._collection.delete(user_id):
            raise MissingKeyError(f"there is no profile of {user_id!r}", key=user_id)

    def recent(
        self,
        limit: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str | None = None,
    ) -> Page:
        """Profiles with `since <= last_updated < until`, the last changed first."""
        return self._collection.find(
            between("last_updated", since, until),
            order_by="-last_updated",
            limit=limit,
            after=after,
        )

    def __len__(self) -> int:
        return len(self._collection)

    def _saved(self, tx: Transaction, user_id: str, given: Mapping[str, Any]) -> Document:
        if given.get("user_id", user_id) != user_id:
            raise InvalidDocumentError(
                f"the profile of {user_id!r} cannot get the user_id {given['user_id']!r}",
                field="user_id",
            )
        now = self._clock()
        collection = tx[self.name]
        if user_id not in collection:
            collection.put({"id": user_id, **empty(user_id), "created_at": now})
        collection.update(user_id, merging(collection[user_id], {"last_updated": now, **given}))
        return collection.record(user_id).document


def empty(user_id: str) -> Document:
    """A new profile, without facts."""
    return {
        "user_id": user_id,
        "user_name": None,
        "conversation_count": 0,
        **{name: {} for name in MAPS},
        "conversation_summary": "",
    }
