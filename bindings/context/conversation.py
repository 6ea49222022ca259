"""One search over the messages of a session: those in the queue, and those in recall storage.

Invariants:
- Both are searched as of one Lsn, so a message that moves meanwhile is found once.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, final

from amberdb import Hit, Hits, Neighbors
from amberdb._shared.search_input import asked
from amberdb.context.scope import Scope
from amberdb.context.sessions import Sessions

RANK_CONSTANT: Final = 60
"""Of reciprocal rank fusion: how little the first ranks stand out."""
BESIDE: Final = Neighbors(group=("session_id", "context_type"), order="position")
IN_SESSION: Final = Neighbors(group="session_id", order="position")


@final
class Conversation:
    """The messages of an AgentContext, for search; threads may share it."""

    def __init__(self, sessions: Sessions) -> None:
        self._db = sessions.db
        self._names = sessions.names
        self._scope = Scope(sessions)

    def search(
        self,
        session_id: str | Sequence[str] | None,
        text: str | None,
        *,
        query: str | None,
        user_id: str | None,
        role_name: str | None,
        roles: Sequence[str] | None,
        since: datetime | None,
        until: datetime | None,
        limit: int,
        neighbors: bool | None,
    ) -> Hits:
        """As AgentContext.conversation_search()."""
        search: dict[str, Any] = {**asked(text, query), "limit": limit}
        more: dict[str, Any] = {}
        if roles is not None:
            more["role"] = {"$in": [roles] if isinstance(roles, str) else list(roles)}
        beside = neighbors or (neighbors is None and query is None)
        found: list[Hit] = []
        how: dict[str, Any] = {}
        places: tuple[tuple[str, Neighbors, dict[str, Any]], ...] = (
            (self._names.main, BESIDE, {"context_type": "queue"}),
            (self._names.recall, IN_SESSION, {}),
        )
        where = {**self._scope.where(session_id, user_id, role_name, since, until), **more}
        with self._db.snapshot() as at:
            for name, group, kind in places:
                near: dict[str, Any] = {"neighbors": group} if beside else {}
                hits = at[name].search(**search, **near, where={**where, **kind})
                how[name] = hits.how
                ranked = enumerate(hits, RANK_CONSTANT + 1)
                found += [replace(hit, score=1 / rank) for rank, hit in ranked]
        found.sort(key=lambda hit: -hit.score)
        return Hits(found[:limit], how)
