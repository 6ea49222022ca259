"""A recorder: stores what an agent does, in the background.

    record() -> bounded queue -> one task -> store, in batches

Invariants:
- Recording waits for the store only while the queue is full. No event is dropped silently:
  record_nowait() returns False, and close() raises when events could not be stored.
- Events are stored in the order in which they were recorded. A failed write is tried again.
- An event that the store refuses for good delays no other: it is stored with its data as text.
- The caller of a recorded function gets its result or its exception unchanged.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, final
from uuid import uuid4

from amberdb import AmberError, DocumentError
from amberdb.events.event import AgentEvent, EventType
from amberdb.events.in_memory import NullEventStore
from amberdb.events.store import EventStore, Filters, Stats

logger = logging.getLogger("amberdb.events")

QUEUE_SIZE: Final = 1000
BATCH: Final = 100
PAUSE_S: Final = 0.1
"""The pause before the second attempt to store events; it doubles for each further one."""
PAUSE_MAX_S: Final = 30.0
CLOSE_S: Final = 10.0
"""How long close() waits for a store that fails."""

TEXT_MAX: Final = 10_000
"""Characters kept of the data of an event that the store refuses."""
_REFUSALS: Final = (DocumentError, ValueError, TypeError)
"""Errors of the event, not of the store: the same event is refused each time."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class EventsLostError(AmberError):
    """Events were not stored before the recorder was closed; `count` of them."""


@final
@dataclass(slots=True)
class Call:
    """One call of a tool. Set `result` before the block ends."""

    result: Any = None


@final
class Recorder:
    """The recorder of one agent, for one event loop: `async with Recorder(store, "planner") as r`.

    session_id      id of the session; by default a new one
    enable_memory   with False no event is recorded
    queue_size      events that wait for the store at most
    """

    def __init__(
        self,
        store: EventStore,
        agent_name: str,
        *,
        session_id: str | None = None,
        enable_memory: bool = True,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self.store: EventStore = store if enable_memory else NullEventStore()
        self.agent_name = agent_name
        self.session_id = session_id or _new_session()
        self.dropped = 0
        """Events that record_nowait() dropped."""
        self.refused = 0
        """Events that the store refused, also as text."""
        self._enabled = enable_memory
        self._queue: asyncio.Queue[AgentEvent] = asyncio.Queue(queue_size)
        self._task: asyncio.Task[None] | None = None
        self._in_hand = 0
        """Events that the task has taken from the queue and not stored yet."""

    async def __aenter__(self) -> "Recorder":
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def initialize(self) -> None:
        """Opens the store and records AGENT_INIT."""
        await self.store.initialize()
        if self._enabled:
            self._task = asyncio.create_task(self._run())
        await self.record(EventType.AGENT_INIT, {"agent_name": self.agent_name})

    async def close(self) -> None:
        """Stores the events of the queue. Raises EventsLostError when that takes longer than
        CLOSE_S, or the store has refused an event also as text."""
        left = self.refused
        if self._task is not None:
            try:
                await asyncio.wait_for(self._queue.join(), CLOSE_S)
            except TimeoutError:
                left += self._in_hand + self._queue.qsize()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.store.close()
        if left:
            raise EventsLostError(
                f"{left} events were not stored: the log has the error of the store", count=left
            )

    # -- recording ---------------------------------------------------------------------------

    async def record(
        self,
        event_type: EventType,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Records an event; waits only while the queue is full."""
        if self._enabled:
            await self._queue.put(self._event(event_type, data, metadata))

    def record_nowait(
        self,
        event_type: EventType,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Records an event without waiting. When the queue is full it returns False, and the event
        is counted in `dropped` and logged."""
        if self._enabled:
            try:
                self._queue.put_nowait(self._event(event_type, data, metadata))
            except asyncio.QueueFull:
                self.dropped += 1
                logger.warning("the queue is full: a %s event was dropped", event_type.name)
                return False
        return True

    async def user_message(self, message: str) -> None:
        """Records USER_MESSAGE."""
        data = {"message": message, "message_length": len(message)}
        await self.record(EventType.USER_MESSAGE, data)

    async def model_response(
        self, response: str, *, tool_calls_count: int = 0, iterations: int = 1, success: bool = True
    ) -> None:
        """Records MODEL_RESPONSE."""
        data = {
            "response": response,
            "tool_calls_count": tool_calls_count,
            "iterations": iterations,
            "success": success,
        }
        await self.record(EventType.MODEL_RESPONSE, data)

    @asynccontextmanager
    async def tool_call(
        self, tool_name: str, arguments: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Call]:
        """Records TOOL_CALL_START, then TOOL_CALL_SUCCESS with `call.result`, or TOOL_CALL_ERROR
        with the exception, which is raised again."""
        name = {"tool_name": tool_name}
        await self.record(EventType.TOOL_CALL_START, {**name, "arguments": dict(arguments or {})})
        call = Call()
        try:
            yield call
        except BaseException as error:
            data = {**name, "error": str(error), "error_type": type(error).__name__}
            await self.record(EventType.TOOL_CALL_ERROR, data)
            raise
        await self.record(EventType.TOOL_CALL_SUCCESS, {**name, "result": _plain(call.result)})

    def tool(self, function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        """A decorator that records each call of an async function as a tool_call()."""
        name = getattr(function, "__name__", repr(function))

        @functools.wraps(function)
        async def recorded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            arguments = {str(at): _plain(value) for at, value in enumerate(args)}
            arguments |= {key: _plain(value) for key, value in kwargs.items()}
            async with self.tool_call(name, arguments) as call:
                result = await function(*args, **kwargs)
                call.result = result
            return result

        return recorded

    @asynccontextmanager
    async def middleware(self, name: str) -> AsyncGenerator[None]:
        """Records MIDDLEWARE_PRE, and MIDDLEWARE_POST if the block ends without an exception."""
        await self.record(EventType.MIDDLEWARE_PRE, {"middleware": name})
        yield
        await self.record(EventType.MIDDLEWARE_POST, {"middleware": name})

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Wraps a run of the agent: an exception is recorded as AGENT_ERROR and raised again."""
        try:
            yield
        except Exception as error:
            data = {"error": str(error), "error_type": type(error).__name__}
            await self.record(EventType.AGENT_ERROR, data)
            raise

    # -- reading -----------------------------------------------------------------------------

    async def flush(self) -> None:
        """Waits until all events recorded so far are stored."""
        await self._queue.join()

    async def get_memory(
        self,
        *,
        limit: int | None = 100,
        event_type: EventType | None = None,
        session_id: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[AgentEvent]:
        """Events of this agent, the newest first."""
        await self.flush()
        filters = Filters(
            event_type=event_type,
            session_id=session_id,
            agent_name=self.agent_name,
            start_time=start_time,
            end_time=end_time,
        )
        return await self.store.retrieve(filters, limit=limit)

    async def search_memory(self, text: str, *, limit: int = 10) -> list[AgentEvent]:
        """Events of this agent with the words of a text."""
        await self.flush()
        filters = Filters(agent_name=self.agent_name)
        return await self.store.search(text, filters, limit=limit)

    async def get_memory_stats(self) -> Stats:
        """Statistics of the events of this agent."""
        await self.flush()
        return await self.store.get_stats(Filters(agent_name=self.agent_name))

    async def clear_memory(self, session_id: str | None = None) -> int:
        """Deletes the events of one session, or all events of the store; how many."""
        await self.flush()
        return await self.store.clear(session_id=session_id)

    def reset_context(self) -> str:
        """Starts a new session; its id."""
        self.session_id = _new_session()
        return self.session_id

    # -- inside ------------------------------------------------------------------------------

    def _event(
        self,
        event_type: EventType,
        data: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> AgentEvent:
        return AgentEvent(
            agent_name=self.agent_name,
            session_id=self.session_id,
            event_type=event_type,
            data=dict(data or {}),
            metadata=dict(metadata or {}),
        )

    async def _run(self) -> None:
        while True:
            events = [await self._queue.get()]
            while len(events) < BATCH and not self._queue.empty():
                events.append(self._queue.get_nowait())
            self._in_hand = len(events)
            try:
                await self._store(events)
            except _REFUSALS:
                for event in events:
                    await self._store_alone(event)
            self._in_hand = 0
            for _ in events:
                self._queue.task_done()

    async def _store_alone(self, event: AgentEvent) -> None:
        try:
            await self._store([event])
        except _REFUSALS as error:
            logger.warning("event %s is stored as text: %s", event.event_id, error)
            try:
                await self._store([_as_text(event, error)])
            except _REFUSALS:
                self.refused += 1
                logger.exception("event %s cannot be stored", event.event_id)

    async def _store(self, events: Sequence[AgentEvent]) -> None:
        """Stores events; tries again until that succeeds. Raises only what no further attempt can
        change."""
        pause_s = PAUSE_S
        while True:
            try:
                await self.store.store_many(events)
                return
            except _REFUSALS:
                raise
            except Exception as error:
                logger.warning("%d events are not stored yet: %s", len(events), error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _new_session() -> str:
    return uuid4().hex


def _as_text(event: AgentEvent, error: Exception) -> AgentEvent:
    """The event with its names and data as ASCII text, for a store that refuses them."""
    data = {"text": ascii(event.data)[:TEXT_MAX], "error": ascii(str(error))[:TEXT_MAX]}
    return replace(
        event,
        agent_name=event.agent_name.encode("ascii", "backslashreplace").decode(),
        session_id=event.session_id.encode("ascii", "backslashreplace").decode(),
        data=data,
        metadata={},
    )


def _plain(value: Any) -> Any:
    """The value if it is storable, otherwise its repr."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return repr(value)
