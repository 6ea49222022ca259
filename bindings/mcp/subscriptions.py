"""Who is told which resource has changed, from the change feed of the database.

    resources/subscribe      until 2025-11-25: a notification to the session
    subscriptions/listen     since 2026-07-28: an event on the stream of the request

Invariants:
- Changes are those of the database, whoever made them: a tool, another client, another program.
- While nobody has subscribed, the feed is not read.
- A reader that falls behind the log is told that everything may have changed.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, final

from amberdb import AmberError, LogTruncatedError, Lsn, aio
from amberdb.mcp.answers import ToolError
from amberdb.mcp.resources import touched
from amberdb.mcp.store import OpenedStore, Store
from mcp.server import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.types import SubscriptionsListenRequestParams, SubscriptionsListenResult

SESSIONS_MAX: Final = 256
URIS_MAX: Final = 1_000
"""Resources that one session may subscribe to."""
RETRY_S: Final = 1.0
_SESSION_HEADER: Final = "mcp-session-id"
_LOG: Final = logging.getLogger("amberdb.mcp")


@final
class Subscriptions:
    """The subscriptions of all clients of one server."""

    def __init__(self, opened: OpenedStore) -> None:
        self._opened = opened
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._listened: Counter[str] = Counter()
        self._sessions: OrderedDict[str, tuple[ServerSession, set[str]]] = OrderedDict()
        self._is_wanted = asyncio.Event()
        self._is_followed = asyncio.Event()
        self._changed: set[str] = set()
        self._has_changed = asyncio.Event()

    # -- clients -----------------------------------------------------------------------------

    async def subscribe(self, ctx: ServerRequestContext[Any, Any], uri: str) -> None:
        """Subscribes the session of a request: to every change that is made after this returns.
        Raises ToolError, and as OpenedStore.database() does."""
        await self._be_followed()
        key = _session_of(ctx)
        _, uris = self._sessions.pop(key, (ctx.session, set[str]()))
        self._sessions[key] = ctx.session, uris
        if len(uris) >= URIS_MAX and uri not in uris:
            raise ToolError(f"more than {URIS_MAX} subscriptions: unsubscribe from some")
        uris.add(uri)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def unsubscribe(self, ctx: ServerRequestContext[Any, Any], uri: str) -> None:
        """Ends a subscription; one that is not there is ignored."""
        _, uris = self._sessions.get(_session_of(ctx), (None, set[str]()))
        uris.discard(uri)

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answers subscriptions/listen: one call is one stream of events. Raises as
        OpenedStore.database() does."""
        await self._be_followed()
        with self._listening(params.notifications.resource_subscriptions or []):
            return await self._listen(ctx, params)

    # -- the feed ----------------------------------------------------------------------------

    async def follow(self) -> None:
        """Reads the feed and tells the subscribers, until it is cancelled."""
        telling = asyncio.create_task(self._tell())
        try:
            await self._is_wanted.wait()
            while True:
                try:
                    await self._read(*await self._opened.database())
                except (AmberError, OSError, ToolError) as error:
                    _LOG.debug("the change feed is not read: %s", error)
                finally:
                    self._is_followed.clear()
                await asyncio.sleep(RETRY_S)  # the database is closed, or cannot be opened
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _read(self, db: aio.Database, store: Store) -> None:
        since: Lsn = await db.refresh()
        self._is_followed.set()
        while True:
            try:
                async for change in db.changes(since, follow=True):
                    since = change.lsn
                    self._mark(touched(store, change, self._uris()))
                return
            except LogTruncatedError as error:
                since = error.resume
                self._mark(self._uris())

    def _mark(self, uris: Any) -> None:
        if uris:
            self._changed.update(uris)
            self._has_changed.set()

    async def _tell(self) -> None:
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            uris, self._changed = self._changed, set()
            for uri in sorted(uris):
                await self._bus.publish(ResourceUpdated(uri))
                for key, (session, wanted) in list(self._sessions.items()):
                    if uri in wanted:
                        await self._send(key, session, uri)

    async def _send(self, key: str, session: ServerSession, uri: str) -> None:
        try:
            await session.send_resource_updated(uri)
        except Exception as error:  # whatever the transport of a client that is gone raises
            _LOG.debug("a subscriber is gone: %s", error)
            self._sessions.pop(key, None)

    async def _be_followed(self) -> None:
        """Waits until the feed is read, so that no later change is missed."""
        await self._opened.database()
        self._is_wanted.set()
        await self._is_followed.wait()

    def _uris(self) -> set[str]:
        """Every resource that somebody has subscribed to."""
        return set(self._listened).union(*(uris for _, uris in self._sessions.values()))

    @contextmanager
    def _listening(self, uris: list[str]) -> Generator[None]:
        self._listened.update(uris)
        try:
            yield
        finally:
            self._listened.subtract(uris)
            self._listened += Counter()  # without those that nobody listens to


def _session_of(ctx: ServerRequestContext[Any, Any]) -> str:
    """What tells the sessions of a server apart; over stdio there is one."""
    return "" if ctx.request is None else ctx.request.headers.get(_SESSION_HEADER, "")
