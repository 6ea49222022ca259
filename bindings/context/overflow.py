"""Overflow: the oldest messages of a queue move to recall storage while a session is over its
budget.

Invariants:
- Messages move in one commit, together with the summary made of them and the session's counts. The
  summary hook runs before that commit, outside transactions.
- One thread moves messages of a session; another one that asks meanwhile makes it look again.
- A call and the answers to it leave together. Only a call whose answers are the newest messages,
  and do not fit the budget with it, leaves alone.
"""

import threading
from collections.abc import Sequence
from typing import Final, final

from amberdb import Document, InvalidDocumentError, Transaction
from amberdb._shared.checks import check_name
from amberdb._shared.queries import all_pages
from amberdb.context.blocks import Blocks
from amberdb.context.messages import with_beginnings
from amberdb.context.sessions import Sessions
from amberdb.context.types import (
    Summarize,
    part_id,
    queued,
    room_beside_newest,
    tokens_used,
)

MOVE_MAX: Final = 200
MOVE_CHARACTERS_MAX: Final = 4_000_000
"""The most messages, and about the most text, that one commit moves and one summary covers."""
PAGE: Final = 50


@final
class Overflow:
    """The overflow of an AgentContext; threads may share it."""

    def __init__(
        self, sessions: Sessions, blocks: Blocks, *, keep: float, summarize: Summarize | None
    ) -> None:
        self._db = sessions.db
        self._names = sessions.names
        self._sessions = sessions
        self._blocks = blocks
        self._keep = keep
        self._summarize = summarize
        self._moving: dict[str, bool] = {}
        """Sessions whose messages a thread is moving; True when another thread asked for it
        since."""
        self._mutex = threading.Lock()

    def excess(self, session: Document) -> int:
        """The tokens of a session that are over its budget; not above 0 when it fits."""
        used = tokens_used(session) + self._blocks.tokens(self._db, session)
        return int(used - session["token_budget"])

    def __call__(self, session_id: str) -> int:
        """As AgentContext.overflow()."""
        check_name("session_id", session_id)
        with self._mutex:
            if session_id in self._moving:
                self._moving[session_id] = True
                return 0
            self._moving[session_id] = False
        try:
            session = self._sessions.get(session_id)
            first = session["first_position"]
            while True:
                if self.excess(session) <= 0 or not self._move(session):
                    with self._mutex:
                        if not self._moving[
                            session_id
                        ]:  # no other thread asked since `session` was read
                            del self._moving[session_id]
                            return int(session["first_position"] - first)
                        self._moving[session_id] = False
                session = self._sessions.get(session_id)
        except BaseException:
            with self._mutex:
                self._moving.pop(session_id, None)
            raise

    def _move(self, session: Document) -> bool:
        """Moves the oldest messages that are over the budget, up to a limit; False when no message
        can move. Does nothing when another AgentContext moved messages meanwhile."""
        leaving = self._leaving(session)
        if not leaving:
            return False
        summary, tokens = "", session["summary_tokens"]
        if self._summarize is not None:
            id = part_id(session["id"], "summary")
            last = self._db[self._names.main].get(id)
            summary = self._summarize("" if last is None else last["content"], leaving)
            tokens = self._sessions.count_tokens(summary)
            room = room_beside_newest(session) + session["newest_tokens"]
            if tokens > room:
                raise InvalidDocumentError(
                    f"the summary has {tokens} tokens, and the budget leaves {room}: make it "
                    "shorter, or raise the budget with set_token_budget()",
                    field="summary",
                )
        now = self._sessions.now()

        def move(tx: Transaction) -> None:
            current = self._sessions.live(tx, session["id"])
            if current["first_position"] != session["first_position"]:
                return
            current["first_position"] += len(leaving)
            current["queue_tokens"] -= sum(document.get("token_count", 0) for document in leaving)
            current["summary_tokens"] = tokens
            for document in leaving:
                tx[self._names.main].delete(document["id"])
            tx[self._names.recall].put_many(leaving)
            if self._summarize is not None:
                self._sessions.put_part(tx, current, "summary", summary, now)
            tx[self._names.sessions].put({**current, "updated_at": now})

        self._db.run(move)
        return True

    def _leaving(self, session: Document) -> Sequence[Document]:
        """The messages that have to leave the queue, the oldest first; never the newest one."""
        excess = self.excess(session)
        goal = excess + session["token_budget"] - int(session["token_budget"] * self._keep)
        newest = session["next_position"] - session["first_position"] - 1
        limit = min(MOVE_MAX, newest)
        moved = characters = 0
        leaving: list[Document] = []
        whole = whole_moved = 0  # up to the last place that does not part a call and its answers
        find, where = self._db[self._names.main].find, queued(session["id"])
        queue = all_pages(find, where, limit=PAGE, order_by="position")
        for document, begins in with_beginnings(queue):
            if begins:
                whole, whole_moved = len(leaving), moved
            is_enough = moved >= goal and begins
            if is_enough or len(leaving) >= limit or characters >= MOVE_CHARACTERS_MAX:
                break
            moved += document.get("token_count", 0)
            characters += len(document["content"])
            leaving.append(document)
        if whole and (len(leaving) < newest or whole_moved >= excess):
            return leaving[:whole]
        return leaving
