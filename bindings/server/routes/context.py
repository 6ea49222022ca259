"""Agent context: users, sessions, messages for a model call, recall and archival memory."""

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from amberdb.context.aio import run_tool
from amberdb.context.tools import Reach, Style, tool_schemas
from amberdb.server import models
from amberdb.server.service import Id, Limit, Name, Served, Words, answer, found, listed

router = APIRouter(prefix="/context")
SESSION = "/sessions/{session_id}"
Messages = Annotated[list[models.Metadata], Body(min_length=1, max_length=1_000)]


@router.post("/users", response_model=models.Identified)
async def find_or_create_user(served: Served, given: models.NewUser) -> Response:
    """The user of a name, created if there is none."""
    sessions = (await served.context()).sessions
    return answer({"id": await sessions.find_or_create_user(given.username)})


@router.get("/users", response_model=models.Documents)
async def users(served: Served, limit: Limit = 100, after: str | None = None) -> Response:
    """Users, the oldest first."""
    page = await (await served.context()).sessions.users(limit=limit, after=after)
    return listed(page, page.cursor)


@router.get("/users/{user_id}/sessions", response_model=models.Documents)
async def sessions_of(
    served: Served, user_id: Name, limit: Limit = 100, after: str | None = None
) -> Response:
    """Sessions of a user, the last changed first."""
    page = await (await served.context()).sessions.of(user_id, limit=limit, after=after)
    return listed(page, page.cursor)


@router.delete("/users/{user_id}", response_model=models.DeletedSessions)
async def delete_user(served: Served, user_id: Name) -> Response:
    """Deletes a user with all sessions."""
    return answer(await (await served.context()).sessions.delete_user(user_id))


@router.get("/search", response_model=models.Found)
async def conversation_search(
    served: Served,
    text: Words = None,
    query: Words = None,
    session_id: Id = None,
    user_id: Id = None,
    role_name: Id = None,
    limit: Limit = 10,
) -> Response:
    """Messages of a session, or of all sessions of a user or a role, by the words of a text or by a
    query, the best first."""
    context = await served.context()
    return found(
        await context.conversation_search(
            session_id, text, query=query, user_id=user_id, role_name=role_name, limit=limit
        )
    )


@router.get("/tools", response_model=models.Documents)
async def tools(style: Style = "chat") -> Response:
    """The memory tools for the function calling of a model API."""
    return listed(tool_schemas(style), None)


@router.post("/sessions", response_model=models.Identified)
async def create_session(served: Served, given: models.NewSession) -> Response:
    """Creates a session of a user in a role."""
    sessions = (await served.context()).sessions
    return answer({"id": await sessions.create(**given.model_dump())})


@router.get(SESSION, response_model=models.Document)
async def session(served: Served, session_id: Name) -> Response:
    """One session."""
    return answer(await (await served.context()).sessions.get(session_id))


@router.delete(SESSION, response_model=models.DeletedSessions)
async def delete_session(served: Served, session_id: Name) -> Response:
    """Deletes a session with its messages and memories."""
    return answer(await (await served.context()).sessions.delete(session_id))


@router.put(SESSION + "/system", response_model=models.Counted)
async def set_system(served: Served, session_id: Name, given: models.PartText) -> Response:
    """Replaces the system instructions."""
    await (await served.context()).set_system(session_id, given.content)
    return answer({"count": 1})


@router.put(SESSION + "/working", response_model=models.Counted)
async def set_working(served: Served, session_id: Name, given: models.PartText) -> Response:
    """Replaces the working context."""
    await (await served.context()).set_working(session_id, given.content)
    return answer({"count": 1})


@router.post(SESSION + "/messages", response_model=models.Document)
async def extend(served: Served, session_id: Name, given: Messages) -> Response:
    """Appends messages in the form of a model call, in one commit."""
    return answer(await (await served.context()).extend(session_id, given))


@router.get(SESSION + "/messages", response_model=models.Documents)
async def queue(
    served: Served, session_id: Name, limit: Limit = 100, after: str | None = None
) -> Response:
    """Messages that have not moved to recall storage, the oldest first."""
    page = await (await served.context()).queue(session_id, limit=limit, after=after)
    return listed(page, page.cursor)


@router.get(SESSION + "/render", response_model=models.Documents)
async def render(served: Served, session_id: Name) -> Response:
    """The messages for a model call, within the token budget."""
    return listed(await (await served.context()).render(session_id), None)


@router.post(SESSION + "/tools", response_model=models.Document)
async def call_tool(
    served: Served,
    session_id: Name,
    given: Annotated[models.Metadata, Body()],
    reach: Reach = "session",
) -> Response:
    """Executes the call of a memory tool, as the model gave it; the message with its result."""
    return answer(await run_tool(await served.context(), session_id, given, reach=reach))


@router.get(SESSION + "/recall", response_model=models.Found)
async def recall_search(
    served: Served,
    session_id: Name,
    text: Words = None,
    query: Words = None,
    limit: Limit = 10,
    after: str | None = None,
) -> Response:
    """Messages that left the queue, by the words of a text or by a query, the best first."""
    external = (await served.context()).external
    return found(
        await external.recall_search(session_id, text, query=query, limit=limit, after=after)
    )


@router.post(SESSION + "/archival", response_model=models.Identified)
async def archival_insert(served: Served, session_id: Name, given: models.Note) -> Response:
    """Stores an archival memory."""
    external = (await served.context()).external
    return answer({"id": await external.archival_insert(session_id, **given.model_dump())})


@router.get(SESSION + "/archival", response_model=models.Documents)
async def archival(
    served: Served, session_id: Name, limit: Limit = 100, after: str | None = None
) -> Response:
    """Archival memories, the newest first."""
    external = (await served.context()).external
    page = await external.archival(session_id, limit=limit, after=after)
    return listed(page, page.cursor)


@router.get(SESSION + "/archival/search", response_model=models.Found)
async def archival_search(
    served: Served,
    session_id: Name,
    text: Words = None,
    query: Words = None,
    limit: Limit = 10,
    after: str | None = None,
) -> Response:
    """Archival memories, the nearest to a text first; by words without an embedder, and for a query
    in the query language."""
    external = (await served.context()).external
    return found(
        await external.archival_search(session_id, text, query=query, limit=limit, after=after)
    )


@router.delete("/archival/{memory_id}", response_model=models.Counted)
async def archival_delete(served: Served, memory_id: Name) -> Response:
    """Deletes an archival memory."""
    await (await served.context()).external.archival_delete(memory_id)
    return answer({"count": 1})
