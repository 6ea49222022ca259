"""Users, their sessions, roles and settings; and deletions that take along what hangs on them.

Invariants:
- A deletion is one commit: from it on nobody sees any of it, and nothing can be added.
- Up to `batch` documents go in that commit. More than that are only marked by it, and removed in
  commits of `batch` documents each, the marked document last: no transaction grows with what a
  user has said, and what a crash interrupts goes on with the next deletion, or purge().
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, final

from amberdb import REMOVE, Database, Document, MissingKeyError, Page, Transaction
from amberdb._shared.checks import check_name
from amberdb.chat.buffer import count_tokens
from amberdb.context.types import (
    HANGING,
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
"""Documents that one commit removes."""
_MARKED: Final[Mapping[str, Any]] = {"deleted_at": {"$gt": datetime(1970, 1, 1, tzinfo=UTC)}}


@final
class Sessions:
    """Made by AgentContext: `context.sessions`. Threads may share it."""

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
        self._clock = clock
        self._batch = batch

    # -- users -------------------------------------------------------------------------------

    def create_user(
        self,
        username: str,
        *,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """A new user's id. Raises InvalidDocumentError, DuplicateKeyError."""
        document = self._user(username, metadata)
        if user_id is not None:
            check_name("user_id", user_id)
            document["id"] = user_id
        return self.db.collection(USERS).insert(document)

    def find_or_create_user(self, username: str) -> str:
        """The id of the one user of this name. Raises InvalidDocumentError."""
        document = self._user(username, None)
        with self.db.transaction() as tx:
            found = tx[USERS].find({"username": username}, limit=1)
            return str(found[0]["id"]) if found else tx[USERS].insert(document)

    def user(self, user_id: str) -> Document:
        """Raises MissingKeyError."""
        return alive(self.db.collection(USERS).get(user_id), USERS, user_id)

    def find_user(self, username: str) -> Document | None:
        """By the name."""
        found = self.db.collection(USERS).find({"username": username}, limit=1)
        return found[0] if found else None

    def users(self, *, limit: int | None = 100, after: str | None = None) -> Page:
        """The oldest first."""
        return self.db.collection(USERS).find(
            {"deleted_at": None}, order_by="created_at", limit=limit, after=after
        )

    def delete_user(self, user_id: str) -> Deleted:
        """With all sessions, and what hangs on them. Raises MissingKeyError."""
        with self.db.transaction() as tx:
            alive(tx[USERS].get(user_id), USERS, user_id)
            mine = tx[SESSIONS].find({"user_id": user_id}, fields=["id"])
            documents = self._delete(tx, [each["id"] for each in mine])
            if documents is not None:
                tx[USERS].delete(user_id)
            else:  # the name is free from now on
                tx[USERS].update(user_id, {"deleted_at": self.now(), "username": REMOVE})
        return self._deleted(tx, len(mine), documents)

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
        """A new session's id. It begins with the role's system instructions, and has the budget
        that is given, or the role's, or the default. Raises MissingKeyError, DuplicateKeyError,
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
        """With its budget and what is used of it, in tokens. Raises MissingKeyError."""
        return alive(self.db.collection(SESSIONS).get(session_id), SESSIONS, session_id)

    def of(
        self,
        user_id: str,
        role_name: str | None = None,
        *,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """Of a user, and of one role if it is named: the last changed first."""
        where: dict[str, Any] = {"user_id": user_id, "deleted_at": None}
        if role_name is not None:
            where["role_name"] = role_name
        return self.db.collection(SESSIONS).find(
            where, order_by="-updated_at", limit=limit, after=after
        )

    def delete(self, session_id: str) -> Deleted:
        """With its context and its memories. Raises MissingKeyError."""
        with self.db.transaction() as tx:
            self.live(tx, session_id)
            documents = self._delete(tx, [session_id])
        return self._deleted(tx, 1, documents)

    def purge(self, progress: Callable[[int], None] | None = None) -> int:
        """Removes what deletions have marked and a crash has kept them from removing; how many
        documents. `progress` is told the count so far."""
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
        with self.db.transaction() as tx:  # their sessions were marked in the same commit
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
        """Creates a role, or changes what is given of it; sessions that are there keep theirs.
        Raises InvalidDocumentError."""
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
            roles.update(role_name, {**changes, "updated_at": now})
            return roles.record(role_name).document

    def role(self, role_name: str) -> Document | None:
        """system, token_budget, settings: what its new sessions begin with."""
        found: Document | None = self.db.collection(ROLES).get(role_name)
        return found

    def roles(self) -> list[Document]:
        """All, by name."""
        return list(self.db.collection(ROLES).documents())

    def set_setting(self, name: str, value: Any) -> None:
        """Of the whole system; `value` is what a document may hold. Raises
        InvalidDocumentError."""
        check_name("name", name)
        self.db.collection(SETTINGS).put({"id": name, "value": value, "updated_at": self.now()})

    def setting(self, name: str, default: Any = None) -> Any:
        """What set_setting() was given."""
        found = self.db.collection(SETTINGS).get(name)
        return default if found is None else found["value"]

    # -- for AgentContext --------------------------------------------------------------------

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def live(self, tx: Transaction, session_id: str) -> Document:
        """A session inside a transaction. Raises MissingKeyError."""
        return alive(tx[SESSIONS].get(session_id), SESSIONS, session_id)

    # -- inside ------------------------------------------------------------------------------

    def _user(self, username: str, metadata: Mapping[str, Any] | None) -> Document:
        check_name("username", username)
        now = self.now()
        return {"username": username, "metadata": dict(metadata or {}), "created_at": now}

    def _delete(self, tx: Transaction, session_ids: Sequence[str]) -> int | None:
        """Sessions with all that hangs on them: how many documents. None: too many, they are
        marked."""
        left = self._batch - len(session_ids)
        for session_id in session_ids:
            if left >= 0:
                left -= sum(tx[name].count({"session_id": session_id}) for name in HANGING)
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
        if documents is None:
            documents = self.purge()
        return Deleted(tx.lsn, sessions, documents)


def _remove(tx: Transaction, session_id: str, limit: int) -> int:
    """Up to so many documents of a session; how many."""
    left = limit
    for name in HANGING:
        for each in tx[name].find({"session_id": session_id}, limit=left, fields=["id"]):
            tx[name].delete(each["id"])
            left -= 1
    return limit - left


def alive(found: Document | None, collection: str, id: str) -> Document:
    """Neither missing nor marked. Raises MissingKeyError."""
    if found is None or "deleted_at" in found:
        raise MissingKeyError(
            f"there is no {collection[:-1]} {id!r}, or it was deleted",
            collection=collection,
            key=id,
        )
    return found
