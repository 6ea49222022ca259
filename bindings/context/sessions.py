"""Users, their sessions, roles and settings; deletions that include dependent documents.

Invariants:
- A deletion is one commit. After it no read shows the user or session, and nothing can be added.
- That commit deletes up to `batch` documents. If there are more, it only marks the user or session
  as deleted, and commits of `batch` documents each remove the rest, the marked document last. So no
  transaction grows with a user's messages. After a crash the next deletion or purge() continues.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, final

from amberdb import (
    REMOVE,
    Database,
    Document,
    MissingKeyError,
    Page,
    Snapshot,
    Transaction,
)
from amberdb._shared.checks import check_name
from amberdb._shared.clock import SteadyClock
from amberdb._shared.patches import merging
from amberdb._shared.queries import has_time, having, of_one
from amberdb._shared.systems import in_transaction
from amberdb._shared.tokens import count_tokens
from amberdb.context.types import (
    PARTS,
    Deleted,
    Names,
    Part,
    check_budget,
    metadata_of,
    part_id,
    room_beside_newest,
)

BATCH: Final = 2_000
"""The most documents that one commit removes."""
_MARKED: Final[Mapping[str, Any]] = has_time("deleted_at")
_COUNTS: Final = (
    "first_position",
    "next_position",
    "next_archival",
    "queue_tokens",
    "newest_tokens",
)
_EMPTY: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_COUNTS, 0),
    **{f"{part}_tokens": 0 for part in PARTS},
}
"""A session without messages. One that another program put lacks what it did not know of."""


@final
class Sessions:
    """`context.sessions` of an AgentContext; threads may share it."""

    def __init__(
        self,
        db: Database,
        names: Names,
        *,
        token_budget: int,
        count_tokens: Callable[[str], int] = count_tokens,
        clock: Callable[[], float] = time.time,
        batch: int = BATCH,
    ) -> None:
        self.db = db
        self.names = names
        self._token_budget = token_budget
        self.count_tokens = count_tokens
        self._clock = SteadyClock(clock)
        self._batch = batch

    # -- users -------------------------------------------------------------------------------

    def create_user(
        self,
        username: str,
        *,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> str:
        """Creates a user; the id. Raises InvalidDocumentError, DuplicateKeyError."""
        document = self._user(username, metadata)
        if user_id is not None:
            check_name("user_id", user_id)
            document["id"] = user_id

        def create(tx: Transaction) -> str:
            self._lock_username(tx, username)
            return tx[self.names.users].insert(document)

        return in_transaction(self.db, tx, create)

    def find_or_create_user(self, username: str, *, tx: Transaction | None = None) -> str:
        """The id of the user with this name, who is created if missing. Raises
        InvalidDocumentError."""
        document = self._user(username, None)

        def find_or_create(tx: Transaction) -> str:
            self._lock_username(tx, username)
            users = tx[self.names.users].find(of_one(username=username), limit=1)
            return str(users[0]["id"]) if users else tx[self.names.users].insert(document)

        return in_transaction(self.db, tx, find_or_create)

    def user(self, user_id: str) -> Document:
        """The document of a user. Raises MissingKeyError."""
        return self.live_user(self.db, user_id)

    def find_user(self, username: str) -> Document | None:
        """The user with this name, or None."""
        users = self.db[self.names.users].find(of_one(username=username), limit=1)
        return users[0] if users else None

    def users(self, *, limit: int | None = 100, after: str | None = None) -> Page:
        """All users, the oldest first."""
        return self.db[self.names.users].find(
            {"deleted_at": None}, order_by="created_at", limit=limit, after=after
        )

    def delete_user(self, user_id: str, *, tx: Transaction | None = None) -> Deleted:
        """Deletes a user with all sessions, their context and memories, and the user's blocks.
        Raises MissingKeyError."""
        users = self.names.users

        def delete(tx: Transaction) -> tuple[Transaction, int, int | None]:
            self.live_user(tx, user_id)
            found = tx[self.names.sessions].find({"user_id": user_id}, fields=["id"])
            sessions = [session["id"] for session in found]
            blocks = tx[self.names.blocks].count({"user_id": user_id})
            documents = self._delete(tx, sessions, beside=blocks)
            if documents is not None:
                documents += _remove(tx, [self.names.blocks], {"user_id": user_id}, blocks)
                tx[users].delete(user_id)
            else:  # the name can be used again from now on
                tx[users].update(user_id, {"deleted_at": self.now(), "username": REMOVE})
            return tx, len(sessions), documents

        return self._deleted(*in_transaction(self.db, tx, delete), tx is None)

    # -- sessions ----------------------------------------------------------------------------

    def create(
        self,
        user_id: str,
        role_name: str,
        *,
        session_id: str | None = None,
        token_budget: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> str:
        """Creates a session; the id. It starts with the role's system instructions. Its budget is
        `token_budget`, or the role's, or the default. Raises MissingKeyError, DuplicateKeyError,
        InvalidDocumentError."""
        check_name("role_name", role_name)
        if session_id is not None:
            check_name("session_id", session_id)
        if token_budget is not None:
            check_budget(token_budget)

        def create(tx: Transaction) -> str:
            self.live_user(tx, user_id)
            role: Document = tx[self.names.roles].get(role_name) or {}
            system: str = role.get("system") or ""
            now = self.now()
            document: Document = {
                **_EMPTY,
                "user_id": user_id,
                "role_name": role_name,
                "metadata": metadata_of(metadata),
                "token_budget": token_budget or role.get("token_budget") or self._token_budget,
                "system_tokens": self.count_tokens(system),
                "created_at": now,
                "updated_at": now,
            }
            room_beside_newest(document)
            if session_id is not None:
                document["id"] = session_id
            id = tx[self.names.sessions].insert(document)
            if system:
                self.put_part(tx, {**document, "id": id}, "system", system, now)
            return id

        return in_transaction(self.db, tx, create)

    def get(self, session_id: str) -> Document:
        """The document of a session, with its budget and used tokens. Raises MissingKeyError."""
        return self.live(self.db, session_id)

    def of(
        self,
        user_id: str,
        role_name: str | None = None,
        *,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """The sessions of a user, or those with one role, the last changed first."""
        where = {**of_one(user_id=user_id), **having(role_name=role_name), "deleted_at": None}
        return self.db[self.names.sessions].find(
            where, order_by="-updated_at", limit=limit, after=after
        )

    def delete(self, session_id: str, *, tx: Transaction | None = None) -> Deleted:
        """Deletes a session with its context and memories. Raises MissingKeyError."""

        def delete(tx: Transaction) -> tuple[Transaction, int, int | None]:
            self.live(tx, session_id)
            return tx, 1, self._delete(tx, [session_id])

        return self._deleted(*in_transaction(self.db, tx, delete), tx is None)

    def purge(self, progress: Callable[[int], None] | None = None) -> int:
        """Removes documents that deletions marked and, because of a crash or of a transaction of
        the caller, did not remove; how many. `progress` is called with the count so far."""
        count = 0
        users, sessions = self.names.users, self.names.sessions
        for collection, field in ((sessions, "session_id"), (users, "user_id")):
            dependent = self.names.dependent if collection == sessions else [self.names.blocks]
            for owner in self.db[collection].find(_MARKED, fields=["id"]):
                remove = partial(self._purged, collection, dependent, {field: owner["id"]})
                is_empty = False
                while not is_empty:
                    removed = self.db.run(remove)
                    is_empty = removed < self._batch
                    count += removed
                    if progress is not None and (removed or collection == sessions):
                        progress(count)
        return count

    # -- roles and settings ------------------------------------------------------------------

    def set_role(
        self,
        role_name: str,
        *,
        system: str | None = None,
        token_budget: int | None = None,
        settings: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> Document:
        """Creates a role or changes the given fields; the role after that. Existing sessions do not
        change. Raises InvalidDocumentError."""
        check_name("role_name", role_name)
        if token_budget is not None:
            check_budget(token_budget)
        given = {"system": system, "token_budget": token_budget, "settings": settings}
        changes = {name: value for name, value in given.items() if value is not None}
        now = self.now()

        def set_role(tx: Transaction) -> Document:
            roles = tx[self.names.roles]
            if role_name not in roles:
                new: Document = {
                    "role_name": role_name,
                    "system": "",
                    "token_budget": None,
                    "settings": {},
                }
                roles.put({"id": role_name, **new, "created_at": now})
            roles.update(role_name, merging(roles[role_name], {**changes, "updated_at": now}))
            return roles.record(role_name).document

        return in_transaction(self.db, tx, set_role)

    def role(self, role_name: str) -> Document | None:
        """The role, or None: system, token_budget and settings for new sessions."""
        role: Document | None = self.db[self.names.roles].get(role_name)
        return role

    def roles(self) -> list[Document]:
        """All roles, by name."""
        return list(self.db[self.names.roles].documents())

    def delete_role(self, role_name: str, *, tx: Transaction | None = None) -> None:
        """Deletes a role with its blocks; its sessions stay. Raises MissingKeyError."""

        def delete(tx: Transaction) -> None:
            if not tx[self.names.roles].delete(role_name):
                raise MissingKeyError(
                    f"there is no role {role_name!r}", collection=self.names.roles, key=role_name
                )
            tx[self.names.blocks].delete_many({"owner": f"role:{role_name}"})

        in_transaction(self.db, tx, delete)

    def set_setting(self, name: str, value: Any, *, tx: Transaction | None = None) -> None:
        """Stores a setting that is not of a session; `value` is any storable value. Raises
        InvalidDocumentError."""
        check_name("name", name)
        setting = {"id": name, "value": value, "updated_at": self.now()}
        in_transaction(self.db, tx, lambda tx: tx[self.names.settings].put(setting))

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        setting = self.db[self.names.settings].get(name)
        return default if setting is None else setting.get("value", default)

    def settings(self) -> dict[str, Any]:
        """All settings: their values by name."""
        return {each["id"]: each.get("value") for each in self.db[self.names.settings].documents()}

    def delete_setting(self, name: str, *, tx: Transaction | None = None) -> None:
        """Deletes a setting. Raises MissingKeyError."""
        if not in_transaction(self.db, tx, lambda tx: tx[self.names.settings].delete(name)):
            raise MissingKeyError(
                f"there is no setting {name!r}", collection=self.names.settings, key=name
            )

    # -- for AgentContext --------------------------------------------------------------------

    def now(self) -> datetime:
        """The time of the clock, in UTC."""
        return self._clock()

    def live(self, at: Database | Snapshot | Transaction, session_id: str) -> Document:
        """The document of a session, read from a database, snapshot or transaction. Raises
        MissingKeyError."""
        session = _alive(at[self.names.sessions].get(session_id), self.names.sessions, session_id)
        return {"token_budget": self._token_budget, **_EMPTY, **session}

    def live_user(self, at: Database | Snapshot | Transaction, user_id: str) -> Document:
        """The document of a user, read likewise. Raises MissingKeyError."""
        return _alive(at[self.names.users].get(user_id), self.names.users, user_id)

    def put_part(
        self, tx: Transaction, session: Document, part: Part, content: str, now: datetime
    ) -> None:
        """Stores a part of the main context."""
        tx[self.names.main].put(
            {
                "id": part_id(session["id"], part),
                "session_id": session["id"],
                "user_id": session["user_id"],
                "role_name": session["role_name"],
                "context_type": part,
                "content": content,
                "created_at": now,
            }
        )

    def put_messages(
        self, tx: Transaction, session: Document, documents: Sequence[Document], past: int = 0
    ) -> tuple[Sequence[str], int]:
        """Stores messages at the end of the queue; their ids, and the position of the first. The
        oldest `past` ones go to recall storage, if the queue is empty. Raises InvalidDocumentError
        when one of the queue does not fit the budget beside system and working context."""
        first: int = session["next_position"]
        if session["first_position"] < first:
            past = 0
        for position, document in enumerate(documents, first):
            document["position"] = position
            if position >= first + past:
                session["newest_tokens"] = document["token_count"]
                session["queue_tokens"] += document["token_count"]
                room_beside_newest(session)
        session["first_position"] += past
        session["next_position"] += len(documents)
        ids = [
            *tx[self.names.recall].put_many(documents[:past]),
            *tx[self.names.main].put_many(documents[past:]),
        ]
        tx[self.names.sessions].put({**session, "updated_at": self.now()})
        return ids, first

    def marked(self) -> list[str]:
        """The ids of sessions that are deleted, and whose documents are not removed yet."""
        marked = self.db[self.names.sessions].find(_MARKED, fields=["id"])
        return [session["id"] for session in marked]

    # -- inside ------------------------------------------------------------------------------

    def _user(self, username: str, metadata: Mapping[str, Any] | None) -> Document:
        check_name("username", username)
        now = self.now()
        return {"username": username, "metadata": metadata_of(metadata), "created_at": now}

    def _lock_username(self, tx: Transaction, username: str) -> None:
        """Holds a name, whether a user has it or not."""
        tx.lock(f"{self.names.users}/{username}")

    def _delete(
        self, tx: Transaction, session_ids: Sequence[str], *, beside: int = 0
    ) -> int | None:
        """Deletes sessions with their dependent documents; how many. If these and the documents
        `beside` them are more than a batch, marks the sessions as deleted and returns None."""
        sessions, dependent = self.names.sessions, self.names.dependent
        left = self._batch - len(session_ids) - beside
        for session_id in session_ids:
            if left >= 0:
                left -= sum(tx[name].count({"session_id": session_id}) for name in dependent)
        if left < 0:
            for session_id in session_ids:
                tx[sessions].update(session_id, {"deleted_at": self.now()})
            return None
        removed = 0
        for session_id in session_ids:
            removed += _remove(tx, dependent, {"session_id": session_id}, self._batch)
            tx[sessions].delete(session_id)
        return removed

    def _purged(
        self, collection: str, dependent: Sequence[str], owned: Mapping[str, str], tx: Transaction
    ) -> int:
        """Removes a batch of what a marked user or session has, and itself when that is all; how
        many dependent documents. A user stays while it has sessions that are not removed."""
        removed = _remove(tx, dependent, owned, self._batch)
        is_user = collection == self.names.users
        has_sessions = is_user and bool(tx[self.names.sessions].find(owned, limit=1, fields=["id"]))
        if removed < self._batch and not has_sessions:
            tx[collection].delete(*owned.values())
        return removed

    def _deleted(self, tx: Transaction, sessions: int, documents: int | None, own: bool) -> Deleted:
        """The receipt of a deletion. Removes what it marked, if it was committed here."""
        if documents is None:
            documents = self.purge() if own else 0
        return Deleted(tx.lsn, sessions, documents)


def _remove(
    tx: Transaction, collections: Sequence[str], where: Mapping[str, Any], limit: int
) -> int:
    """Deletes up to `limit` documents that match from these collections; how many."""
    left = limit
    for name in collections:
        for document in tx[name].find(where, limit=left, fields=["id"]) if left else ():
            tx[name].delete(document["id"])
            left -= 1
    return limit - left


def _alive(document: Document | None, collection: str, id: str) -> Document:
    """The document. Raises MissingKeyError when it is None or marked as deleted."""
    if document is None or "deleted_at" in document:
        raise MissingKeyError(
            f"there is no {collection[:-1]} {id!r}, or it was deleted",
            collection=collection,
            key=id,
        )
    return document
