"""Events of agents."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from amberdb import QueryError
from amberdb.events import AgentEvent, EventType, Filters
from amberdb.server import models
from amberdb.server.service import Id, Limit, Served, Words, answer, listed

router = APIRouter(prefix="/events")


@router.post("", response_model=models.Counted)
async def store(served: Served, given: list[models.Event]) -> Response:
    """Stores events, in one commit. One that has the `event_id` of a stored event replaces it."""
    events = [AgentEvent(**each.model_dump(exclude_none=True)) for each in given]
    return answer({"count": await (await served.events()).store_many(events)})


@router.get("", response_model=models.Documents)
async def retrieve(
    served: Served,
    event_type: EventType | None = None,
    session_id: Id = None,
    agent_name: Id = None,
    start_time: models.Moment | None = None,
    end_time: models.Moment | None = None,
    limit: Limit = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Events with `start_time <= timestamp < end_time`, the newest first."""
    filters = Filters(
        event_type=event_type,
        session_id=session_id,
        agent_name=agent_name,
        start_time=start_time,
        end_time=end_time,
    )
    events = await (await served.events()).retrieve(filters, limit=limit, offset=offset)
    return listed([event.to_map() for event in events], None)


@router.get("/search", response_model=models.Documents)
async def search(
    served: Served,
    text: Words = None,
    query: Words = None,
    session_id: Id = None,
    agent_name: Id = None,
    limit: Limit = 10,
) -> Response:
    """Events by the words of their data, the best first; `query` in place of a text is in the query
    language."""
    filters = Filters(session_id=session_id, agent_name=agent_name)
    events = await (await served.events()).search(text, filters, query=query, limit=limit)
    return listed([event.to_map() for event in events], None)


@router.get("/stats", response_model=models.EventStatistics)
async def stats(served: Served, session_id: Id = None, agent_name: Id = None) -> Response:
    """How many events there are, of which types, from when to when."""
    filters = Filters(session_id=session_id, agent_name=agent_name)
    return answer(await (await served.events()).get_stats(filters))


@router.delete("", response_model=models.Counted)
async def clear(
    served: Served, session_id: Id = None, end_time: models.Moment | None = None
) -> Response:
    """Deletes the events of a session, or those before a time."""
    if session_id is None and end_time is None:
        raise QueryError("give session_id or end_time")
    events = await served.events()
    return answer({"count": await events.clear(session_id=session_id, end_time=end_time)})
