"""A chat buffer: turns are acknowledged by the hot tier at once and moved to a sink in batches.

    save_chat -> collection "chat" (pending) -> flush, by hand or on a schedule -> sink
                                             <- load_recent_context: hot turns, then older ones

Invariants:
- A turn that is not in the sink never expires: its time begins when it is flushed.
- At least once: a turn is marked as flushed after the sink has it; a crash in between hands it over
  again, under the same id.
- What the sink refuses stays pending, with the error; the schedule tries it again after a pause
  that doubles.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, final

from amberdb import Database, Document, Ordered, Sync
from amberdb._shared.checks import check_name
from amberdb.chat.sinks import Sink

logger = logging.getLogger("amberdb.chat")

COLLECTION: Final = "chat"
TTL_VARIABLE: Final = "MEMORY_REDIS_TTL_SECONDS"
"""Of the environment: how long flushed turns stay in the hot tier."""
TTL_SECONDS: Final = 172_800
RETRY_S: Final = 30.0
RETRY_MAX_S: Final = 3600.0
"""Pauses of the schedule after a failure: the first one, and the longest."""

_PENDING: Final[Mapping[str, Any]] = {"retry_at": {"$gt": datetime(1970, 1, 1, tzinfo=UTC)}}


class Saved(TypedDict):
    """What save_chat() tells."""

    success: bool
    hot_stored: bool
    sink_stored: bool
    token_count: int
    conversation_id: str
    cid: str
    note: str


class Flushed(TypedDict):
    """What flush() tells."""

    success: bool
    total_pending: int
    flushed_count: int
    failed_count: int


def count_tokens(text: str) -> int:
    """A rough count that needs no model: a Han character is one token, of the rest four letters
    are."""
    han = sum("\u4e00" <= sign <= "\u9fff" for sign in text)
    return han + -(-(len(text) - han) // 4)


@final
class ChatBuffer:
    """Over an open database; threads may share it.

    sink            where turns go; None: they stay pending
    write_through   every turn goes to the sink at once, not only important ones
    sync            of turns that are not important: "interval" survives the death of the process
    ttl_seconds     how long flushed turns stay in the hot tier; by default the environment's
                    MEMORY_REDIS_TTL_SECONDS, or two days
    count_tokens    of a text
    clock           epoch seconds

    Raises ValueError.
    """

    def __init__(
        self,
        db: Database,
        sink: Sink | None = None,
        *,
        write_through: bool = False,
        sync: Sync = "interval",
        ttl_seconds: int | None = None,
        count_tokens: Callable[[str], int] = count_tokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self.sink = sink
        self.write_through = write_through
        self.ttl_seconds = _ttl_seconds() if ttl_seconds is None else ttl_seconds
        self._sync: Sync = sync
        self._count_tokens = count_tokens
        self._clock = clock
        self._flushing = threading.Lock()
        self._error: str | None = None
        self._collection = db.collection(
            COLLECTION,
            indexes=[
                Ordered("conversation_id", "created_at"),
                Ordered("user_id", "created_at"),
                Ordered("retry_at", sparse=True),
            ],
            expires_at="expires_at",
            required={"conversation_id": str, "user_id": str},
        )

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
    ) -> Saved:
        """One turn, kept when this returns. An important one survives power loss, and is handed to
        the sink at once; when that fails it is pending like the others. Raises
        InvalidDocumentError."""
        check_name("conversation_id", conversation_id)
        check_name("user_id", user_id)
        now = self._now()
        tokens = self._count_tokens(user_message) + self._count_tokens(assistant_message)
        turn: Document = {
            "conversation_id": conversation_id,
            "user_id": user_id,
            "user_message": user_message,
            "assistant_message": assistant_message,
            "important": important,
            "token_count": tokens,
            "metadata": dict(metadata or {}),
            "created_at": now,
            "retry_at": now,
            "attempts": 0,
        }
        cid = self._collection.put(turn, sync="always" if important else self._sync)
        is_stored = False
        if self.sink is not None and (important or self.write_through):
            is_stored = self._hand_over([{**turn, "id": cid}]) == 1
        note = "in the sink" if is_stored else "in the hot tier; flush() hands it to the sink"
        return Saved(
            success=True,
            hot_stored=True,
            sink_stored=is_stored,
            token_count=tokens,
            conversation_id=conversation_id,
            cid=cid,
            note=note,
        )

    def load_recent_context(self, conversation_id: str, limit: int = 20) -> list[Document]:
        """The last turns of a conversation, the oldest first: of the hot tier, and where those are
        too few, of the sink."""
        found = list(
            self._collection.find(
                {"conversation_id": conversation_id}, order_by="-created_at", limit=limit
            )
        )
        if len(found) < limit and self.sink is not None:
            before = found[-1]["created_at"] if found else None
            known = {turn["id"] for turn in found}
            older = self.sink.load(conversation_id, limit + len(found), before)
            found += [turn for turn in older if turn["id"] not in known]
        return found[:limit][::-1]

    # -- flushing ----------------------------------------------------------------------------

    def flush(self, batch_size: int = 100) -> Flushed:
        """Hands over all that is pending, in batches; one flush at a time."""
        return self._flush(batch_size, dict(_PENDING))

    def flush_due(self, batch_size: int = 100) -> Flushed:
        """The same, without turns whose pause after a failure is not over."""
        return self._flush(batch_size, {"retry_at": {"$lte": self._now()}})

    def get_stats(self) -> dict[str, Any]:
        """status: "active", or "failing" when the last attempt was refused; the length of the
        queue; how many of it were refused before, and why the last one."""
        return {
            "status": "failing" if self._error else "active",
            "pending_queue_length": self._collection.count(dict(_PENDING)),
            "failed_queue_length": self._collection.count({**_PENDING, "attempts": {"$gt": 0}}),
            "last_error": self._error,
            "ttl_seconds": self.ttl_seconds,
        }

    # -- inside ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _flush(self, batch_size: int, where: Mapping[str, Any]) -> Flushed:
        if batch_size < 1:
            raise ValueError(f"batch_size is a count, not {batch_size!r}")
        total = flushed = 0
        with self._flushing:
            for batch in self._batches(batch_size, where):
                total += len(batch)
                if self.sink is not None:
                    flushed += self._hand_over(batch)
        failed = total - flushed if self.sink is not None else 0
        return Flushed(
            success=not failed and (self.sink is not None or not total),
            total_pending=total,
            flushed_count=flushed,
            failed_count=failed,
        )

    def _batches(self, size: int, where: Mapping[str, Any]) -> Iterator[list[Document]]:
        """Of what is pending now, each turn once: what is refused comes again later in this order,
        and what is said meanwhile is for the next flush."""
        where = {**where, "created_at": {"$lte": self._now()}}
        seen: set[str] = set()
        after: str | None = None
        while True:
            page = self._collection.find(where, order_by="retry_at", limit=size, after=after)
            batch = [turn for turn in page if turn["id"] not in seen]
            seen.update(turn["id"] for turn in batch)
            if batch:
                yield batch
            after = page.cursor
            if after is None:
                return

    def _hand_over(self, turns: Sequence[Document]) -> int:
        """To the sink, and what came of it into the documents; how many it took."""
        assert self.sink is not None
        given = [{name: turn[name] for name in turn if name not in _STATE} for turn in turns]
        try:
            failed = dict(self.sink.store(given))
        except Exception as error:
            failed = dict.fromkeys(
                (turn["id"] for turn in turns), f"{type(error).__name__}: {error}"
            )
        if failed:
            self._error = next(iter(failed.values()))
            logger.warning("%d turns were not flushed: %s", len(failed), self._error)
        else:
            self._error = None
        self._note(turns, failed)
        return sum(turn["id"] not in failed for turn in turns)

    def _note(self, turns: Sequence[Document], failed: Mapping[str, str]) -> None:
        now = self._now()
        with self.db.transaction(sync=self._sync) as tx:  # lost: it is handed over again
            for turn in turns:
                stored = tx[COLLECTION].get(turn["id"])
                if stored is None:
                    continue  # deleted meanwhile
                error = failed.get(turn["id"])
                if error is None:
                    dies = max(stored["created_at"] + timedelta(seconds=self.ttl_seconds), now)
                    stored |= {"flushed_at": now, "expires_at": dies, "error": None}
                    stored.pop("retry_at", None)
                elif "retry_at" in stored:
                    attempts = stored["attempts"] + 1
                    pause_s = min(RETRY_S * 2 ** (attempts - 1), RETRY_MAX_S)
                    stored |= {"attempts": attempts, "error": error}
                    stored["retry_at"] = now + timedelta(seconds=pause_s)
                tx[COLLECTION].put(stored)


_STATE: Final = frozenset({"retry_at", "attempts", "error", "flushed_at", "expires_at"})
"""Fields of the buffer, which a sink is not told."""


def _ttl_seconds() -> int:
    """Raises ValueError."""
    text = os.environ.get(TTL_VARIABLE, str(TTL_SECONDS))
    try:
        found = int(text)
    except ValueError:
        found = 0
    if found < 1:
        raise ValueError(f"{TTL_VARIABLE} is a number of seconds, not {text!r}")
    return found
