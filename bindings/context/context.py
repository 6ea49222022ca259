"""Agent context: what a model is shown of a session, within a budget of tokens, and where the rest
goes.

    system, working, summary, queue -> render() -> messages for a model call
                              queue -> overflow(): summary hook -> recall storage
                                                   archival storage <- archival_insert()

Invariants:
- Every message has a position in its session, given once and without holes: those below
  `first_position` are in recall storage, the others in the queue, and none is in both.
- Messages move in one commit, together with the summary that was made of them and the session's
  counts. The summary hook runs before it, outside of transactions.
- System instructions, working context and the newest message always fit the budget; render() fits
  it whatever is in the queue.
- A move that fails costs no message and no append: they stay in the queue.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import Database, Document, InvalidDocumentError, Page, Transaction
from amberdb._jsonl.text import dumps
from amberdb._shared.checks import check_name, check_str
from amberdb._shared.pages import all_pages
from amberdb.chat.buffer import count_tokens
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
from amberdb.index.vector.vector import Embed

logger = logging.getLogger("amberdb.context")

MOVE_MAX: Final = 200
MOVE_SIGNS_MAX: Final = 4_000_000
"""Messages that one commit moves and one summary is made of, and about how much text."""
PAGE: Final = 50
_OURS: Final = ("role", "content", "metadata")


@final
class AgentContext:
    """Over an open database; threads may share it.

    token_budget    of sessions for which neither they nor their role name one
    keep            the share of the budget that an overflow leaves filled
    count_tokens    of a text
    summarize       makes a summary of what leaves the queue; None: there is none
    auto_overflow   an append that goes over the budget moves messages before it returns; False:
                    only overflow() does
    embed, dim      list of str -> array of shape (n, dim): archival memory is found by meaning
    clock           epoch seconds

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
            raise ValueError(f"keep is a share from 0 to 1, not {keep!r}")
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
        """Sessions that a thread is at, and whether another has asked for it since."""
        self._mutex = threading.Lock()

    # -- what stands once --------------------------------------------------------------------

    def set_system(self, session_id: str, content: str) -> None:
        """System instructions, in the place of the old ones. Raises MissingKeyError, and
        InvalidDocumentError when they are over the budget."""
        self._set_part(session_id, "system", content)

    def set_working(self, session_id: str, content: str) -> None:
        """Working context: what the agent is to have in sight. Raises as set_system()."""
        self._set_part(session_id, "working", content)

    def part(self, session_id: str, part: Part) -> str:
        """ "system", "working", or "summary", of what has left the queue. Raises
        MissingKeyError."""
        self.sessions.get(session_id)
        found = self.db.collection(MAIN).get(part_id(session_id, part))
        return "" if found is None else str(found["content"])

    def set_token_budget(self, session_id: str, token_budget: int) -> None:
        """Raises MissingKeyError, InvalidDocumentError."""
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
        """One message, kept when this returns. Raises as extend()."""
        return self.extend(session_id, [{"role": role, "content": content, "metadata": metadata}])

    def extend(self, session_id: str, messages: Iterable[Message]) -> Appended:
        """Messages as a model is sent them, in one commit; `metadata` of a message is kept and not
        sent. Raises MissingKeyError, and InvalidDocumentError when one has no place in the
        budget beside system instructions and working context; then none is stored."""
        now = self.sessions.now()
        made = [self._document(session_id, message, now) for message in messages]
        with self.db.transaction() as tx:
            session = self.sessions.live(tx, session_id)
            first = session["next_position"]
            for position, document in enumerate(made, first):
                session["newest_tokens"] = document["token_count"]
                session["queue_tokens"] += document["token_count"]
                room_beside_newest(session)
                document["position"] = position
            session["next_position"] = first + len(made)
            ids = tx[MAIN].put_many(made)
            tx[SESSIONS].put({**session, "updated_at": now})
        tokens = sum(each["token_count"] for each in made)
        return Appended(ids, first, tokens, *self._make_room(session))

    def queue(self, session_id: str, *, limit: int | None = 100, after: str | None = None) -> Page:
        """Messages that are not in recall storage yet, the oldest first. Raises
        MissingKeyError."""
        self.sessions.get(session_id)
        where = _queued(session_id)
        return self.db.collection(MAIN).find(where, order_by="position", limit=limit, after=after)

    def render(self, session_id: str) -> list[dict[str, Any]]:
        """Messages for a model call, within the budget: one of role "system" with system
        instructions, working context and, where there is room for it beside the newest message,
        the summary; then of the queue the newest that fit. Raises MissingKeyError."""
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
        contents = [each["content"] for each in texts.values() if each is not None]
        system = "\n\n".join(filter(None, contents))
        head = [{"role": "system", "content": system}] if system else []
        return head + [_message(each) for each in _without_orphans(newest[::-1])]

    # -- overflow ----------------------------------------------------------------------------

    def overflow(self, session_id: str) -> int:
        """Moves the oldest messages to recall storage while the main context is over its budget;
        how many left the queue. Another thread that is at it looks again, and is left alone.
        Raises MissingKeyError, and what the summary hook raises; then the messages stay."""
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
                        if not self._moving[session_id]:  # nobody has asked since it was read
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
        """With the session, whose counts are those with it."""
        id, session_id = part_id(session["id"], part), session["id"]
        named = {"session_id": session_id, "context_type": part, "content": content}
        tx[MAIN].put({"id": id, **named, "created_at": now})
        tx[SESSIONS].put({**session, "updated_at": now})

    def _document(self, session_id: str, message: Message, now: datetime) -> Document:
        """Of the queue, without its position. Raises InvalidDocumentError."""
        check_name("role", message.get("role"))
        content = message.get("content")
        more = {name: value for name, value in message.items() if name not in _OURS}
        if not isinstance(content, str) or not (content or more):
            raise InvalidDocumentError(
                f"content is a str, which is empty only beside tool_calls and the like, not "
                f"{content!r}",
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
        """After a change that is kept: nothing that goes wrong here may look as if it were not."""
        if not self._auto_overflow or tokens_used(session) <= session["token_budget"]:
            return 0, None
        try:
            return self.overflow(session["id"]), None
        except Exception as error:
            logger.warning("session %s stays over its budget: %s", session["id"], error)
            return 0, f"{type(error).__name__}: {error}"

    def _move(self, session: Document) -> bool:
        """The oldest messages, so many as are too many now, up to a limit; False when there are
        none to move. What another AgentContext has moved meanwhile need not be moved again."""
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
                    f"the summary has {tokens} tokens, and the budget leaves {room}: make shorter "
                    "ones, or raise it with set_token_budget()",
                    field="summary",
                )
        now = self.sessions.now()
        with self.db.transaction() as tx:
            current = self.sessions.live(tx, session["id"])
            if current["first_position"] != session["first_position"]:
                return True
            current["first_position"] += len(leaving)
            current["queue_tokens"] -= sum(each["token_count"] for each in leaving)
            current["summary_tokens"] = tokens
            for each in leaving:
                tx[MAIN].delete(each["id"])
            tx[RECALL].put_many(leaving)
            if self._summarize is not None:
                self._put_part(tx, current, "summary", summary, now)
            else:
                tx[SESSIONS].put({**current, "updated_at": now})
        return True

    def _leaving(self, session: Document) -> Sequence[Document]:
        """What is to leave the queue, the oldest first; never the newest message. Answers of tools
        leave with the call that they answer: no model takes them without it."""
        excess = tokens_used(session) - int(session["token_budget"] * self._keep)
        limit = min(MOVE_MAX, session["next_position"] - session["first_position"] - 1)
        signs = 0
        leaving: list[Document] = []
        find, where = self.db.collection(MAIN).find, _queued(session["id"])
        for document in all_pages(find, where, limit=PAGE, order_by="position"):
            is_enough = excess <= 0 and document["role"] != "tool"
            if is_enough or len(leaving) >= limit or signs >= MOVE_SIGNS_MAX:
                break
            excess -= document["token_count"]
            signs += len(document["content"])
            leaving.append(document)
        return leaving


def _queued(session_id: str) -> dict[str, Any]:
    return {"session_id": session_id, "context_type": "queue"}


def _as_text(more: Mapping[str, Any]) -> str:
    """To be counted. Raises InvalidDocumentError."""
    try:
        return dumps(more) if more else ""
    except (TypeError, ValueError) as error:
        raise InvalidDocumentError(
            f"no message holds this beside its content: {error}", field="message"
        ) from None


def _message(document: Document) -> dict[str, Any]:
    """As a model is sent it."""
    return {"role": document["role"], "content": document["content"], **document["message"]}


def _without_orphans(documents: list[Document]) -> list[Document]:
    """From the first on that is not the answer of a tool whose call is not there."""
    for at, document in enumerate(documents):
        if document["role"] != "tool":
            return documents[at:]
    return []
