"""External memory of a session: recall storage, which gets the messages that leave the queue, and
archival storage, which an agent writes to.

Invariants:
- Searches of a session that is missing or being deleted raise MissingKeyError.
- The embedder runs outside transactions; when it fails, the document is stored and gets its vector
  later.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, final

from amberdb import (
    Document,
    Hits,
    InvalidDocumentError,
    MissingKeyError,
    Page,
    Transaction,
)
from amberdb._shared.checks import check_text, check_time
from amberdb._shared.embedder import Embedder
from amberdb._shared.search_input import asked
from amberdb._shared.systems import in_transaction
from amberdb.context.conversation import IN_SESSION
from amberdb.context.scope import Scope, newest_first
from amberdb.context.sessions import Sessions
from amberdb.context.types import metadata_of

FIELDS: Final = ("id", "session_id", "user_id", "role_name", "content", "metadata", "created_at")
"""The fields of an archival memory that are returned: all but its vector and position."""
BATCH: Final = 200
"""The memories that archival_insert_many() embeds and commits at once."""


@final
class ExternalMemory:
    """`context.external` of an AgentContext; threads may share it. Lists and searches take
    `session_id`, the id of one session or a list of ids, or `user_id` for all sessions of a user,
    or `role_name` for all of a role, or both for those of a user in a role."""

    def __init__(self, sessions: Sessions, embedder: Embedder) -> None:
        self._sessions = sessions
        self._scope = Scope(sessions)
        self._db = sessions.db
        self._recall = sessions.names.recall
        self._archival = sessions.names.archival
        self._embedder = embedder

    def recall(
        self,
        session_id: str | Sequence[str] | None = None,
        *,
        user_id: str | None = None,
        role_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """Messages that left the queue, with `since <= created_at < until`, the newest first: by
        their position in a session, by time where there are several. Raises MissingKeyError,
        QueryError, CursorError."""
        name = self._recall
        where = self._scope.where(session_id, user_id, role_name, since, until)
        return self._db[name].find(where, order_by=newest_first(where), limit=limit, after=after)

    def recall_search(
        self,
        session_id: str | Sequence[str] | None = None,
        text: str | None = None,
        *,
        user_id: str | None = None,
        role_name: str | None = None,
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
        name = self._recall
        where = self._scope.where(session_id, user_id, role_name, since, until)
        return self._db[name].search(**search, where=where, limit=limit, after=after)

    def archival_insert(
        self,
        session_id: str,
        content: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> str:
        """Stores an archival memory, which never expires; its id. Raises MissingKeyError,
        InvalidDocumentError."""
        memory = {"content": content, "metadata": metadata}
        return self.archival_insert_many(session_id, [memory], tx=tx)[0]

    def archival_insert_many(
        self,
        session_id: str,
        memories: Iterable[str | Mapping[str, Any]],
        *,
        tx: Transaction | None = None,
    ) -> list[str]:
        """Stores archival memories, texts or maps with content, metadata and created_at; their ids.
        All are checked first. They are embedded and committed 200 at a time, so memory and
        transactions stay small; in a transaction of the caller they are one commit, and get their
        vectors later. Raises MissingKeyError, InvalidDocumentError."""
        documents = [self._document(memory) for memory in memories]
        batches = [documents[at : at + BATCH] for at in range(0, len(documents), BATCH)]
        self._sessions.live(self._db if tx is None else tx, session_id)
        ids: list[str] = []
        for batch in batches:
            texts = [document["content"] for document in batch]
            vectors = [None] * len(texts) if tx is not None else self._embedder.vectors(texts)
            for document, vector in zip(batch, vectors, strict=True):
                if vector is not None:
                    document["embedding"] = vector
            ids += in_transaction(self._db, tx, partial(self._put, session_id, batch))
        return ids

    def archival(
        self,
        session_id: str | Sequence[str] | None = None,
        *,
        user_id: str | None = None,
        role_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = 100,
        after: str | None = None,
    ) -> Page:
        """Archival memories, the newest first, as recall(). Raises MissingKeyError, QueryError,
        CursorError."""
        name = self._archival
        where = self._scope.where(session_id, user_id, role_name, since, until)
        return self._db[name].find(
            where, order_by=newest_first(where), limit=limit, after=after, fields=FIELDS
        )

    def archival_search(
        self,
        session_id: str | Sequence[str] | None = None,
        text: str | None = None,
        *,
        user_id: str | None = None,
        role_name: str | None = None,
        query: str | None = None,
        limit: int = 10,
        after: str | None = None,
    ) -> Hits:
        """Search of archival memories, the best first: by words and by vectors together, so that a
        memory which waits for its vector is found; by words alone without an embedder, when it
        fails, and for a query in the query language. Raises MissingKeyError, QueryError,
        CursorError."""
        search: dict[str, Any] = {**asked(text, query)}
        name = self._archival
        where = self._scope.where(session_id, user_id, role_name)
        (vector,) = self._embedder.vectors([text])
        if vector is not None:
            search["vector"] = vector
        return self._db[name].search(**search, where=where, limit=limit, after=after, fields=FIELDS)

    def archival_delete(self, memory_id: str, *, tx: Transaction | None = None) -> None:
        """Deletes an archival memory. Raises MissingKeyError."""
        if not in_transaction(self._db, tx, lambda tx: tx[self._archival].delete(memory_id)):
            raise MissingKeyError(
                f"there is no archival memory {memory_id!r}",
                collection=self._archival,
                key=memory_id,
            )

    # -- inside ------------------------------------------------------------------------------

    def _put(self, session_id: str, batch: Sequence[Document], tx: Transaction) -> list[str]:
        """Stores memories behind the last one of a session; their ids."""
        session = self._sessions.live(tx, session_id)
        for document in batch:
            document |= {
                "session_id": session_id,
                "user_id": session["user_id"],
                "role_name": session["role_name"],
                "position": session["next_archival"],
            }
            session["next_archival"] += 1
        ids = tx[self._archival].put_many(batch)
        tx[self._sessions.names.sessions].put(session)
        return ids

    def _document(self, memory: str | Mapping[str, Any]) -> Document:
        """An archival memory without its session. Raises InvalidDocumentError."""
        given: Mapping[str, Any] = {"content": memory} if isinstance(memory, str) else memory
        if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidDocumentError(
                f"an archival memory is a text or a map with content, not {memory!r:.80}",
                field="content",
            )
        if unknown := given.keys() - {"content", "metadata", "created_at"}:
            raise InvalidDocumentError(
                f"an archival memory has content, metadata and created_at, not {min(unknown)!r}",
                field=str(min(unknown)),
            )
        content, created_at = given.get("content"), given.get("created_at")
        check_text("content", content)
        if created_at is None:
            created_at = self._sessions.now()
        check_time("created_at", created_at)
        metadata = metadata_of(given.get("metadata"))
        return {"content": content, "metadata": metadata, "created_at": created_at}
