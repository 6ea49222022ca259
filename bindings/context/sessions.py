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
from typing import Any, Final, final

from amberdb import REMOVE, Database, Document, MissingKeyError, Page, Transaction
from amberdb._shared.checks import check_name
from amberdb._shared.clock import SteadyClock
from amberdb._shared.patches import merging
from amberdb._shared.queries import has_time, having
from amberdb._shared.tokens import count_tokens
from amberdb.context.types import (
    DEPENDENT,
    MAIN,
    ROLES,
    SESSIONS,
    SETTINGS,
    USERS,
    Deleted,
    check_budget,
    part_id,
    room_beside_newest,
)

BATCH: Final = 2_000
"""The most documents that one commit removes."""
_MARKED: Final[Mapping[str, Any]] = has_time("deleted_at")


@final
class Sessions:
    """`context.sessions` of an AgentContext; threads may share it."""

    def __init__(
        self,
        db: Database,
        *,
        token_budget: int,
        count_tokens: Callable[[str], int] = count_tokens,
        clock: Callable[[], float] = time.time,
        batch: int = BATCH,
    ) -> None:
        self.db = db
        self._token_budget = token_budget
        self._count_tokens = count_tokens
        self._clock = SteadyClock(clock)
        self._batch = batch

    # -- users -------------------------------------------------------------------------------

    def create_user(
        self,
        username: str,
        *,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Creates a user; the id. Raises InvalidDocumentError, DuplicateKeyError."""
        document = self._user(username, metadata)
        if user_id is not None:
            check_name("user_id", user_id)
            document["id"] = user_id
        return self.db.collection(USERS).insert(document)

    def find_or_create_user(self, username: str) -> str:
        """The id of the user with this name, who is created if missing. Raises
        InvalidDocumentError."""
        document = self._user(username, None)
        with self.db.transaction() as tx:
            users = tx[USERS].find(having(username=username), limit=1)
            return str(users[0]["id"]) if users else tx[USERS].insert(document)

    def user(self, user_id: str) -> Document:
        """The document of a user. Raises MissingKeyError."""
        return alive(self.db.collection(USERS).get(user_id), USERS, user_id)

    def find_user(self, username: str) -> Document | None:
        """The user with this name, or None."""
        users = self.db.collection(USERS).find(having(username=username), limit=1)
        return users[0] if users else None

    def users(self, *, limit: int | None = 100, after: str | None = None) -> Page:
        """All users, the oldest first."""
        return self.db.collection(USERS).find(
            {"deleted_at": None}, order_by="created_at", limit=limit, after=after
        )

    def delete_user(self, user_id: str) -> Deleted:
        """Deletes a user with all sessions, their context and memories. Raises MissingKeyError."""
        with self.db.transaction() as tx:
            alive(tx[USERS].get(user_id), USERS, user_id)
            sessions = tx[SESSIONS].find({"user_id": user_id}, fields=["id"])
            documents = self._delete(tx, [session["id"] for session in sessions])
            if documents is not None:
                tx[USERS].delete(user_id)
            else:  # the name can be used again from now on
                tx[USERS].update(user_id, {"deleted_at": self.now(), "username": REMOVE})
        return self._deleted(tx, len(sessions), documents)

    # -- sessions ----------------------------------------------------------------------------

    def create(
        self,
        user_id: str,
        role_name: str,
        *,
        session_id: str | None = None,
        token_budget: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Creates a session; the id. It starts with the role's system instructions. Its budget is
        `token_budget`, or the role's, or the default. Raises MissingKeyError, DuplicateKeyError,
        InvalidDocumentError."""
        check_name("role_name", role_name)
        if session_id is not None:
            check_name("session_id", session_id)
        role = self.role(role_name) or {}
        if token_budget is None:
            token_budget = role.get("token_budget") or self._token_budget
        check_budget(token_budget)
        system: str = role.get("system") or ""
        now = self.now()
        document: Document = {
            "user_id": user_id,
            "role_name": role_name,
            "metadata": dict(metadata or {}),
            "token_budget": token_budget,
            "first_position": 0,
            "next_position": 0,
            "system_tokens": self._count_tokens(system),
            "working_tokens": 0,
            "summary_tokens": 0,
            "queue_tokens": 0,
            "newest_tokens": 0,
            "created_at": now,
            "updated_at": now,
        }
        room_beside_newest(document)
        if session_id is not None:
            document["id"] = session_id
        with self.db.transaction() as tx:
            alive(tx[USERS].get(user_id), USERS, user_id)
            session_id = tx[SESSIONS].insert(document)
            if system:
                part = {"session_id": session_id, "context_type": "system", "content": system}
                tx[MAIN].put({"id": part_id(session_id, "system"), **part, "created_at": now})
        return session_id

    def get(self, session_id: str) -> Document:
        """The document of a session, with its budget and used tokens. Raises MissingKeyError."""
        return alive(self.db.collection(SESSIONS).get(session_id), SESSIONS, session_id)

    def of(
        self,
        user_id: str,
        role_name: str | None = None,
        *,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """The sessions of a user, or those with one role, the last changed first."""
        where = {**having(user_id=user_id, role_name=role_name), "deleted_at": None}
        return self.db.collection(SESSIONS).find(
            where, order_by="-updated_at", limit=limit, after=after
        )

    def delete(self, session_id: str) -> Deleted:
        """Deletes a session with its context and memories. Raises MissingKeyError."""
        with self.db.transaction() as tx:
            self.live(tx, session_id)
            documents = self._delete(tx, [session_id])
        return self._deleted(tx, 1, documents)

    def purge(self, progress: Callable[[int], None] | None = None) -> int:
        """Removes documents that deletions marked and, because of a crash, did not remove; how
        many. `progress` is called with the count so far."""
        count = 0
        for session in self.db.collection(SESSIONS).find(_MARKED, fields=["id"]):
            is_empty = False
            while not is_empty:
                with self.db.transaction() as tx:
                    removed = _remove(tx, session["id"], self._batch)
                    is_empty = removed < self._batch
                    if is_empty:
                        tx[SESSIONS].delete(session["id"])
                count += removed
                if progress is not None:
                    progress(count)
        with self.db.transaction() as tx:  # marked in the same commit as their sessions
            for user in tx[USERS].find(_MARKED, fields=["id"]):
                if not tx[SESSIONS].find({"user_id": user["id"]}, limit=1):
                    tx[USERS].delete(user["id"])
        return count

    # -- roles and settings ------------------------------------------------------------------

    def set_role(
        self,
        role_name: str,
        *,
        system: str | None = None,
        token_budget: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Document:
        """Creates a role or changes the given fields; the role after that. Existing sessions do not
        change. Raises InvalidDocumentError."""
        check_name("role_name", role_name)
        if token_budget is not None:
            check_budget(token_budget)
        given = {"system": system, "token_budget": token_budget, "settings": settings}
        changes = {name: value for name, value in given.items() if value is not None}
        now = self.now()
        with self.db.transaction() as tx:
            roles = tx[ROLES]
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

    def role(self, role_name: str) -> Document | None:
        """The role, or None: system, token_budget and settings for new sessions."""
        role: Document | None = self.db.collection(ROLES).get(role_name)
        return role

    def roles(self) -> list[Document]:
        """All roles, by name."""
        return list(self.db.collection(ROLES).documents())

    def set_setting(self, name: str, value: Any) -> None:
        """Stores a setting that is not of a session; `value` is any storable value. Raises
        InvalidDocumentError."""
        check_name("name", name)
        self.db.collection(SETTINGS).put({"id": name, "value": value, "updated_at": self.now()})

    def setting(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or `default`."""
        setting = self.db.collection(SETTINGS).get(name)
        return default if setting is None else setting["value"]

    # -- for AgentContext --------------------------------------------------------------------

    def now(self) -> datetime:
        """The time of the clock, in UTC."""
        return self._clock()

    def live(self, tx: Transaction, session_id: str) -> Document:
        """The document of a session, read in a transaction. Raises MissingKeyError."""
        return alive(tx[SESSIONS].get(session_id), SESSIONS, session_id)

    # -- inside ------------------------------------------------------------------------------

    def _user(self, username: str, metadata: Mapping[str, Any] | None) -> Document:
        check_name("username", username)
        now = self.now()
        return {"username": username, "metadata": dict(metadata or {}), "created_at": now}

    def _delete(self, tx: Transaction, session_ids: Sequence[str]) -> int | None:
        """Deletes sessions with their dependent documents; how many. If there are more than a
        batch, marks the sessions as deleted and returns None."""
        left = self._batch - len(session_ids)
        for session_id in session_ids:
            if left >= 0:
                left -= sum(tx[name].count({"session_id": session_id}) for name in DEPENDENT)
        if left < 0:
            for session_id in session_ids:
                tx[SESSIONS].update(session_id, {"deleted_at": self.now()})
            return None
        removed = 0
        for session_id in session_ids:
            removed += _remove(tx, session_id, self._batch)
            tx[SESSIONS].delete(session_id)
        return removed

    def _deleted(self, tx: Transaction, sessions: int, documents: int | None) -> Deleted:
        """The receipt of a deletion that was committed; removes what it marked."""
        if documents is None:
            documents = self.purge()
        return Deleted(tx.lsn, sessions, documents)


def _remove(tx: Transaction, session_id: str, limit: int) -> int:
    """Deletes up to `limit` dependent documents of a session; how many."""
    left = limit
    for name in DEPENDENT:
        for document in tx[name].find({"session_id": session_id}, limit=left, fields=["id"]):
            tx[name].delete(document["id"])
            left -= 1
    return limit - left


def alive(document: Document | None, collection: str, id: str) -> Document:
    """The document. Raises MissingKeyError when it is None or marked as deleted."""
    if document is None or "deleted_at" in document:
        raise MissingKeyError(
            f"there is no {collection[:-1]} {id!r}, or it was deleted",
            collection=collection,
            key=id,
        )
    return document
