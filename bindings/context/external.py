"""External memory of a session: recall storage, which the queue flows into, and archival storage,
which an agent writes to.

Invariants:
- Nothing is found of a session that is not there, or is being deleted.
- The embedder runs outside of transactions; what it fails on is stored, and gets its vector later.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import Document, MissingKeyError, Page
from amberdb._shared.checks import check_text
from amberdb._shared.queries import between
from amberdb._shared.questions import vectors, words
from amberdb.context.pages import Matches, search_page
from amberdb.context.sessions import Sessions
from amberdb.context.types import ARCHIVAL, RECALL
from amberdb.index.vector.vector import Embed

FIELDS: Final = ("id", "session_id", "content", "metadata", "created_at")
"""Of archival memory as it is given out: all but its vector."""


@final
class ExternalMemory:
    """Made by AgentContext: `context.external`. Threads may share it. `session_id` is one, or
    several that are searched together."""

    def __init__(self, sessions: Sessions, embed: Embed | None) -> None:
        self._sessions = sessions
        self._db = sessions.db
        self._embed = embed

    def recall(
        self,
        session_id: str | Sequence[str],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """Messages that left the queue, the latest first; from `since` on, before `until`. Raises
        MissingKeyError, CursorError."""
        where = self._where(session_id, since, until)
        return self._db.collection(RECALL).find(
            where, order_by="-created_at", limit=limit, after=after
        )

    def recall_search(
        self,
        session_id: str | Sequence[str],
        query: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 10,
        after: str | None = None,
    ) -> Matches:
        """Messages that left the queue, by the words of a question, the best first. Raises
        MissingKeyError, QueryError, CursorError."""
        where = self._where(session_id, since, until)
        asked = {"text": words(query)}
        recall = self._db.collection(RECALL)
        return search_page(recall, query, asked, where, limit=limit, after=after)

    def archival_insert(
        self, session_id: str, content: str, *, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Puts something by for good; its id. Raises MissingKeyError, InvalidDocumentError."""
        check_text("content", content)
        (vector,) = vectors(self._embed, [content])
        document: Document = {
            "session_id": session_id,
            "content": content,
            "metadata": dict(metadata or {}),
            "created_at": self._sessions.now(),
        }
        if vector is not None:
            document["embedding"] = vector
        with self._db.transaction() as tx:
            self._sessions.live(tx, session_id)
            return tx[ARCHIVAL].put(document)

    def archival(
        self,
        session_id: str | Sequence[str],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """What was put by, the latest first. Raises MissingKeyError, CursorError."""
        where = self._where(session_id, since, until)
        return self._db.collection(ARCHIVAL).find(
            where, order_by="-created_at", limit=limit, after=after, fields=FIELDS
        )

    def archival_search(
        self,
        session_id: str | Sequence[str],
        query: str,
        *,
        limit: int = 10,
        after: str | None = None,
    ) -> Matches:
        """What is near to the query in meaning, the nearest first; by its words, where there is no
        embedder or it is down. Raises MissingKeyError, QueryError, CursorError."""
        where = self._where(session_id, None, None)
        (vector,) = vectors(self._embed, [query])
        asked = {"text": words(query)} if vector is None else {"vector": vector}
        archival = self._db.collection(ARCHIVAL)
        return search_page(archival, query, asked, where, limit=limit, after=after, fields=FIELDS)

    def archival_delete(self, memory_id: str) -> None:
        """Raises MissingKeyError."""
        if not self._db.collection(ARCHIVAL).delete(memory_id):
            raise MissingKeyError(
                f"there is no archival memory {memory_id!r}", collection=ARCHIVAL, key=memory_id
            )

    # -- inside ------------------------------------------------------------------------------

    def _where(
        self, session_id: str | Sequence[str], since: datetime | None, until: datetime | None
    ) -> dict[str, Any]:
        """Raises MissingKeyError."""
        ids = [session_id] if isinstance(session_id, str) else list(session_id)
        for each in ids:
            self._sessions.get(each)
        return {
            "session_id": ids[0] if len(ids) == 1 else {"$in": ids},
            **between("created_at", since, until),
        }
