"""User profiles: one document per user, changed field by field, counted without races.

Invariants:
- Changes are merged into the stored maps, so two callers that each add a fact keep both.
- `created_at` is set once, `last_updated` by every change, in the same commit; it never goes back.
- A profile is read and written in one transaction, and its change logged in the same, if it is.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast, final

from amberdb import (
    Database,
    Document,
    Hits,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    Page,
    Patch,
    QueryError,
    Text,
    Transaction,
    Where,
    WritableCollection,
    value_at,
)
from amberdb._shared.clock import SLACK, SteadyClock
from amberdb._shared.patches import merging
from amberdb._shared.queries import between
from amberdb._shared.search_input import asked
from amberdb._shared.systems import in_transaction
from amberdb.profiles.documents import MAPS as MAPS
from amberdb.profiles.documents import changed_fields, check_fields, empty
from amberdb.profiles.history import Log, taken_back

COLLECTION: Final = "user_memories"


@final
class UserProfiles:
    """Profiles over an open database; threads may share it.

    name           name of the collection
    history_days   how long changes are kept, for history() and undo(); None: not at all
    clock          function that returns epoch seconds

    Raises CollectionError.
    """

    def __init__(
        self,
        db: Database,
        *,
        name: str = COLLECTION,
        history_days: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self.name = name
        self._clock = SteadyClock(clock)
        self._collection = db.collection(
            name,
            indexes=[
                Ordered("last_updated"),
                Ordered("conversation_count"),
                Text("user_name", "conversation_summary", *MAPS),
            ],
            required={"user_id": str, "conversation_count": int},
            owner="profiles",
        )
        self._log = (
            None if history_days is None else Log(db, f"{name}_log", timedelta(days=history_days))
        )

    # -- writing -----------------------------------------------------------------------------

    def save(
        self,
        user_id: str,
        changes: Mapping[str, Any] | None = None,
        *,
        tx: Transaction | None = None,
        **more: Any,
    ) -> Document:
        """Creates the profile or merges the changes into it; the profile after that. None as a
        value is stored, amberdb.REMOVE removes the field. Raises InvalidDocumentError."""
        given = {**(changes or {}), **more}
        check_fields(user_id, given)
        return in_transaction(self.db, tx, lambda tx: self._saved(tx, user_id, given))

    def update(self, user_id: str, patch: Patch, *, tx: Transaction | None = None) -> Document:
        """Creates the profile or changes it as Collection.update() does; the profile after that.

            profiles.update("u1", {"$push": {"interests": "tea"}, "$inc": {"basic_info.visits": 1}})

        $push to a map without entries, such as that of a new profile, makes it a list. Raises
        InvalidDocumentError; then nothing is changed.
        """

        def update(tx: Transaction) -> Document:
            profiles = tx[self.name]
            before = profiles.get(user_id)
            try:
                created = self._written(profiles, user_id, before, {})
                profiles.update(user_id, _lists_for(patch, created))
                profiles.update(user_id, patch)
                after = profiles[user_id]
                check_fields(user_id, changed_fields(created, after))
            except BaseException:  # the caller's transaction may go on
                _restore(profiles, user_id, before)
                raise
            self._logged(tx, user_id, before, after)
            return after

        return in_transaction(self.db, tx, update)

    def count_conversation(
        self, user_id: str, by: int = 1, *, tx: Transaction | None = None
    ) -> int:
        """Adds to `conversation_count`, creating a missing profile; the new count."""

        def add(tx: Transaction) -> int:
            before = tx[self.name].get(user_id)
            count: int = by + (0 if before is None else before.get("conversation_count", 0))
            check_fields(user_id, {"conversation_count": count})
            self._saved(tx, user_id, {"conversation_count": count})
            return count

        return in_transaction(self.db, tx, add)

    def put(self, profile: Mapping[str, Any], *, tx: Transaction | None = None) -> str:
        """Stores a whole profile with its own times, in place of an existing one; its user id.
        Fields that are missing are empty. Raises InvalidDocumentError."""
        user_id = profile.get("user_id")
        if not isinstance(user_id, str):
            raise InvalidDocumentError(f"user_id must be a str, not {user_id!r}", field="user_id")
        check_fields(user_id, profile)

        def put(tx: Transaction) -> None:
            profiles = tx[self.name]
            before = profiles.get(user_id) if self._log is not None else None
            profiles.put({**empty(user_id), **profile, "id": user_id})
            if self._log is not None:
                self._logged(tx, user_id, before, profiles[user_id])

        in_transaction(self.db, tx, put)
        return user_id

    def delete(self, user_id: str, *, tx: Transaction | None = None) -> None:
        """Deletes the profile. Raises MissingKeyError."""

        def delete(tx: Transaction) -> None:
            before = tx[self.name].get(user_id)
            if before is None:
                raise MissingKeyError(f"there is no profile of {user_id!r}", key=user_id)
            tx[self.name].delete(user_id)
            self._logged(tx, user_id, before, None)

        in_transaction(self.db, tx, delete)

    def undo(self, log_id: str, *, tx: Transaction | None = None) -> Document | None:
        """Takes the change of a log entry back; the profile after that, None if it is deleted.
        Raises MissingKeyError for an unknown entry, ConflictError when the fields of the change
        were changed since, QueryError without `history_days`."""
        log = self._logs()
        entry = log.entry(self.db if tx is None else tx, log_id)
        user_id: str = entry["user_id"]

        def undo(tx: Transaction) -> Document | None:
            before = tx[self.name].get(user_id)
            after = taken_back(entry, before)
            if after is None:
                tx[self.name].delete(user_id)
            else:
                after["last_updated"] = self._now(before)
                tx[self.name].put(after)
            self._logged(tx, user_id, before, after)
            return after

        return in_transaction(self.db, tx, undo)

    # -- reading -----------------------------------------------------------------------------

    def get(self, user_id: str) -> Document | None:
        """The whole profile, or None."""
        profile: Document | None = self._collection.get(user_id)
        return profile

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

    def find(
        self,
        where: Where | None = None,
        *,
        order_by: str | list[str] | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """Profiles that match a filter, as Collection.find(). Raises QueryError."""
        return self._collection.find(where, order_by=order_by, limit=limit, after=after)

    def search(
        self,
        text: str | None = None,
        *,
        query: str | None = None,
        where: Where | None = None,
        limit: int = 10,
        after: str | None = None,
    ) -> Hits:
        """Profiles whose name, summary or facts have the words of a text, the best first; `query`
        in place of a text is in the query language. Raises QueryError."""
        asked(text, query)
        return self._collection.search(text, query=query, where=where, limit=limit, after=after)

    def history(self, user_id: str, *, limit: int = 100, after: str | None = None) -> Page:
        """The changes of a profile, the newest first: log entries with the fields `before` and
        `after` each. Raises QueryError without `history_days`."""
        return self._logs().of(user_id, limit, after)

    def __len__(self) -> int:
        return len(self._collection)

    # -- inside ------------------------------------------------------------------------------

    def _saved(self, tx: Transaction, user_id: str, given: Mapping[str, Any]) -> Document:
        before = tx[self.name].get(user_id)
        after = self._written(tx[self.name], user_id, before, given)
        self._logged(tx, user_id, before, after)
        return after

    def _written(
        self,
        profiles: WritableCollection,
        user_id: str,
        before: Document | None,
        given: Mapping[str, Any],
    ) -> Document:
        """Writes a profile with these fields merged into it, and the time; the profile."""
        now = self._now(before)
        if before is None:
            profiles.put({"id": user_id, **empty(user_id), "created_at": now})
        profiles.update(user_id, merging(profiles[user_id], {"last_updated": now, **given}))
        return profiles[user_id]

    def _logged(
        self, tx: Transaction, user_id: str, before: Document | None, after: Document | None
    ) -> None:
        if self._log is not None:
            self._log.write(tx, user_id, before, after, self._clock())

    def _now(self, before: Document | None) -> datetime:
        """The time of a change: the clock's, and not before that of the last change, within SLACK
        of it."""
        now = self._clock()
        last = None if before is None else before.get("last_updated")
        return last if isinstance(last, datetime) and now < last <= now + SLACK else now

    def _logs(self) -> Log:
        if self._log is None:
            raise QueryError("no changes are kept: make the profiles with history_days=90, for one")
        return self._log


def _lists_for(patch: Patch, profile: Document) -> Patch:
    """A patch that makes lists of the maps without entries to which another one pushes."""
    pushed = patch.get("$push")
    if not isinstance(pushed, Mapping):
        return {}
    paths = cast(Mapping[str, Any], pushed)
    return {"$set": {path: [] for path in paths if value_at(profile, path) == {}}}


def _restore(profiles: WritableCollection, user_id: str, before: Document | None) -> None:
    if before is None:
        profiles.delete(user_id)
    else:
        profiles.put(before)
