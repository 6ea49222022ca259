"""A chat buffer: turns are acknowledged by the hot tier at once and copied to a sink in batches.

    save_chat -> collection "chat" (pending) -> flush, by hand or on a schedule -> sink
                                             <- load_recent_context: hot turns, then older ones

Invariants:
- A turn that is not in the sink never expires: it gets its expiry time when it is flushed.
- Delivery is at least once: a turn is marked as flushed after the sink has stored it. After a crash
  in between it is sent to the sink again, with the same id.
- A turn that the sink rejects stays pending, with the error, and delays no other. flush_due() tries
  it again after a pause that doubles each time.
- Turns are in the order in which they were saved, by `position`, whatever the clock does: its
  microseconds, but above every position that is in the hot tier.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final, TypedDict, final

from amberdb import Database, Document, Ordered, Sync
from amberdb._shared.checks import check_name
from amberdb._shared.clock import utc_now
from amberdb._shared.queries import has_time, having
from amberdb._shared.tokens import count_tokens
from amberdb.chat.sinks import Sink

logger = logging.getLogger("amberdb.chat")

COLLECTION: Final = "chat"
TTL_VARIABLE: Final = "MEMORY_REDIS_TTL_SECONDS"
"""The environment variable that sets how long flushed turns stay in the hot tier."""
TTL_SECONDS: Final = 172_800
RETRY_S: Final = 30.0
RETRY_MAX_S: Final = 3600.0
"""Pauses before flush_due() tries a rejected turn again: the first one, and the longest."""

FAILURES_MAX: Final = 8
"""After so many calls in a row that failed, the sink counts as down: its turns stay whole batches.
One more than it takes to find one turn in a batch of 100 by halving."""
REASON_MAX: Final = 1000
"""Characters kept of the error of a turn."""

_PENDING: Final[Mapping[str, Any]] = has_time("retry_at")


class Saved(TypedDict):
    """The result of save_chat()."""

    success: bool
    hot_stored: bool
    sink_stored: bool
    token_count: int
    conversation_id: str
    cid: str
    note: str


class Flushed(TypedDict):
    """The result of flush()."""

    success: bool
    total_pending: int
    flushed_count: int
    failed_count: int


def nothing() -> None:
    """The default of ChatBuffer.on_saved."""


class Positions:
    """Ascending numbers for all turns that this process saves: its buffers may share a database,
    and the clock may be set back."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last = 0

    def next(self, at_least: int) -> int:
        """A number above all before it."""
        with self._mutex:
            self._last = max(at_least, self._last + 1)
            return self._last


positions: Final = Positions()


@final
class ChatBuffer:
    """A chat buffer over an open database; threads may share it.

    sink            where turns are flushed to; with None they stay pending
    write_through   send every turn to the sink at once, not only important ones
    sync            durability class of turns that are not important; "interval" survives the death
                    of the process
    ttl_seconds     how long flushed turns stay in the hot tier; by default the environment variable
                    MEMORY_REDIS_TTL_SECONDS, or two days
    count_tokens    function from a text to its number of tokens
    clock           function that returns epoch seconds

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
        self.on_saved: Callable[[], None] = nothing
        """Called after save_chat() has stored a turn."""
        self._flushing = threading.Lock()
        self._error: str | None = None
        self._collection = db.collection(
            COLLECTION,
            indexes=[
                Ordered("conversation_id", "position"),
                Ordered("user_id", "created_at"),
                Ordered("position"),
                Ordered("retry_at", sparse=True),
            ],
            expires_at="expires_at",
            required={"conversation_id": str, "user_id": str},
        )
        for newest in self._collection.find(order_by="-position", limit=1, fields=["position"]):
            positions.next(newest.get("position", 0))  # a turn of an earlier version has none

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
        """Stores one turn. An important turn survives power loss and is sent to the sink at once;
        when the sink rejects it, it is pending like the others. Raises InvalidDocumentError."""
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
            "position": positions.next(int(now.timestamp() * 1_000_000)),
            "retry_at": now,
            "attempts": 0,
        }
        cid = self._collection.put(turn, sync="always" if important else self._sync)
        is_stored = False
        if self.sink is not None and (important or self.write_through):
            is_stored = self._send([{**turn, "id": cid}]) == 1
        self.on_saved()
        note = "in the sink" if is_stored else "in the hot tier; flush() sends it to the sink"
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
        """The last turns of a conversation, the oldest first: from the hot tier, and from the sink
        when the hot tier has fewer than `limit`. Raises QueryError."""
        turns = list(
            self._collection.find(
                having(conversation_id=conversation_id), order_by="-position", limit=limit
            )
        )
        if len(turns) < limit and self.sink is not None:
            ids = {turn["id"] for turn in turns}
            older = self.sink.load(conversation_id, limit + len(turns), None)
            turns += [turn for turn in older if turn["id"] not in ids]
        return turns[:limit][::-1]

    # -- flushing ----------------------------------------------------------------------------

    def flush(self, batch_size: int = 100) -> Flushed:
        """Sends all pending turns to the sink, in batches. Concurrent flushes wait for each
        other."""
        return self._flush(batch_size, _PENDING)

    def flush_due(self, batch_size: int = 100) -> Flushed:
        """As flush(), without the turns whose pause after a failure is not over."""
        now = self._now()
        # A time that is later than any pause is of a clock that was ahead.
        longest = now + timedelta(seconds=2 * RETRY_MAX_S)
        return self._flush(batch_size, {"retry_at": {"$lte": now}}, {"retry_at": {"$gt": longest}})

    def get_stats(self) -> dict[str, Any]:
        """status: "active", or "failing" when the sink rejected turns at the last attempt; the
        number of pending turns; how many of them were rejected before; the last error."""
        return {
            "status": "failing" if self._error else "active",
            "pending_queue_length": self._collection.count(dict(_PENDING)),
            "failed_queue_length": self._collection.count({**_PENDING, "attempts": {"$gt": 0}}),
            "last_error": self._error,
            "ttl_seconds": self.ttl_seconds,
        }

    # -- inside ------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return utc_now(self._clock)

    def _flush(self, batch_size: int, *wheres: Mapping[str, Any]) -> Flushed:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        total = flushed = 0
        with self._flushing:
            for batch in chain.from_iterable(self._batches(batch_size, each) for each in wheres):
                total += len(batch)
                if self.sink is not None:
                    flushed += self._send(batch)
        failed = total - flushed if self.sink is not None else 0
        return Flushed(
            success=not failed and (self.sink is not None or not total),
            total_pending=total,
            flushed_count=flushed,
            failed_count=failed,
        )

    def _batches(self, size: int, where: Mapping[str, Any]) -> Iterator[list[Document]]:
        """Batches of as many turns as are pending now, each turn once. A rejected turn moves to a
        later place in the order of `retry_at`, and new turns are left to the next flush."""
        left = self._collection.count(where)
        seen: set[str] = set()
        after: str | None = None
        while left:
            page = self._collection.find(where, order_by="retry_at", limit=size, after=after)
            batch = [turn for turn in page if turn["id"] not in seen][:left]
            seen.update(turn["id"] for turn in batch)
            left -= len(batch)
            if batch:
                yield batch
            after = page.cursor
            if after is None:
                return

    def _send(self, turns: Sequence[Document]) -> int:
        """Sends turns to the sink and stores the outcome in their documents; how many the sink
        stored."""
        content = [{name: turn[name] for name in turn if name not in _STATE} for turn in turns]
        failed: dict[str, str] = {}
        self._store(content, failed, 0)
        if failed:
            self._error = next(iter(failed.values()))
            logger.warning("%d turns were not flushed: %s", len(failed), self._error)
        else:
            self._error = None
        self._mark(turns, failed)
        return sum(turn["id"] not in failed for turn in turns)

    def _store(self, turns: Sequence[Document], failed: dict[str, str], failures: int) -> int:
        """Stores turns in the sink; when that fails, each half of them, down to the turn that is
        refused, so long as the sink takes any. Adds to `failed` the reasons by id; `failures` is
        the number of calls in a row that failed before, and of those after it is returned."""
        assert self.sink is not None
        try:
            failed.update(self.sink.store(turns))
        except Exception as error:
            failures += 1
            if len(turns) == 1 or failures >= FAILURES_MAX:
                reason = f"{type(error).__name__}: {error}"[:REASON_MAX]
                failed.update(dict.fromkeys((turn["id"] for turn in turns), reason))
                return failures
            half = len(turns) // 2
            failures = self._store(turns[:half], failed, failures)
            return self._store(turns[half:], failed, failures)
        return 0

    def _mark(self, turns: Sequence[Document], failed: Mapping[str, str]) -> None:
        """Marks turns as flushed, or as failed with the time of the next attempt."""
        now = self._now()
        with self.db.transaction(sync=self._sync) as tx:  # if it is lost, the turns are sent again
            for turn in turns:
                stored = tx[COLLECTION].get(turn["id"])
                if stored is None:
                    continue  # deleted meanwhile
                error = failed.get(turn["id"])
                if error is None:
                    kept_from = min(stored["created_at"], now)
                    expires_at = max(kept_from + timedelta(seconds=self.ttl_seconds), now)
                    stored |= {"flushed_at": now, "expires_at": expires_at, "error": None}
                    stored.pop("retry_at", None)
                elif "retry_at" in stored:
                    attempts = stored["attempts"] + 1
                    pause_s = min(RETRY_S * 2 ** (attempts - 1), RETRY_MAX_S)
                    stored |= {"attempts": attempts, "error": error}
                    stored["retry_at"] = now + timedelta(seconds=pause_s)
                tx[COLLECTION].put(stored)


_STATE: Final = frozenset({"retry_at", "attempts", "error", "flushed_at", "expires_at"})
"""Fields of the buffer's own; the sink gets a turn without them."""


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
