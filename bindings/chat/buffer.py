"""A chat buffer: turns are acknowledged by the hot tier at once and copied to a sink in batches.

    save_chat -> collection "chat" (pending) -> flush, by hand or on a schedule -> sink
                                             <- load_recent_context: the last turns of both tiers

Invariants:
- A turn that is not in the sink never expires: it gets its expiry time when it is flushed.
- Turns are in the order in which they were saved, by `position`, whatever the clock does: its
  microseconds, but above every position before.
- In a transaction of the caller nothing is sent: flush() sends what it has committed.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, final

from amberdb import Database, Document, Ordered, QueryError, Sync, Transaction
from amberdb._shared.checks import check_name, check_str
from amberdb._shared.clock import utc_now
from amberdb._shared.queries import all_pages, having, of_one
from amberdb._shared.search_input import asked
from amberdb._shared.systems import in_transaction, prefixed
from amberdb._shared.tokens import count_tokens
from amberdb.chat.context import BothTiers, Deleted
from amberdb.chat.conversations import Conversation, Conversations
from amberdb.chat.delivery import (
    AT_ONCE,
    DEAD,
    PENDING,
    REFUSALS_MAX,
    RETRY_MAX_S,
    Delivery,
    Flushed,
)
from amberdb.chat.positions import positions_of
from amberdb.chat.sinks import WORDS, Sink, can_search
from amberdb.chat.turns import (
    Turns,
    checked_messages,
    id_of,
    messages_of,
    microseconds,
    tokens_of,
    within,
    words_of,
)

TTL_VARIABLE: Final = "MEMORY_REDIS_TTL_SECONDS"
"""The environment variable that sets how long turns stay in the hot tier after their flush."""
TTL_SECONDS: Final = 172_800


class Saved(TypedDict):
    """The result of save_chat(). Two keys have two names: hot_stored and redis_stored, sink_stored
    and supabase_stored."""

    success: bool
    hot_stored: bool
    redis_stored: bool
    sink_stored: bool
    supabase_stored: bool
    token_count: int
    conversation_id: str
    cid: str
    note: str


def nothing() -> None:
    """The default of ChatBuffer.on_saved."""


@final
class ChatBuffer:
    """A chat buffer over an open database; threads may share it.

    sink            where turns are flushed to; with None they stay pending
    name            a prefix of its collections, for several buffers in one database
    write_through   send every turn to the sink at once, not only important ones
    sync            durability class of turns that are not important; "interval" survives the death
                    of the process
    ttl_seconds     how long turns stay in the hot tier after they were flushed; by default the
                    environment variable MEMORY_REDIS_TTL_SECONDS, or two days
    refusals_max    after so many refusals by the sink a turn is set aside: dead_letters()
    count_tokens    function from a text to its number of tokens
    clock           function that returns epoch seconds

    Raises ValueError, CollectionError.
    """

    def __init__(
        self,
        db: Database,
        sink: Sink | None = None,
        *,
        name: str | None = None,
        write_through: bool = False,
        sync: Sync = "interval",
        ttl_seconds: int | None = None,
        refusals_max: int = REFUSALS_MAX,
        count_tokens: Callable[[str], int] = count_tokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if type(refusals_max) is not int or refusals_max < 1:
            raise ValueError(f"refusals_max must be an int of at least 1, not {refusals_max!r}")
        self.db = db
        self.sink = sink
        self.name = prefixed(name, "chat")
        self.write_through = write_through
        self.ttl_seconds = _ttl_seconds() if ttl_seconds is None else ttl_seconds
        self._sync: Sync = sync
        self.count_tokens = count_tokens
        self._clock = clock
        self.on_saved: Callable[[], None] = nothing
        """Called after save_chat() has stored a turn."""
        self._collection = db.collection(
            self.name,
            indexes=[
                Ordered("conversation_id", "position"),
                Ordered("user_id", "position"),
                Ordered("position"),
                Ordered("retry_at", sparse=True),
                Ordered("set_aside_at", sparse=True),
                WORDS,
            ],
            expires_at="expires_at",
            required={"conversation_id": str, "user_id": str},
            owner="chat",
        )
        self.records = Conversations(db, prefixed(name, "chat_conversations"))
        self.positions = positions_of(db, self.name)
        for newest in self._collection.find(order_by="-position", limit=1, fields=["position"]):
            self.positions.next(newest.get("position") or 0)  # an earlier version made none
        self.positions.next(self.records.last_position())
        self._tiers = BothTiers(db, self.name, self.records)
        self._delivery = Delivery(
            db,
            self.name,
            self.records,
            sync=sync,
            ttl_seconds=self.ttl_seconds,
            refusals_max=refusals_max,
            now=self.now,
        )

    @property
    def redis(self) -> "ChatBuffer":
        """The hot tier, for code that asks `memory_core.redis.get_stats()`: the buffer itself."""
        return self

    def now(self) -> datetime:
        """The clock's time."""
        return utc_now(self._clock)

    # -- turns -------------------------------------------------------------------------------

    def save_chat(
        self,
        user_message: str,
        assistant_message: str,
        conversation_id: str,
        user_id: str,
        *,
        important: bool = False,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> Saved:
        """Stores one turn. An important turn survives power loss and is sent to the sink at once;
        when the sink does not take it, it is pending like the others, and so is one of a
        transaction of the caller, `tx`. Raises InvalidDocumentError, TransactionError."""
        check_str("user_message", user_message)
        check_str("assistant_message", assistant_message)
        turn: Document = {
            "user_message": user_message,
            "assistant_message": assistant_message,
            "token_count": self.count_tokens(user_message) + self.count_tokens(assistant_message),
        }
        return self._save(turn, conversation_id, user_id, important, metadata, tx)

    def save_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        conversation_id: str,
        user_id: str,
        *,
        important: bool = False,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> Saved:
        """Stores one turn that consists of messages as model APIs give them: maps with a `role`,
        and content, tool calls and whatever they have. They are kept as they are, in one piece.
        Otherwise as save_chat()."""
        checked = checked_messages(messages)
        turn: Document = {
            "user_message": words_of(checked, "user"),
            "assistant_message": words_of(checked, "assistant"),
            "messages": checked,
            "token_count": tokens_of(checked, self.count_tokens),
        }
        return self._save(turn, conversation_id, user_id, important, metadata, tx)

    def load_recent_context(
        self, conversation_id: str, limit: int = 20, *, max_tokens: int | None = None
    ) -> Turns:
        """The last turns of a conversation, the oldest first, from both tiers; with `max_tokens` as
        many of them as fit. The sink is asked only when it has a turn that the hot tier has not;
        when it does not answer, `is_complete` of the list is False. Raises QueryError."""
        turns = self._tiers.recent(self.sink, conversation_id, limit)
        if max_tokens is not None:
            if type(max_tokens) is not int:
                raise QueryError(f"max_tokens must be an int, not {max_tokens!r}")
            turns[:] = within(turns, max_tokens, self.count_tokens)
        turns.reverse()
        return turns

    def load_messages(
        self, conversation_id: str, limit: int = 20, *, max_tokens: int | None = None
    ) -> Turns:
        """The messages of load_recent_context(), for a model API: those of save_messages() as they
        were given, others as one of the user and one of the assistant."""
        turns = self.load_recent_context(conversation_id, limit, max_tokens=max_tokens)
        turns[:] = [message for turn in turns for message in messages_of(turn)]
        return turns

    def search(
        self,
        text: str | None = None,
        *,
        query: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        limit: int = 10,
    ) -> Turns:
        """The turns that match words best, the best first, from the hot tier and from a sink that
        can search (CollectionSink). Raises QueryError."""
        asked(text, query)
        where = having(user_id=user_id, conversation_id=conversation_id)
        hits = self._collection.search(text, query=query, where=where, limit=limit)
        found = {hit.id: (hit.score, hit.document) for hit in hits}
        error: str | None = None
        if can_search(self.sink):
            try:
                for score, turn in self.sink.search(text, query, where, limit):
                    found.setdefault(id_of(turn), (score, turn))
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
        best = sorted(found.values(), key=lambda each: each[0], reverse=True)[:limit]
        return Turns((turn for _, turn in best), error)

    # -- conversations and users -----------------------------------------------------------------

    def conversations(self, user_id: str, limit: int = 100) -> list[Conversation]:
        """The conversations of a user, that with the newest turn first. Raises QueryError."""
        where = of_one(user_id=user_id)
        names = ["conversation_id", "user_id", "created_at", "position", "flushed_at"]
        hot = all_pages(self._collection.find, where, fields=names)
        return self.records.of_user(user_id, limit, hot)

    def export(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Iterator[Document]:
        """All turns of a conversation, of a user, or of all, from both tiers, in their order.
        Raises QueryError, and what the sink raises."""
        return self._tiers.all(self.sink, conversation_id, user_id)

    def delete_conversation(
        self, conversation_id: str, *, tx: Transaction | None = None
    ) -> Deleted:
        """Deletes a conversation from both tiers, in batches; called again it goes on after a
        crash. Within `tx` it is one commit, which takes a CollectionSink of the same database.
        Raises QueryError, TransactionError, and what the sink raises."""
        return self._tiers.delete(self.sink, tx, conversation_id=conversation_id)

    def delete_user(self, user_id: str, *, tx: Transaction | None = None) -> Deleted:
        """Deletes all turns of a user, as delete_conversation() does."""
        return self._tiers.delete(self.sink, tx, user_id=user_id)

    # -- flushing ----------------------------------------------------------------------------

    def flush(self, batch_size: int = 100) -> Flushed:
        """Sends all pending turns to the sink, in batches. Concurrent flushes wait for each
        other."""
        return self._delivery.flush(self.sink, batch_size, "retry_at", PENDING)

    def flush_redis_to_supabase(self, batch_size: int = 100) -> Flushed:
        """The same as flush()."""
        return self.flush(batch_size)

    def flush_due(self, batch_size: int = 100) -> Flushed:
        """As flush(), without the turns whose pause after a failure is not over."""
        now = self.now()
        # A time that is later than any pause is of a clock that was ahead.
        longest = now + timedelta(seconds=2 * RETRY_MAX_S)
        due = {"retry_at": {"$lte": max(now, AT_ONCE)}}, {"retry_at": {"$gt": longest}}
        return self._delivery.flush(self.sink, batch_size, "retry_at", *due)

    def dead_letters(self, limit: int = 100) -> list[Document]:
        """The turns that were set aside, after the sink had refused them `refusals_max` times, with
        `error` and `attempts`; the first one first. flush() passes them over, and they stay."""
        return self._collection.find(dict(DEAD), order_by="set_aside_at", limit=limit)

    def retry_dead_letters(
        self, cids: Sequence[str] | None = None, *, batch_size: int = 100
    ) -> Flushed:
        """Sends the turns that were set aside, or some of them, to the sink again. Raises
        QueryError."""
        if isinstance(cids, str | Mapping):
            raise QueryError(f"cids must be a list of ids, not {cids!r}")
        where = dict(DEAD) if cids is None else {**DEAD, "id": {"$in": list(cids)}}
        return self._delivery.flush(self.sink, batch_size, "set_aside_at", where)

    def get_stats(self) -> dict[str, Any]:
        """status: "active", or "failing" when turns failed at the last attempt; the number of
        pending turns; how many of them failed before; of those that were set aside; the last
        error."""
        error = self._delivery.error
        return {
            "status": "failing" if error else "active",
            "pending_queue_length": self._collection.count(dict(PENDING)),
            "failed_queue_length": self._collection.count({**PENDING, "attempts": {"$gt": 0}}),
            "dead_letter_count": self._collection.count(dict(DEAD)),
            "last_error": error,
            "ttl_seconds": self.ttl_seconds,
        }

    # -- inside ------------------------------------------------------------------------------

    def _save(
        self,
        turn: Document,
        conversation_id: str,
        user_id: str,
        important: bool,
        metadata: Mapping[str, Any] | None,
        tx: Transaction | None,
    ) -> Saved:
        check_name("conversation_id", conversation_id)
        check_name("user_id", user_id)
        now = self.now()
        turn |= {
            "conversation_id": conversation_id,
            "user_id": user_id,
            "important": important,
            "metadata": dict(metadata or {}),
            "created_at": now,
            "retry_at": AT_ONCE,
            "attempts": 0,
        }

        def put(tx: Transaction) -> str:
            turn["position"] = self._position(tx, conversation_id, microseconds(now))
            return tx[self.name].put(turn)

        cid = in_transaction(self.db, tx, put, "always" if important else self._sync)
        is_stored = False
        if tx is None:
            if self.sink is not None and (important or self.write_through):
                is_stored = self._delivery.send(self.sink, {**turn, "id": cid})
            self.on_saved()
        note = "in the sink" if is_stored else "in the hot tier; flush() sends it to the sink"
        return Saved(
            success=True,
            hot_stored=True,
            redis_stored=True,
            sink_stored=is_stored,
            supabase_stored=is_stored,
            token_count=turn["token_count"],
            conversation_id=conversation_id,
            cid=cid,
            note=note,
        )

    def _position(self, tx: Transaction, conversation_id: str, at_least: int) -> int:
        """The position of a turn that is saved now, in the order of the commits."""
        self.records.lock(tx, conversation_id)
        if not tx.runs_alone:  # another machine may have saved the last turn, by its own clock
            last: Any = tx[self.name].max("position", of_one(conversation_id=conversation_id))
            at_least = max(at_least, 0 if last is None else last + 1)
        return self.positions.next(at_least)


def _ttl_seconds() -> int:
    """The TTL that the environment sets, or the default. Raises ValueError."""
    text = os.environ.get(TTL_VARIABLE, str(TTL_SECONDS))
    try:
        seconds = int(text)
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise ValueError(f"{TTL_VARIABLE} must be a number of seconds above 0, not {text!r}")
    return seconds
