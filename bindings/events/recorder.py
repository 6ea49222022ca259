"""A recorder: stores what an agent does, in the background, or with `durable` before it goes on.

Invariants:
- Nothing that is recorded, and nothing that the store does, stops the agent: what cannot be stored
  is replaced or refused by field, and each wait has an end (queue.py).
- No event is dropped silently: record_nowait() returns False, and close() raises when events could
  not be stored.
- The caller of a recorded function gets its result or its exception unchanged.
- The session belongs to the task: what one task begins or resets is none of another task.
"""

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, cast, final
from uuid import uuid4

from amberdb import AmberError, ClosedError, Transaction, TransactionError
from amberdb._shared.storable import text_of
from amberdb.events.collection import AmberEventStore
from amberdb.events.event import AgentEvent, EventType, now
from amberdb.events.in_memory import NullEventStore
from amberdb.events.queue import EventsLostError, EventsPendingError, WriteQueue
from amberdb.events.spans import Span, span
from amberdb.events.store import EventStore, FilterFields, Stats

logger = logging.getLogger("amberdb.events")

QUEUE_SIZE: Final = 1000
CLOSE_S: Final = 10.0
"""How long close() waits for a store that fails."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_sessions: Final[ContextVar[Mapping[str, str]]] = ContextVar("amberdb_sessions")
"""The sessions that tasks have begun, by the id of their recorder."""


@final
@dataclass(slots=True)
class Call:
    """One call of a tool. Set `result` before the block ends."""

    result: Any = None


@final
class Recorder:
    """The recorder of one agent: `async with Recorder(store, "planner") as recorder`. Raises
    ValueError.

    session_id      id of the session of tasks that begin none of their own; by default a new one
    enable_memory   with False no event is recorded
    queue_size      events that wait for the store at most
    durable         record() returns when the event is stored; otherwise when it is in the queue,
                    and an end of the process loses what is in the queue
    """

    def __init__(
        self,
        store: EventStore,
        agent_name: str,
        *,
        session_id: str | None = None,
        enable_memory: bool = True,
        queue_size: int = QUEUE_SIZE,
        durable: bool = False,
    ) -> None:
        if queue_size < 1:
            raise ValueError(f"queue_size must be a number of events above 0, not {queue_size!r}")
        self.store: EventStore = store if enable_memory else NullEventStore()
        self.agent_name = agent_name
        self.durable = durable
        self._enabled = not isinstance(self.store, NullEventStore)
        self._id = uuid4().hex
        self._session_id = session_id or _new_session()
        self._queue = WriteQueue(self.store, queue_size)
        self._is_closed = False

    async def __aenter__(self) -> "Recorder":
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def initialize(self) -> None:
        """Opens the store and records AGENT_INIT."""
        await self.store.initialize()
        self._is_closed = False
        if self._enabled:
            self._queue.start()
        await self._note(EventType.AGENT_INIT, {"agent_name": self.agent_name}, {})

    async def close(self) -> None:
        """Stores the events of the queue. Raises EventsLostError when that takes longer than
        CLOSE_S, or the store has refused an event also as text."""
        self._is_closed = True
        try:
            await self._queue.flush(CLOSE_S)
        except EventsPendingError:
            pass  # they are counted below
        await self._queue.stop()
        await self.store.close()
        if left := self._queue.refused + len(self._queue):
            raise EventsLostError(
                f"{left} events were not stored: the log has the error of the store", count=left
            )

    @property
    def memory_store(self) -> EventStore:
        """The store."""
        return self.store

    @property
    def dropped(self) -> int:
        """Events that were dropped, because the queue was full."""
        return self._queue.dropped

    @property
    def refused(self) -> int:
        """Events that the store refused, also as text."""
        return self._queue.refused

    # -- sessions ----------------------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """The session of this task: the one that it, or the task that has started it, has begun."""
        return _sessions.get({}).get(self._id, self._session_id)

    @session_id.setter
    def session_id(self, session_id: str) -> None:
        _sessions.set({**_sessions.get({}), self._id: session_id})

    def reset_context(self) -> str:
        """Starts a new session, for this task and those that it starts later; its id."""
        self.session_id = _new_session()
        return self.session_id

    @contextmanager
    def session(self, session_id: str | None = None) -> Generator[str]:
        """A block in which this task records into a session: a new one, or the one of an id."""
        outer = self.session_id
        self.session_id = session_id or _new_session()
        try:
            yield self.session_id
        finally:
            self.session_id = outer

    # -- recording ---------------------------------------------------------------------------

    async def record(
        self,
        event_type: EventType | str,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        tx: Transaction | None = None,
    ) -> None:
        """Records an event. It waits while the queue is full, for 10 seconds at most, and with
        `durable` until the event is stored. With `tx`, of an AmberEventStore, the event is stored
        within that transaction, before those that are in the queue.

        Raises InvalidDocumentError, ClosedError; with `durable` EventsPendingError when the store
        has not taken the event in that time, and EventsLostError when it refuses it; with `tx`
        TransactionError.
        """
        if not self._enabled:
            return
        self._check_open()
        event = self._event(event_type, data, metadata)
        if tx is not None:
            await self._with_transactions().store(event, tx=tx)
            return
        entry = self._queue.put(event)
        if self.durable:
            if entry is None:
                raise EventsLostError("the queue is full, and the store takes no event", count=1)
            await self._queue.wait_until_stored(entry)
        elif entry is not None:
            await self._queue.wait_for_room()

    def record_nowait(
        self,
        event_type: EventType | str,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> bool:
        """Records an event without waiting, in any thread, by default of the session of this task
        and of now. When the queue is full it returns False, and the event is counted in `dropped`
        and logged. Raises InvalidDocumentError, ClosedError."""
        if not self._enabled:
            return True
        self._check_open()
        event = self._event(event_type, data, metadata, session_id, timestamp)
        return self._queue.put(event, force=False) is not None

    async def user_message(self, message: str | Sequence[Any]) -> None:
        """Records USER_MESSAGE: a text, or parts."""
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
        with the exception, which is raised again. They are a span (spans.py)."""
        name = {"tool_name": tool_name}
        with span() as made:
            start: dict[str, Any] = {**name, "arguments": {} if arguments is None else arguments}
            await self._note(EventType.TOOL_CALL_START, start, made.begun())
            call = Call()
            try:
                yield call
            except BaseException as error:
                await self._note_error(EventType.TOOL_CALL_ERROR, error, made, name)
                raise
            done = {**name, "result": call.result}
            await self._note(EventType.TOOL_CALL_SUCCESS, done, made.ended())

    def tool(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """A decorator that records each call of a function as tool_call() does. Of a function that
        is not async, the events go into the queue, also with `durable`."""
        name = getattr(function, "__name__", repr(function))
        call_of = _arguments_of(function)
        inner = getattr(function, "__call__", None)  # noqa: B004  # of an object, it may be async
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inner):
            asynchronous = cast(Callable[_P, Awaitable[Any]], function)

            @functools.wraps(function)
            async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                async with self.tool_call(name, call_of(*args, **kwargs)) as call:
                    call.result = await asynchronous(*args, **kwargs)
                return call.result

            return cast(Callable[_P, _T], awaited)

        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with span() as made:
                start = {"tool_name": name, "arguments": call_of(*args, **kwargs)}
                self._put(EventType.TOOL_CALL_START, start, made.begun())
                try:
                    result = function(*args, **kwargs)
                except BaseException as error:
                    data = {"tool_name": name, **_error(error)}
                    self._put(EventType.TOOL_CALL_ERROR, data, made.ended())
                    raise
                done = {"tool_name": name, "result": result}
                self._put(EventType.TOOL_CALL_SUCCESS, done, made.ended())
                return result

        return called

    @asynccontextmanager
    async def middleware(self, name: str) -> AsyncGenerator[None]:
        """Records MIDDLEWARE_PRE, and MIDDLEWARE_POST if the block ends without an exception. They
        are a span."""
        data = {"middleware": name}
        with span() as made:
            await self._note(EventType.MIDDLEWARE_PRE, data, made.begun())
            yield
            await self._note(EventType.MIDDLEWARE_POST, data, made.ended())

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Wraps a run of the agent, as a span: an exception is recorded as AGENT_ERROR and raised
        again."""
        with span() as made:
            try:
                yield
            except Exception as error:
                await self._note_error(EventType.AGENT_ERROR, error, made, {})
                raise

    # -- reading -----------------------------------------------------------------------------

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until all events recorded so far are stored, by default for 10 seconds. Raises
        EventsPendingError when that takes longer."""
        if self._enabled:
            await self._queue.flush(timeout_s)

    async def get_memory(
        self,
        *,
        limit: int | None = 100,
        event_type: EventType | str | None = None,
        session_id: str | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[AgentEvent]:
        """Events of this agent, the newest first. Raises EventsPendingError, as all methods that
        read what was recorded."""
        await self.flush()
        return await self.store.retrieve(
            event_type=event_type,
            session_id=session_id,
            agent_name=self.agent_name,
            start_time=start_time,
            end_time=end_time,
            limit=limit,
        )

    async def search_memory(self, text: str, *, limit: int = 10) -> list[AgentEvent]:
        """Events of this agent with the words of a text."""
        await self.flush()
        return await self.store.search(text, agent_name=self.agent_name, limit=limit)

    async def get_memory_stats(self) -> Stats:
        """Statistics of the events of this agent."""
        await self.flush()
        return await self.store.get_stats(agent_name=self.agent_name)

    async def clear_memory(
        self,
        session_id: str | None = None,
        *,
        end_time: datetime | None = None,
        tx: Transaction | None = None,
    ) -> int:
        """Deletes the events of this agent: of one session, from before a time, or all; how many.
        With `tx`, of an AmberEventStore, within that transaction, and without those that are in the
        queue."""
        of = FilterFields(agent_name=self.agent_name, session_id=session_id, end_time=end_time)
        if tx is not None:
            return await self._with_transactions().clear(tx=tx, **of)
        await self.flush()
        return await self.store.clear(**of)

    # -- inside ------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the recorder is closed: initialize() opens it again")

    def _with_transactions(self) -> AmberEventStore:
        if not isinstance(self.store, AmberEventStore):
            raise TransactionError(
                f"a {type(self.store).__name__} has no transactions: leave tx= out, or record into "
                "an AmberEventStore"
            )
        return self.store

    def _event(
        self,
        event_type: EventType | str,
        data: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        session_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> AgentEvent:
        return AgentEvent(
            agent_name=self.agent_name,
            session_id=self.session_id if session_id is None else session_id,
            event_type=cast(EventType, event_type),  # AgentEvent takes its value and its name too
            data={} if data is None else data,
            metadata={} if metadata is None else metadata,
            timestamp=now() if timestamp is None else timestamp,
        )

    async def _note(
        self, event_type: EventType, data: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """record(), for the events around a call: a failure is logged, and none of the call."""
        try:
            await self.record(event_type, data, metadata=metadata)
        except AmberError as error:
            logger.error("a %s event is not stored: %s", event_type.name, error)

    def _put(
        self, event_type: EventType, data: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """_note() without waiting, also where the queue is full."""
        if self._is_closed:
            logger.error("the recorder is closed: a %s event is not stored", event_type.name)
        elif self._enabled:
            self._queue.put(self._event(event_type, data, metadata))

    async def _note_error(
        self, event_type: EventType, error: BaseException, made: Span, data: Mapping[str, Any]
    ) -> None:
        whole = {**data, **_error(error)}
        if isinstance(error, Exception):
            await self._note(event_type, whole, made.ended())
        else:  # a task that is cancelled does not wait
            self._put(event_type, whole, made.ended())


def _arguments_of(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function that gives the arguments of a call by name."""
    try:
        shape = inspect.signature(function)
    except (TypeError, ValueError):  # of some functions in C
        shape = inspect.Signature()

    def arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return dict(shape.bind(*args, **kwargs).arguments)
        except TypeError:  # the function will say so itself
            return {**{str(at): value for at, value in enumerate(args)}, **kwargs}

    return arguments


def _new_session() -> str:
    return uuid4().hex


def _error(error: BaseException) -> dict[str, str]:
    return {"error": text_of(error), "error_type": type(error).__name__}
