"""Agent context: the part of a session that a model call gets, within a budget of tokens, and
storage for the rest.

    system, blocks, working, summary, queue -> render() -> messages for a model call
                                      queue -> overflow(): summary hook -> recall storage
                                                           archival storage <- archival_insert()

Invariants:
- Every message has a position in its session; positions have no gaps and never change. Messages
  below `first_position` are in recall storage, the others in the queue, and none is in both.
- System instructions, working context and the newest message always fit the budget, and so does the
  result of render().
- When a move fails, the messages stay in the queue, and the append before it stays committed.
- Within a transaction of the caller no hook and no embedder is called: messages move later.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, final

from amberdb import (
    Database,
    Document,
    Embed,
    Hits,
    Page,
    QueryError,
    Snapshot,
    Transaction,
)
from amberdb._shared.checks import check_str
from amberdb._shared.embedder import Embedder
from amberdb._shared.queries import all_pages
from amberdb._shared.systems import in_transaction
from amberdb._shared.tokens import count_tokens
from amberdb.context.blocks import Blocks, replaced_text, shown
from amberdb.context.conversation import Conversation
from amberdb.context.external import ExternalMemory
from amberdb.context.messages import Message, document_of, message_of, without_orphans
from amberdb.context.overflow import Overflow
from amberdb.context.sessions import Sessions
from amberdb.context.types import (
    PARTS,
    Appended,
    Names,
    Part,
    Summarize,
    check_budget,
    declare,
    part_id,
    queued,
    room_beside_newest,
)

logger = logging.getLogger("amberdb.context")

PAGE: Final = 50


@final
class AgentContext:
    """Agent contexts over an open database; threads may share it.

    name            prefix of its collections, for several agent contexts in one database
    token_budget    the budget of a session that has none, neither its own nor its role's
    keep            the share of the budget that is still used after an overflow
    count_tokens    function from a text to its number of tokens; token_counter("gpt-4o") asks
                    tiktoken where it is installed
    summarize       makes a summary of the messages that leave the queue; None: no summary
    auto_overflow   an append over the budget moves messages before it returns; with False only
                    overflow() moves them
    embed, dim      list of str -> array of shape (n, dim), for vector search of archival memory
    model           the name of the embedder: another one has all texts embedded anew
    clock           function that returns epoch seconds

    Raises CollectionError, InvalidDocumentError, ValueError.
    """

    def __init__(
        self,
        db: Database,
        *,
        name: str | None = None,
        token_budget: int = 8_000,
        keep: float = 0.7,
        count_tokens: Callable[[str], int] = count_tokens,
        summarize: Summarize | None = None,
        auto_overflow: bool = True,
        embed: Embed | None = None,
        dim: int | None = None,
        model: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_budget(token_budget)
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must be between 0 and 1, not {keep!r}")
        self.db = db
        self._names = Names(name)
        embedder = Embedder(embed, dim, model)
        declare(db, self._names, embedder)
        self.sessions = Sessions(
            db, self._names, token_budget=token_budget, count_tokens=count_tokens, clock=clock
        )
        self.blocks = Blocks(self.sessions)
        self.external = ExternalMemory(self.sessions, embedder)
        self._conversation = Conversation(self.sessions)
        self._overflow = Overflow(self.sessions, self.blocks, keep=keep, summarize=summarize)
        self._auto_overflow = auto_overflow

    # -- parts before the messages -----------------------------------------------------------

    def set_system(self, session_id: str, content: str, *, tx: Transaction | None = None) -> None:
        """Replaces the system instructions. Raises MissingKeyError, and InvalidDocumentError when
        they do not fit the budget."""
        check_str("content", content)
        self._set_part(session_id, "system", lambda _: content, tx)

    def set_working(self, session_id: str, content: str, *, tx: Transaction | None = None) -> None:
        """Replaces the working context: facts that every model call gets. Raises as
        set_system()."""
        check_str("content", content)
        self._set_part(session_id, "working", lambda _: content, tx)

    def append_working(
        self, session_id: str, content: str, *, tx: Transaction | None = None
    ) -> None:
        """Adds a line to the working context, whoever else changes it meanwhile. Raises as
        set_system()."""
        check_str("content", content)
        self._set_part(
            session_id, "working", lambda old: f"{old}\n{content}" if old else content, tx
        )

    def replace_working(
        self, session_id: str, old: str, new: str, *, tx: Transaction | None = None
    ) -> None:
        """Replaces every occurrence of a text in the working context, whoever else changes it
        meanwhile; an empty `new` removes it. Raises as set_system(), and InvalidDocumentError when
        the text does not occur."""
        check_str("new", new)
        self._set_part(
            session_id, "working", lambda text: replaced_text("working", text, old, new), tx
        )

    def part(self, session_id: str, part: Part) -> str:
        """The text of "system", "working" or "summary" (of the messages that left the queue); empty
        when it is not set. Raises MissingKeyError, QueryError."""
        self.sessions.get(session_id)
        if part not in PARTS:
            raise QueryError(f"a part is one of {', '.join(PARTS)}, not {part!r}")
        return self._text(self.db, session_id, part)

    def set_token_budget(
        self, session_id: str, token_budget: int, *, tx: Transaction | None = None
    ) -> None:
        """Changes the budget, and moves messages that no longer fit. Raises MissingKeyError,
        InvalidDocumentError."""
        check_budget(token_budget)

        def change(tx: Transaction) -> Document:
            session = {**self.sessions.live(tx, session_id), "token_budget": token_budget}
            room_beside_newest(session)
            tx[self._names.sessions].put({**session, "updated_at": self.sessions.now()})
            return session

        self._make_room(in_transaction(self.db, tx, change), tx is None)

    # -- messages ----------------------------------------------------------------------------

    def append(
        self,
        /,
        session_id: str,
        role: str,
        content: str | Sequence[Any] | None,
        *,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
        **fields: Any,
    ) -> Appended:
        """Appends one message; `fields` are its others, such as tool_calls, tool_call_id or name.
        Raises as extend()."""
        message = {**fields, "role": role, "content": content, "metadata": metadata}
        return self.extend(session_id, [message], tx=tx)

    def extend(
        self, session_id: str, messages: Iterable[Message], *, tx: Transaction | None = None
    ) -> Appended:
        """Appends messages in the form of a model API, in one commit; render() gives them as they
        came. `metadata` of a message is stored and not sent to the model. In a transaction of the
        caller no message moves: the next append or overflow() makes room. Raises MissingKeyError,
        and InvalidDocumentError when a message does not fit the budget beside system instructions
        and working context; then none is stored."""
        now, count = self.sessions.now(), self.sessions.count_tokens
        session = self.sessions.live(self.db if tx is None else tx, session_id)
        documents = [document_of(message, session, now, count) for message in messages]

        def put(tx: Transaction) -> tuple[Document, Sequence[str], int]:
            session = self.sessions.live(tx, session_id)
            return session, *self.sessions.put_messages(tx, session, documents)

        session, ids, first = in_transaction(self.db, tx, put)
        tokens = sum(document["token_count"] for document in documents)
        return Appended(ids, first, tokens, *self._make_room(session, tx is None))

    def queue(self, session_id: str, *, limit: int | None = 100, after: str | None = None) -> Page:
        """Messages that have not moved to recall storage, the oldest first. Raises
        MissingKeyError."""
        self.sessions.get(session_id)
        where = queued(session_id)
        return self.db[self._names.main].find(where, order_by="position", limit=limit, after=after)

    def render(self, session_id: str) -> list[dict[str, Any]]:
        """Messages for a model call, within the budget: one with role "system" that holds system
        instructions, memory blocks, working context and summary; then the newest messages of the
        queue that fit. Blocks and summary are there if they fit beside the newest message. Raises
        MissingKeyError."""
        with self.db.snapshot() as at:
            session = self.sessions.live(at, session_id)
            texts = {part: self._text(at, session_id, part) for part in PARTS}
            left = room_beside_newest(session)
            blocks: list[str] = []
            for block in reversed(self.blocks.seen(at, session)):
                tokens = self.blocks.token_count(block)
                if tokens <= left:
                    left -= tokens
                    blocks.insert(0, shown(block))
            if session["summary_tokens"] <= left:
                left -= session["summary_tokens"]
            else:
                del texts["summary"]
            left += session["newest_tokens"]
            newest: list[Document] = []
            find, where = at[self._names.main].find, queued(session_id)
            for document in all_pages(find, where, limit=PAGE, order_by="-position"):
                left -= document.get("token_count", 0)
                if left < 0:
                    break
                newest.append(document)
        contents = [texts["system"], *blocks, texts["working"], texts.get("summary", "")]
        system = "\n\n".join(filter(None, contents))
        head = [{"role": "system", "content": system}] if system else []
        return head + [message_of(document) for document in without_orphans(newest[::-1])]

    def conversation_search(
        self,
        session_id: str | Sequence[str] | None = None,
        text: str | None = None,
        *,
        query: str | None = None,
        user_id: str | None = None,
        role_name: str | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 10,
        neighbors: bool | None = None,
    ) -> Hits:
        """Full-text search of all messages, those of the queue and those that left it, the best
        first; `roles`: only messages of these, such as ["user"]. The ranks of the two searches are
        fused, as their scores cannot be compared. There are no further pages. The other arguments
        and errors are those of external.recall_search()."""
        return self._conversation.search(
            session_id,
            text,
            query=query,
            user_id=user_id,
            role_name=role_name,
            roles=roles,
            since=since,
            until=until,
            limit=limit,
            neighbors=neighbors,
        )

    # -- overflow ----------------------------------------------------------------------------

    def overflow(self, session_id: str) -> int:
        """Moves the oldest messages to recall storage while the session is over its budget; how
        many this call moved. If another thread is moving messages of the session, it checks the
        budget once more and this call returns 0. Raises MissingKeyError, and any exception of the
        summary hook; then the messages stay in the queue."""
        return self._overflow(session_id)

    # -- inside ------------------------------------------------------------------------------

    def _text(self, at: Database | Snapshot | Transaction, session_id: str, part: Part) -> str:
        document = at[self._names.main].get(part_id(session_id, part))
        return "" if document is None else str(document["content"])

    def _set_part(
        self,
        session_id: str,
        part: Part,
        change: Callable[[str], str],
        tx: Transaction | None,
    ) -> None:
        """Replaces the text of a part by what `change` makes of it."""

        def put(tx: Transaction) -> Document:
            session = self.sessions.live(tx, session_id)
            content = change(self._text(tx, session_id, part))
            session[f"{part}_tokens"] = self.sessions.count_tokens(content)
            room_beside_newest(session)
            now = self.sessions.now()
            self.sessions.put_part(tx, session, part, content, now)
            tx[self._names.sessions].put({**session, "updated_at": now})
            return session

        self._make_room(in_transaction(self.db, tx, put), tx is None)

    def _make_room(self, session: Document, own: bool) -> tuple[int, str | None]:
        """Moves messages after a change that is committed: how many, and the error if that failed.
        An exception would look as if the change had failed. Within a transaction of the caller
        nothing is committed yet, and nothing moves."""
        if not own or not self._auto_overflow:
            return 0, None
        try:
            if self._overflow.excess(session) <= 0:
                return 0, None
            return self.overflow(session["id"]), None
        except Exception as error:
            logger.warning("session %s stays over its budget: %s", session["id"], error)
            return 0, f"{type(error).__name__}: {error}"
