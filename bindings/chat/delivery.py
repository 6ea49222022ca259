"""Delivery: pending turns are sent to the sink, and the outcome is stored in their documents.

    retry_at      when flush_due() tries a pending turn; AT_ONCE until it failed
    refusals      how often the sink refused the turn; at `refusals_max` it is a dead letter
    set_aside_at  of a dead letter, in place of retry_at: only retry_dead_letters() tries it again
    flushed_at    the sink has it; it expires `ttl_seconds` after that

Invariants:
- Delivery is at least once: a turn is marked as flushed after the sink has stored it. After a crash
  in between it is sent to the sink again, with the same id.
- A turn that the sink refuses delays no other. A sink that is down refuses nothing, so no turn is
  set aside because of it, and one flush does not ask it again for every turn.
- Turns that have not failed are sent in the order in which they were saved, whatever the clock is.
- A turn that is deleted while it is being sent is deleted from a sink that can do that.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final, TypedDict, final

from amberdb import Database, Document, Sync, Transaction
from amberdb._shared.queries import has_time
from amberdb.chat.conversations import Conversations
from amberdb.chat.sinks import Sink, can_delete
from amberdb.chat.turns import sent

logger = logging.getLogger("amberdb.chat")

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The retry_at of a turn that has not failed. It is no time of the clock, which may be set back."""
RETRY_S: Final = 30.0
RETRY_MAX_S: Final = 3600.0
"""Pauses before flush_due() tries a turn again: the first one, and the longest."""
REFUSALS_MAX: Final = 8
REASON_MAX: Final = 1000
"""Characters kept of the error of a turn."""

PENDING: Final[Mapping[str, Any]] = has_time("retry_at")
DEAD: Final[Mapping[str, Any]] = has_time("set_aside_at")


class Flushed(TypedDict):
    """The result of flush()."""

    success: bool
    total_pending: int
    flushed_count: int
    failed_count: int


@dataclass(slots=True)
class _Outcome:
    """What the sink did with a batch."""

    failures_max: int
    """After so many calls in a row that failed, it counts as down."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Turns that it does not have, with the reason."""
    named: set[str] = field(default_factory=set[str])
    """Those of them that its result names."""
    alone: set[str] = field(default_factory=set[str])
    """Those of them that it raised for when it got no other turn."""
    failures: int = 0
    """Calls that failed, in a row up to the last one."""
    is_unreachable: bool = False
    is_system_error: bool = False
    """The last error is an OSError, as of a network or a disk."""
    has_stored: bool = False

    @property
    def is_down(self) -> bool:
        """Whether it takes nothing for now."""
        return self.is_unreachable or self.failures >= self.failures_max


@final
class Delivery:
    """The way of turns from the hot tier to a sink."""

    def __init__(
        self,
        db: Database,
        name: str,
        conversations: Conversations,
        *,
        sync: Sync,
        ttl_seconds: int,
        refusals_max: int,
        now: Callable[[], datetime],
    ) -> None:
        self.error: str | None = None
        """The last one of the last attempt."""
        self._db = db
        self._name = name
        self._collection = db[name]
        self._conversations = conversations
        self._sync: Sync = sync
        self._ttl = timedelta(seconds=ttl_seconds)
        self._refusals_max = refusals_max
        self._now = now
        self._flushing = threading.Lock()

    def flush(
        self, sink: Sink | None, batch_size: int, order_by: str, *wheres: Mapping[str, Any]
    ) -> Flushed:
        """Sends the turns of these filters, in batches, until the sink is down."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        with self._flushing:
            counts = [self._collection.count(where) for where in wheres]
            total = sum(counts)
            if sink is None:
                return Flushed(
                    success=not total, total_pending=total, flushed_count=0, failed_count=0
                )
            counted = zip(wheres, counts, strict=True)
            flushed, total = self._flush_all(sink, batch_size, order_by, counted, total)
        failed = total - flushed
        return Flushed(
            success=not failed, total_pending=total, flushed_count=flushed, failed_count=failed
        )

    def send(self, sink: Sink, turn: Document) -> bool:
        """Sends one turn; whether the sink has it."""
        outcome = self._send(sink, [turn])
        self.error = next(iter(outcome.failed.values()), None)
        return not outcome.failed

    # -- inside ------------------------------------------------------------------------------

    def _flush_all(
        self,
        sink: Sink,
        batch_size: int,
        order_by: str,
        counted: Iterable[tuple[Mapping[str, Any], int]],
        total: int,
    ) -> tuple[int, int]:
        """How many turns the sink stored, and of how many: another program may have flushed some
        of `total` meanwhile."""
        flushed, tried, error = 0, 0, None
        for batch in chain.from_iterable(
            self._batches(batch_size, order_by, where, count) for where, count in counted
        ):
            outcome = self._send(sink, batch)
            flushed += sum(turn["id"] not in outcome.failed for turn in batch)
            tried += len(batch)
            error = next(iter(outcome.failed.values()), error)
            if outcome.is_down:
                tried = total
                break
        self.error = error
        return flushed, tried

    def _batches(
        self, size: int, order_by: str, where: Mapping[str, Any], left: int
    ) -> Iterator[list[Document]]:
        """Batches of at most `left` turns, each turn once. A turn that failed moves to a later
        place in the order of `retry_at`, and new turns are left to the next flush."""
        seen: set[str] = set()
        after: str | None = None
        while left:
            page = self._collection.find(where, order_by=order_by, limit=size, after=after)
            batch = [turn for turn in page if turn["id"] not in seen][:left]
            seen.update(turn["id"] for turn in batch)
            left -= len(batch)
            if batch:
                yield batch
            after = page.cursor
            if after is None:
                return

    def _send(self, sink: Sink, turns: Sequence[Document]) -> _Outcome:
        """Sends turns to the sink and stores the outcome in their documents."""
        outcome = _Outcome(failures_max(len(turns)))
        _store(sink, [sent(turn) for turn in turns], outcome)
        if outcome.failed:
            error = next(iter(outcome.failed.values()))
            logger.warning("%d turns were not flushed: %s", len(outcome.failed), error)
        gone = self._mark(turns, outcome, _refused(sink, turns, outcome))
        if gone and can_delete(sink):
            sink.delete(gone)
        return outcome

    def _mark(self, turns: Sequence[Document], outcome: _Outcome, refused: set[str]) -> list[str]:
        """Marks turns as flushed, or as failed by themselves; those that failed with others are as
        before, and so ahead of them in the queue. Returns those that the sink stored and that were
        deleted meanwhile."""
        failed = outcome.failed
        tried = set[str]() if outcome.is_unreachable else outcome.named | outcome.alone
        now = self._now()

        def mark(tx: Transaction) -> list[str]:
            flushed: list[Document] = []
            gone: list[str] = []
            hot = tx[self._name]
            for turn in turns:
                id = turn["id"]
                stored = hot.get(id)
                if stored is None:
                    # Also another buffer may have flushed it, and its time is over.
                    if id not in failed and not self._conversations.known(tx, turn):
                        gone.append(id)
                elif stored.get("flushed_at") is not None:
                    continue  # by another buffer
                elif id in failed:
                    if id in tried:
                        hot.put(self._failed(stored, failed[id], now, is_refused=id in refused))
                else:
                    flushed.append(stored)
                    hot.put(
                        {name: stored[name] for name in stored if name not in _WAITING}
                        | {"flushed_at": now, "expires_at": now + self._ttl, "error": None}
                    )
            self._conversations.add(tx, flushed)
            return gone

        return self._db.run(mark, sync=self._sync)  # if it is lost, the turns are sent again

    def _failed(self, turn: Document, error: str, now: datetime, *, is_refused: bool) -> Document:
        attempts = turn.get("attempts", 0) + 1
        turn |= {"attempts": attempts, "error": error}
        turn["refusals"] = turn.get("refusals", 0) + is_refused
        if turn.get("set_aside_at") is not None:
            return turn
        if turn["refusals"] >= self._refusals_max:
            del turn["retry_at"]
            return turn | {"set_aside_at": now}
        pause_s = RETRY_MAX_S if attempts > 30 else min(RETRY_S * 2 ** (attempts - 1), RETRY_MAX_S)
        return turn | {"retry_at": now + timedelta(seconds=pause_s)}


_WAITING: Final = frozenset({"retry_at", "set_aside_at"})


def failures_max(turns: int) -> int:
    """More than the calls that it takes to find some of so many turns, side by side, by halving."""
    return turns.bit_length() + 4


def _store(sink: Sink, turns: Sequence[Document], outcome: _Outcome) -> None:
    """Stores turns in the sink; when that fails, each half of them, down to the turn that is
    refused, so long as the sink takes any."""
    if outcome.is_down:
        outcome.failed.update(dict.fromkeys((turn["id"] for turn in turns), "the sink is down"))
        return
    try:
        named = sink.store(turns) or {}
    except Exception as error:
        outcome.failures += 1
        outcome.is_unreachable = isinstance(error, ConnectionError | TimeoutError)
        outcome.is_system_error = isinstance(error, OSError)
        if len(turns) == 1 or outcome.is_down:
            reason = f"{type(error).__name__}: {error}"[:REASON_MAX]
            outcome.failed.update(dict.fromkeys((turn["id"] for turn in turns), reason))
            outcome.alone.update(turn["id"] for turn in turns if len(turns) == 1)
            return
        half = len(turns) // 2
        _store(sink, turns[:half], outcome)
        _store(sink, turns[half:], outcome)
        return
    outcome.failures = 0
    outcome.failed.update({id: str(reason)[:REASON_MAX] for id, reason in named.items()})
    outcome.named.update(named)
    outcome.has_stored = outcome.has_stored or len(named) < len(turns)


def _refused(sink: Sink, turns: Sequence[Document], outcome: _Outcome) -> set[str]:
    """The turns of a batch that were refused, by a sink that is up. It is when it has stored
    another one, or answers; an error for all of several turns speaks of the sink."""
    if outcome.is_down or not outcome.failed:
        return set()
    if outcome.has_stored:
        return outcome.named | outcome.alone
    is_lone = len(turns) == 1 and not outcome.is_system_error
    refused = outcome.named | outcome.alone if is_lone else outcome.named
    if refused:
        try:
            sink.load(turns[0]["conversation_id"], 1, None)
        except Exception:
            return set()
    return refused
