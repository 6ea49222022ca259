"""Agent context: the part of a session that a model call gets, within a budget of tokens, and
storage for the rest.

    system, working, summary, queue -> render() -> messages for a model call
                              queue -> overflow(): summary hook -> recall storage
                                                   archival storage <- archival_insert()

Invariants:
- Every message has a position in its session; positions have no gaps and never change. Messages
  below `first_position` are in recall storage, the others in the queue, and none is in both.
- Messages move in one commit, together with the summary made of them and the session's counts. The
  summary hook runs before that commit, outside transactions.
- System instructions, working context and the newest message always fit the budget, and so does the
  result of render().
- When a move fails, the messages stay in the queue, and the append before it stays committed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import (
    Database,
    Document,
    Embed,
    InvalidDocumentError,
    Page,
    QueryError,
    Transaction,
)
from amberdb._jsonl.text import dumps
from amberdb._shared.checks import check_name, check_str
from amberdb._shared.queries import all_pages
from amberdb._shared.tokens import count_tokens
from amberdb.context.external import ExternalMemory
from amberdb.context.sessions import Sessions, alive
from amberdb.context.types import (
    MAIN,
    PARTS,
    RECALL,
    SESSIONS,
    Appended,
    Message,
    Part,
    Summarize,
    check_budget,
    declare,
    part_id,
    room_beside_newest,
    tokens_used,
)

logger = logging.getLogger("amberdb.context")

MOVE_MAX: Final = 200
MOVE_CHARACTERS_MAX: Final = 4_000_000
"""The most messages, and about the most text, that one commit moves and one summary covers."""
PAGE: Final = 50
_OURS: Final = ("role", "content", "metadata")


@final
class AgentContext:
    """Agent contexts over an open database; threads may share it.

    token_budget    the budget of a session that has none, neither its own nor its role's
    keep            the share of the budget that is still used after an overflow
    count_tokens    function from a text to its number of tokens
    summarize       makes a summary of the messages that leave the queue; None: no summary
    auto_overflow   an append over the budget moves messages before it returns; with False only
                    overflow() moves them
    embed, dim      list of str -> array of shape (n, dim), for vector search of archival memory
    clock           function that returns epoch seconds

    Raises CollectionError, InvalidDocumentError, ValueError.
    """

    def __init__(
        self,
        db: Database,
        *,
        token_budget: int = 8_000,
        keep: float = 0.7,
        count_tokens: Callable[[str], int] = count_tokens,
        summarize: Summarize | None = None,
        auto_overflow: bool = True,
        embed: Embed | None = None,
        dim: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_budget(token_budget)
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must be between 0 and 1, not {keep!r}")
        self.db = db
        declare(db, embed, dim)
        self.sessions = Sessions(
            db, token_budget=token_budget, count_tokens=count_tokens, clock=clock
        )
        self.external = ExternalMemory(self.sessions, embed)
        self._keep = keep
        self._count_tokens = count_tokens
        self._summarize = summarize
        self._auto_overflow = auto_overflow
        self._moving: dict[str, bool] = {}
        """Sessions whose messages a thread is moving; True when another thread asked for it
        since."""
        self._mutex = threading.Lock()

    # -- parts before the messages -----------------------------------------------------------

    def set_system(self, session_id: str, content: str) -> None:
        """Replaces the system instructions. Raises MissingKeyError, and InvalidDocumentError when
        they do not fit the budget."""
        self._set_part(session_id, "system", content)

    def set_working(self, session_id: str, content: str) -> None:
        """Replaces the working context: facts that every model call gets. Raises as
        set_system()."""
        self._set_part(session_id, "working", content)

    def part(self, session_id: str, part: Part) -> str:
        """The text of "system", "working" or "summary" (of the messages that left the queue); empty
        when it is not set. Raises MissingKeyError, QueryError."""
        self.sessions.get(session_id)
        if part not in PARTS:
            raise QueryError(f"a part is one of {', '.join(PARTS)}, not {part!r}")
        document = self.db.collection(MAIN).get(part_id(session_id, part))
        return "" if document is None else str(document["content"])

    def set_token_budget(self, session_id: str, token_budget: int) -> None:
        """Changes the budget, and moves messages that no longer fit. Raises MissingKeyError,
        InvalidDocumentError."""
        check_budget(token_budget)
        with self.db.transaction() as tx:
            session = {**self.sessions.live(tx, session_id), "token_budget": token_budget}
            room_beside_newest(session)
            tx[SESSIONS].put({**session, "updated_at": self.sessions.now()})
        self._make_room(session)

    # -- messages ----------------------------------------------------------------------------

    def append(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> Appended:
        """Appends one message. Raises as extend()."""
        return self.extend(session_id, [{"role": role, "content": content, "metadata": metadata}])

    def extend(self, session_id: str, messages: Iterable[Message]) -> Appended:
        """Appends messages in the form of a model call, in one commit. `metadata` of a message is
        stored and not sent to the model. Raises MissingKeyError, and InvalidDocumentError when a
        message does not fit the budget beside system instructions and working context; then none
        is stored."""
        now = self.sessions.now()
        documents = [self._document(session_id, message, now) for message in messages]
        with self.db.transaction() as tx:
            session = self.sessions.live(tx, session_id)
            first = session["next_position"]
            for position, document in enumerate(documents, first):
                session["newest_tokens"] = document["token_count"]
                session["queue_tokens"] += document["token_count"]
                room_beside_newest(session)
                document["position"] = position
            session["next_position"] = first + len(documents)
            ids = tx[MAIN].put_many(documents)
            tx[SESSIONS].put({**session, "updated_at": now})
        tokens = sum(document["token_count"] for document in documents)
        return Appended(ids, first, tokens, *self._make_room(session))

    def queue(self, session_id: str, *, limit: int | None = 100, after: str | None = None) -> Page:
        """Messages that have not moved to recall storage, the oldest first. Raises
        MissingKeyError."""
        self.sessions.get(session_id)
        where = _queued(session_id)
        return self.db.collection(MAIN).find(where, order_by="position", limit=limit, after=after)

    def render(self, session_id: str) -> list[dict[str, Any]]:
        """Messages for a model call, within the budget: one with role "system" that holds system
        instructions, working context and, if it fits beside the newest message, the summary; then
        the newest messages of the queue that fit. Raises MissingKeyError."""
        with self.db.snapshot() as at:
            session = alive(at[SESSIONS].get(session_id), SESSIONS, session_id)
            texts = {part: at[MAIN].get(part_id(session_id, part)) for part in PARTS}
            left = room_beside_newest(session)
            if session["summary_tokens"] <= left:
                left -= session["summary_tokens"]
            else:
                del texts["summary"]
            left += session["newest_tokens"]
            newest: list[Document] = []
            queue = all_pages(at[MAIN].find, _queued(session_id), limit=PAGE, order_by="-position")
            for document in queue:
                left -= document["token_count"]
                if left < 0:
                    break
                newest.append(document)
        contents = [part["content"] for part in texts.values() if part is not None]
        system = "\n\n".join(filter(None, contents))
        head = [{"role": "system", "content": system}] if system else []
        return head + [_message(document) for document in _without_orphans(newest[::-1])]

    # -- overflow ----------------------------------------------------------------------------

    def overflow(self, session_id: str) -> int:
        """Moves the oldest messages to recall storage while the session is over its budget; how
        many this call moved. If another thread is moving messages of the session, it checks the
        budget once more and this call returns 0. Raises MissingKeyError, and any exception of the
        summary hook; then the messages stay in the queue."""
        check_name("session_id", session_id)
        with self._mutex:
            if session_id in self._moving:
                self._moving[session_id] = True
                return 0
            self._moving[session_id] = False
        try:
            session = self.sessions.get(session_id)
            first = session["first_position"]
            while True:
                if tokens_used(session) <= session["token_budget"] or not self._move(session):
                    with self._mutex:
                        if not self._moving[
                            session_id
                        ]:  # no other thread asked since `session` was read
                            del self._moving[session_id]
                            return int(session["first_position"] - first)
                        self._moving[session_id] = False
                session = self.sessions.get(session_id)
        except BaseException:
            with self._mutex:
                self._moving.pop(session_id, None)
            raise

    # -- inside ------------------------------------------------------------------------------

    def _set_part(self, session_id: str, part: Part, content: str) -> None:
        check_str("content", content)
        tokens = self._count_tokens(content)
        now = self.sessions.now()
        with self.db.transaction() as tx:
            session = {**self.sessions.live(tx, session_id), f"{part}_tokens": tokens}
            room_beside_newest(session)
            self._put_part(tx, session, part, content, now)
        self._make_room(session)

    def _put_part(
        self, tx: Transaction, session: Document, part: Part, content: str, now: datetime
    ) -> None:
        """Stores a part, and the session whose counts already include it."""
        id, session_id = part_id(session["id"], part), session["id"]
        document = {"session_id": session_id, "context_type": part, "content": content}
        tx[MAIN].put({"id": id, **document, "created_at": now})
        tx[SESSIONS].put({**session, "updated_at": now})

    def _document(self, session_id: str, message: Message, now: datetime) -> Document:
        """A message as a document of the queue, without its position. Raises
        InvalidDocumentError."""
        check_name("role", message.get("role"))
        content = message.get("content")
        more = {name: value for name, value in message.items() if name not in _OURS}
        if not isinstance(content, str) or not (content or more):
            raise InvalidDocumentError(
                f"content must be a str, and may be empty only in a message with other fields such "
                f"as tool_calls, not {content!r}",
                field="content",
            )
        return {
            "session_id": session_id,
            "context_type": "queue",
            "role": message["role"],
            "content": content,
            "message": more,
            "metadata": dict(message.get("metadata") or {}),
            "token_count": self._count_tokens(content + _as_text(more)),
            "created_at": now,
        }

    def _make_room(self, session: Document) -> tuple[int, str | None]:
        """Moves messages after a change that is committed: how many, and the error if that failed.
        An exception would look as if the change had failed."""
        if not self._auto_overflow or tokens_used(session) <= session["token_budget"]:
            return 0, None
        try:
            return self.overflow(session["id"]), None
        except Exception as error:
            logger.warning("session %s stays over its budget: %s", session["id"], error)
            return 0, f"{type(error).__name__}: {error}"

    def _move(self, session: Document) -> bool:
        """Moves the oldest messages that are over the budget, up to a limit; False when no message
        can move. Does nothing when another AgentContext moved messages meanwhile."""
        leaving = self._leaving(session)
        if not leaving:
            return False
        summary, tokens = "", session["summary_tokens"]
        if self._summarize is not None:
            summary = self._summarize(self.part(session["id"], "summary"), leaving)
            tokens = self._count_tokens(summary)
            room = room_beside_newest(session) + session["newest_tokens"]
            if tokens > room:
                raise InvalidDocumentError(
                    f"the summary has {tokens} tokens, and the budget leaves {room}: make it "
                    "shorter, or raise the budget with set_token_budget()",
                    field="summary",
                )
        now = self.sessions.now()
        with self.db.transaction() as tx:
            current = self.sessions.live(tx, session["id"])
            if current["first_position"] != session["first_position"]:
                return True
            current["first_position"] += len(leaving)
            current["queue_tokens"] -= sum(document["token_count"] for document in leaving)
            current["summary_tokens"] = tokens
            for document in leaving:
                tx[MAIN].delete(document["id"])
            tx[RECALL].put_many(leaving)
            if self._summarize is not None:
                self._put_part(tx, current, "summary", summary, now)
            else:
                tx[SESSIONS].put({**current, "updated_at": now})
        return True

    def _leaving(self, session: Document) -> Sequence[Document]:
        """The messages that have to leave the queue, the oldest first; never the newest one.
        Results of tools leave together with their call: models reject a result without its call."""
        excess = tokens_used(session) - int(session["token_budget"] * self._keep)
        limit = min(MOVE_MAX, session["next_position"] - session["first_position"] - 1)
        characters = 0
        leaving: list[Document] = []
        find, where = self.db.collection(MAIN).find, _queued(session["id"])
        for document in all_pages(find, where, limit=PAGE, order_by="position"):
            is_enough = excess <= 0 and document["role"] != "tool"
            if is_enough or len(leaving) >= limit or characters >= MOVE_CHARACTERS_MAX:
                break
            excess -= document["token_count"]
            characters += len(document["content"])
            leaving.append(document)
        return leaving


def _queued(session_id: str) -> dict[str, Any]:
    return {"session_id": session_id, "context_type": "queue"}


def _as_text(more: Mapping[str, Any]) -> str:
    """The other fields of a message as text, for counting. Raises InvalidDocumentError."""
    try:
        return dumps(more) if more else ""
    except (TypeError, ValueError) as error:
        raise InvalidDocumentError(
            f"a field of the message is not storable: {error}", field="message"
        ) from None


def _message(document: Document) -> dict[str, Any]:
    """A message in the form of a model call."""
    return {"role": document["role"], "content": document["content"], **document["message"]}


def _without_orphans(documents: list[Document]) -> list[Document]:
    """Without the results of tools at the beginning, whose call is not among the documents."""
    for position, document in enumerate(documents):
        if document["role"] != "tool":
            return documents[position:]
    return []
