"""Whose documents a search or a list asks for: those of sessions, of a user, of a role.

    session_id                 one session, or several
    user_id                    all sessions of a user
    role_name                  all sessions of a role; with user_id those of the user in this role

Invariants:
- Documents of a session that is being deleted are not found.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

from amberdb import QueryError
from amberdb._shared.queries import between, having
from amberdb.context.sessions import Sessions


@final
class Scope:
    """Filters for documents of sessions; threads may share it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def where(
        self,
        session_id: str | Sequence[str] | None,
        user_id: str | None,
        role_name: str | None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[str, Any]:
        """The filter for documents with `since <= created_at < until`. Raises
        QueryError, MissingKeyError."""
        owners = having(user_id=user_id, role_name=role_name)
        if (session_id is None) == (not owners):
            raise QueryError("give session_id, or user_id and role_name or one of them")
        times = between("created_at", since, until)
        if session_id is not None:
            ids = [session_id] if isinstance(session_id, str) else session_id
            if not isinstance(ids, (list, tuple)):
                raise QueryError(f"session_id must be a str or a list of them, not {session_id!r}")
            for id in ids:
                self._sessions.get(id)
            return {"session_id": ids[0] if len(ids) == 1 else {"$in": ids}, **times}
        if user_id is not None:
            self._sessions.user(user_id)
        marked = self._sessions.marked()
        hidden = {"session_id": {"$nin": marked}} if marked else {}
        return {**owners, **hidden, **times}


def newest_first(where: dict[str, Any]) -> str:
    """The order of documents that match: by position within a session, by time across sessions."""
    return "-position" if isinstance(where.get("session_id"), str) else "-created_at"
