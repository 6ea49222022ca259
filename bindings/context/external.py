"""External memory of a session: recall storage, which gets the messages that leave the queue, and
archival storage, which an agent writes to.

Invariants:
- Searches of a session that is missing or being deleted raise MissingKeyError.
- The embedder runs outside transactions; when it fails, the document is stored and gets its vector
  later.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import Document, Embed, Hits, MissingKeyError, Neighbors, Page, QueryError
from amberdb._shared.checks import check_text
from amberdb._shared.queries import between
from amberdb._shared.search_input import asked, embed_texts
from amberdb.context.sessions import Sessions
from amberdb.context.types import ARCHIVAL, RECALL

FIELDS: Final = ("id", "session_id", "content", "metadata", "created_at")
"""The fields of an archival memory that are returned: all but its vector."""
IN_SESSION: Final = Neighbors(group="session_id", order="created_at")


@final
class ExternalMemory:
    """`context.external` of an AgentContext; threads may share it. `session_id` is the id of one
    session, or a list of ids that are searched together."""

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
        """Messages that left the queue, with `since <= created_at < until`, the newest first.
        Raises MissingKeyError, CursorError."""
        where = self._where(session_id, since, until)
        return self._db.collection(RECALL).find(
            where, order_by="-created_at", limit=limit, after=after
        )

    def recall_search(
        self,
        session_id: str | Sequence[str],
        text: str | None = None,
        *,
        query: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 10,
        after: str | None = None,
        neighbors: bool | None = None,
    ) -> Hits:
        """Full-text search of the messages that left the queue, the best first: by the words of a
        text, or by a query in the query language. With `neighbors` a message is ranked with the two
        before and after it, and those of a good hit are hits without any of the words; None means
        with a text, and not with a query, which says exactly what to find. Raises MissingKeyError,
        QueryError, CursorError."""
        search: dict[str, Any] = {**asked(text, query)}
        if neighbors or (neighbors is None and query is None):
            search["neighbors"] = IN_SESSION
        where = self._where(session_id, since, until)
        recall = self._db.collection(RECALL)
        return recall.search(**search, where=where, limit=limit, after=after)

    def archival_insert(
        self, session_id: str, content: str, *, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Stores an archival memory, which never expires; its id. Raises MissingKeyError,
        InvalidDocumentError."""
        check_text("content", content)
        (vector,) = embed_texts(self._embed, [content])
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
        """Archival memories, the newest first. Raises MissingKeyError, CursorError."""
        where = self._where(session_id, since, until)
        return self._db.collection(ARCHIVAL).find(
            where, order_by="-created_at", limit=limit, after=after, fields=FIELDS
        )

    def archival_search(
        self,
        session_id: str | Sequence[str],
        text: str | None = None,
        *,
        query: str | None = None,
        limit: int = 10,
        after: str | None = None,
    ) -> Hits:
        """Vector search of archival memories, the nearest first; full-text search without an
        embedder, when it fails, and for a query in the query language. Raises MissingKeyError,
        QueryError, CursorError."""
        search: dict[str, Any] = {**asked(text, query)}
        where = self._where(session_id, None, None)
        (vector,) = embed_texts(self._embed, [text])
        if vector is not None:
            search = {"vector": vector}
        archival = self._db.collection(ARCHIVAL)
        return archival.search(**search, where=where, limit=limit, after=after, fields=FIELDS)

    def archival_delete(self, memory_id: str) -> None:
        """Deletes an archival memory. Raises MissingKeyError."""
        if not self._db.collection(ARCHIVAL).delete(memory_id):
            raise MissingKeyError(
                f"there is no archival memory {memory_id!r}", collection=ARCHIVAL, key=memory_id
            )

    # -- inside ------------------------------------------------------------------------------

    def _where(
        self, session_id: str | Sequence[str], since: datetime | None, until: datetime | None
    ) -> dict[str, Any]:
        """The filter for documents of these sessions and times. Raises QueryError,
        MissingKeyError."""
        ids = [session_id] if isinstance(session_id, str) else session_id
        if not isinstance(ids, (list, tuple)):
            raise QueryError(f"session_id must be a str or a list of them, not {session_id!r}")
        for id in ids:
            self._sessions.get(id)
        return {
            "session_id": ids[0] if len(ids) == 1 else {"$in": ids},
            **between("created_at", since, until),
        }
