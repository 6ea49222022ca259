"""A recorder: what an agent does, written down beside it.

    record() -> bounded queue -> one task -> store, in batches

Invariants:
- Recording waits for the store only while the queue is full. Nothing is dropped in silence:
  record_nowait() says so, and close() raises when events could not be stored.
- Events are stored in the order in which they were recorded. A store that fails is tried again.
- What the recorded call returns or raises is what its caller gets.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, final
from uuid import uuid4

from amberdb import AmberError
from amberdb.events.event import AgentEvent, EventStore, EventType, Filters, Stats
from amberdb.events.in_memory import NullEventStore

logger = logging.getLogger("amberdb.events")

QUEUE_SIZE: Final = 1000
BATCH: Final = 100
PAUSE_S: Final = 0.1
"""Before the second attempt to store; twice as long before each one after it."""
PAUSE_MAX_S: Final = 30.0
CLOSE_S: Final = 10.0
"""How long close() waits for a store that fails."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class EventsLostError(AmberError):
    """The store did not take events before the recorder was closed (`count`)."""


@final
@dataclass(slots=True)
class Call:
    """One call of a tool: set `result` before it ends."""

    result: Any = None


@final
class Recorder:
    """Of one agent; used in one event loop, between initialize() and close().

    enable_memory   False: nothing is recorded
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
        """By record_nowait()."""
        self._enabled = enable_memory
        self._queue: asyncio.Queue[AgentEvent] = asyncio.Queue(queue_size)
        self._task: asyncio.Task[None] | None = None
        self._in_hand = 0
        """Events that the task has taken out of the queue and not stored yet."""

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
        """Stores what is left. Raises EventsLostError when that cannot be done in CLOSE_S."""
        left = 0
        if self._task is not None:
            try:
                await asyncio.wait_for(self._queue.join(), CLOSE_S)
            except TimeoutError:
                left = self._in_hand + self._queue.qsize()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.store.close()
        if left:
            raise EventsLostError(f"{left} events were not stored: see the log for why", count=left)

    # -- recording ---------------------------------------------------------------------------

    async def record(
        self,
        event_type: EventType,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Waits only while the queue is full."""
        if self._enabled:
            await self._queue.put(self._event(event_type, data, metadata))

    def record_nowait(
        self,
        event_type: EventType,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> bool:
        """Never waits: False, counted and told in the log, when the queue is full."""
        if self._enabled:
            try:
                self._queue.put_nowait(self._event(event_type, data, metadata))
            except asyncio.QueueFull:
                self.dropped += 1
                logger.warning("the queue is full: an event %s was dropped", event_type.name)
                return False
        return True

    async def user_message(self, message: str) -> None:
        data = {"message": message, "message_length": len(message)}
        await self.record(EventType.USER_MESSAGE, data)

    async def model_response(
        self, response: str, *, tool_calls_count: int = 0, iterations: int = 1, success: bool = True
    ) -> None:
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
        """Start, then success with `call.result`, or the error, which goes on to the caller."""
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
        """A decorator: each call of the function is a tool_call()."""
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
        """MIDDLEWARE_PRE, and MIDDLEWARE_POST when it has ended well."""
        await self.record(EventType.MIDDLEWARE_PRE, {"middleware": name})
        yield
        await self.record(EventType.MIDDLEWARE_POST, {"middleware": name})

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Around all that an agent does: an error is an AGENT_ERROR, and goes on to the caller."""
        try:
            yield
        except Exception as error:
            data = {"error": str(error), "error_type": type(error).__name__}
            await self.record(EventType.AGENT_ERROR, data)
            raise

    # -- reading -----------------------------------------------------------------------------

    async def flush(self) -> None:
        """Returns when everything recorded so far is stored."""
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
        """What was recorded, the latest first."""
        await self.flush()
        filters = Filters(
            event_type=event_type,
            session_id=session_id,
            agent_name=self.agent_name,
            start_time=start_time,
            end_time=end_time,
        )
        return await self.store.retrieve(filters, limit=limit)

    async def search_memory(self, query: str, *, limit: int = 10) -> list[AgentEvent]:
        await self.flush()
        filters = Filters(agent_name=self.agent_name)
        return await self.store.search(query, filters, limit=limit)

    async def get_memory_stats(self) -> Stats:
        await self.flush()
        return await self.store.get_stats(Filters(agent_name=self.agent_name))

    async def clear_memory(self, session_id: str | None = None) -> int:
        """Of one session, or everything."""
        await self.flush()
        return await self.store.clear(session_id=session_id)

    def reset_context(self) -> str:
        """A new session; its id."""
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
            pause_s = PAUSE_S
            while True:
                try:
                    await self.store.store_many(events)
                    break
                except Exception as error:
                    logger.warning("%d events are not stored yet: %s", len(events), error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)
            self._in_hand = 0
            for _ in events:
                self._queue.task_done()


def _new_session() -> str:
    return uuid4().hex


def _plain(value: Any) -> Any:
    """What a document can hold; else its repr."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return repr(value)
