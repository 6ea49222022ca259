"""The database of the HTTP server with its systems, and what all routes need of a request.

Invariants:
- Layered memory and the chat buffer are opened with the server, any other system by the first
  request for it: a database that has a collection of its name is served without that system.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar, cast, final

import msgspec
from fastapi import Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

import amberdb
from amberdb import Embed, aio
from amberdb._shared.systems import prefixed
from amberdb.chat.aio import ChatBuffer
from amberdb.context.aio import AgentContext, open_agent_context
from amberdb.events import AmberEventStore
from amberdb.events.collection import COLLECTION as EVENTS
from amberdb.graph.aio import KnowledgeGraph, open_knowledge_graph
from amberdb.memory.aio import Memory
from amberdb.profiles.aio import UserProfiles, open_user_profiles
from amberdb.profiles.profiles import COLLECTION as PROFILES

S = TypeVar("S")

LIMIT_MAX = 1_000


@final
class Service:
    """The database and its systems, for the routes."""

    def __init__(
        self,
        db: aio.Database,
        memory: Memory,
        buffer: ChatBuffer,
        *,
        name: str | None = None,
        embed: Embed | None = None,
        dim: int | None = None,
        model: str | None = None,
    ) -> None:
        self.db = db
        self.memory = memory
        self.buffer = buffer
        self._name = name
        self._embed = embed
        self._dim = dim
        self._model = model
        self._opened: dict[object, object] = {}
        self._opening = asyncio.Lock()

    async def context(self) -> AgentContext:
        """Agent context. Raises CollectionError."""
        return await self._once(
            AgentContext,
            lambda: open_agent_context(
                self.db, name=self._name, embed=self._embed, dim=self._dim, model=self._model
            ),
        )

    async def events(self) -> AmberEventStore:
        """Events of agents. Raises CollectionError."""
        name = prefixed(self._name, EVENTS)
        return await self._once(
            AmberEventStore, lambda: self.db.in_thread(AmberEventStore, self.db.blocking, name=name)
        )

    async def graph(self) -> KnowledgeGraph:
        """The knowledge graph. Raises CollectionError."""
        name = prefixed(self._name, "graph")
        return await self._once(
            KnowledgeGraph,
            lambda: open_knowledge_graph(
                self.db, name=name, embed=self._embed, dim=self._dim, model=self._model
            ),
        )

    async def profiles(self) -> UserProfiles:
        """User profiles. Raises CollectionError."""
        name = prefixed(self._name, PROFILES)
        return await self._once(UserProfiles, lambda: open_user_profiles(self.db, name=name))

    async def _once(self, kind: type[S], opened: Callable[[], Awaitable[S]]) -> S:
        async with self._opening:
            if kind not in self._opened:
                self._opened[kind] = await opened()
        return cast(S, self._opened[kind])


def service(request: Request) -> Service:
    """The service of the application."""
    found: Service = request.app.state.service
    return found


Served = Annotated[Service, Depends(service)]
Name = Annotated[str, Path(min_length=1, max_length=480)]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX)]
Words = Annotated[str | None, Query(max_length=10_000)]
"""A text to search for, or a query."""
Id = Annotated[str | None, Query(min_length=1, max_length=480)]


def answer(value: Any) -> Response:
    """A JSON response; times are in UTC."""
    return Response(
        msgspec.json.encode(value, enc_hook=amberdb.to_json), media_type="application/json"
    )


def listed(documents: Any, cursor: str | None) -> Response:
    """A page of documents, as models.Documents."""
    return answer({"documents": documents, "cursor": cursor})


def found(hits: Any) -> Response:
    """The hits of a search, as models.Found."""
    shown = [{"id": hit.id, "score": hit.score, "document": hit.document} for hit in hits]
    return answer({"hits": shown, "cursor": getattr(hits, "cursor", None)})
