"""Events on their way to a store: a bounded queue, and the task that empties it.

    put() -> queue -> one task -> store.store_many(), in batches

A batch that the store refuses is halved until the event that it does not take is alone: that one is
stored as text, or counted in `refused`. A store that fails is asked again, ever more rarely; if it
takes the text of the first event meanwhile, or a later event, the failure is of the first event.

Invariants:
- Events are stored in the order of put(); only one that is out of the ordinary is passed.
- An event leaves the queue when it is stored, or counted in `refused`. None waits for ever: each
  wait has an end, whatever the store does.
- put() can be called in any thread.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final, final

from amberdb import AmberError, DocumentError, TransactionTooLargeError
from amberdb.events.event import AgentEvent
from amberdb.events.store import EventStore

logger = logging.getLogger("amberdb.events")

BATCH: Final = 100
PAUSE_S: Final = 0.1
"""The pause before the second attempt to store events; it doubles for each further one."""
PAUSE_MAX_S: Final = 30.0
ATTEMPTS: Final = 2
"""Attempts with all events, before the first is tried alone, then its text, then a later one."""
WAIT_S: Final = 10.0
"""How long a call waits for a store that does not store."""

TEXT_MAX: Final = 10_000
"""Characters kept of the data of an event that the store refuses."""
_REFUSALS: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Errors of the event, not of the store: the same event is refused each time."""


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, AmberError):
        return isinstance(error, DocumentError | TransactionTooLargeError)
    return isinstance(error, _REFUSALS)


class EventsLostError(AmberError):
    """Events that will not be stored; `count` of them."""


class EventsPendingError(AmberError):
    """Events are not stored yet; `count` of them. They stay in the queue."""


@final
@dataclass(slots=True, eq=False)
class Entry:
    """An event in the queue; `refusal` is set when it left the queue without being stored."""

    event: AgentEvent
    number: int
    is_done: bool = False
    refusal: Exception | None = None


@final
class WriteQueue:
    """The queue of one recorder. start() and stop() are called in the event loop of its task."""

    def __init__(self, store: EventStore, size: int) -> None:
        self.dropped = 0
        self.refused = 0
        self._store = store
        self._size_max = size
        self._entries: deque[Entry] = deque()
        self._numbers = 0
        self._is_stuck = False
        """A call has waited in vain for room: no other waits, until an event is stored."""
        self._batch = BATCH
        self._mutex = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_running(self) -> bool:
        """Whether the task that empties the queue runs."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Starts the task, in the running event loop."""
        if not self.is_running:
            self._loop = asyncio.get_running_loop()
            self._wake = asyncio.Event()
            self._wake.set()
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _: self._changed())

    async def stop(self) -> None:
        """Ends the task; what is not stored stays in the queue."""
        if self._task is not None and self.is_running:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=WAIT_S)
        self._task = None

    # -- any thread --------------------------------------------------------------------------

    def put(self, event: AgentEvent, *, force: bool = True) -> Entry | None:
        """Appends an event; None when the queue is full, and `force` is not set or earlier calls
        have waited in vain: the event is dropped, counted and logged."""
        with self._mutex:
            if len(self._entries) >= self._size_max and (self._is_stuck or not force):
                self.dropped += 1
                entry = None
            else:
                self._numbers += 1
                entry = Entry(event, self._numbers)
                self._entries.append(entry)
        if entry is None:
            logger.warning("the queue is full: a %s event was dropped", event.event_type.name)
        else:
            self._awake()
        return entry

    async def wait_for_room(self) -> None:
        """Waits while more events wait than the queue has room for, for WAIT_S at most."""
        if not await self._wait(lambda: len(self._entries) <= self._size_max, WAIT_S):
            self._is_stuck = True
            logger.error("the queue is full, and the store has taken nothing for %s s", WAIT_S)

    async def wait_until_stored(self, entry: Entry) -> None:
        """Waits until an event is stored. Raises EventsPendingError, EventsLostError."""
        if not await self._wait(lambda: entry.is_done, WAIT_S, is_task_needed=True):
            raise self._pending()
        if entry.refusal is not None:
            raise EventsLostError(
                f"the event was not stored, because the store refuses it: {entry.refusal}", count=1
            ) from entry.refusal

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until all events that are in the queue now have left it, for WAIT_S where no time
        is given. Raises EventsPendingError."""
        last = self._numbers

        def is_flushed() -> bool:
            return not self._entries or self._entries[0].number > last

        limit_s = WAIT_S if timeout_s is None else timeout_s
        if not await self._wait(is_flushed, limit_s, is_task_needed=True):
            raise self._pending()

    def _pending(self) -> EventsPendingError:
        count = len(self._entries)
        advice = "the log has the error of the store, and they are tried again"
        if not self.is_running:
            advice = "the recorder is not open, call initialize()"
        return EventsPendingError(f"{count} events are not stored yet: {advice}", count=count)

    async def _wait(
        self, is_met: Callable[[], bool], timeout_s: float, *, is_task_needed: bool = False
    ) -> bool:
        """Waits for a condition; whether it is met."""
        end = time.monotonic() + timeout_s
        while True:
            with self._mutex:
                if is_met():
                    return True
                left_s = end - time.monotonic()
                if left_s <= 0 or (is_task_needed and not self.is_running):
                    return False
                change: Future[None] = Future()
                self._waiting.append(change)
            try:
                await asyncio.wait_for(asyncio.wrap_future(change), left_s)
            except TimeoutError:
                pass

    def _awake(self) -> None:
        try:
            if asyncio.get_running_loop() is self._loop:
                self._wake.set()
                return
        except RuntimeError:  # a thread without an event loop
            pass
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # closed: start() in another loop goes on
                pass

    def _changed(self) -> None:
        with self._mutex:
            waiting, self._waiting = self._waiting, []
        for change in waiting:
            if change.set_running_or_notify_cancel():
                change.set_result(None)

    # -- the task ----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            attempts, pause_s = 0, PAUSE_S
            while self._entries:
                error = await self._advance(attempts)
                if error is None:
                    attempts, pause_s = 0, PAUSE_S
                    continue
                attempts += 1
                logger.warning("%d events are not stored yet: %s", len(self._entries), error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _advance(self, attempts: int) -> Exception | None:
        """Moves at least one event out of the queue, or returns the error of the store."""
        count = 1 if attempts >= ATTEMPTS else min(self._batch, len(self._entries))
        entries = [self._entries[at] for at in range(count)]
        error = await self._stored([entry.event for entry in entries])
        if error is None:
            self._batch = min(2 * count, BATCH)
            self._leave(entries)
            return None
        if _is_refusal(error):
            if count == 1:
                return await self._refuse(entries[0], error)
            self._batch = count // 2
            return None
        return await self._refuse(entries[0], error) if attempts >= ATTEMPTS else error

    async def _takes_another(self) -> bool:
        """Whether the store takes an event that came later than the first."""
        count = len(self._entries)
        later = sorted({1, count // 2, count - 1} & set(range(1, count)))
        for entry in [self._entries[at] for at in later]:
            if await self._stored([entry.event]) is None:
                self._leave([entry])
                return True
        return False

    async def _refuse(self, entry: Entry, error: Exception) -> Exception | None:
        """Stores an event that the store does not take as text, or counts it; the error of a store
        that takes no other event either."""
        event = entry.event
        again = await self._stored([_as_text(event, error)])
        if again is not None and not _is_refusal(again) and not await self._takes_another():
            return again
        if not _is_refusal(error) and await self._stored([event]) is None:
            again = None  # the store was down, and takes the event itself now
        elif again is None:
            logger.warning("event %s was stored as text: %s", event.event_id, error)
        else:
            self.refused += 1
            entry.refusal = again
            logger.error("event %s cannot be stored: %s", event.event_id, again)
        self._leave([entry])
        return None

    async def _stored(self, events: Sequence[AgentEvent]) -> Exception | None:
        """Stores events; the error, if there is one."""
        try:
            count = await self._store.store_many(events)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return RuntimeError("the store was cancelled")
        except Exception as error:
            return error
        if count < len(events):
            return ValueError(f"the store has kept {count} of {len(events)} events")
        return None

    def _leave(self, entries: Sequence[Entry]) -> None:
        with self._mutex:
            for entry in entries:
                self._entries.remove(entry)
                entry.is_done = True
            self._is_stuck = False
        self._changed()


def _as_text(event: AgentEvent, error: Exception) -> AgentEvent:
    """The event with its names and data as ASCII text, for a store that refuses them."""
    return replace(
        event,
        agent_name=event.agent_name.encode("ascii", "backslashreplace").decode(),
        session_id=event.session_id.encode("ascii", "backslashreplace").decode(),
        data={"text": ascii(event.data)[:TEXT_MAX], "error": ascii(str(error))[:TEXT_MAX]},
        metadata={},
    )
