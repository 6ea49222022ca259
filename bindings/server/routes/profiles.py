"""User profiles.

Invariants:
- A profile is changed field by field: what a request does not name stays.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from amberdb import MissingKeyError
from amberdb.server import models
from amberdb.server.service import Limit, Name, Served, Words, answer, found, listed

router = APIRouter(prefix="/profiles")
PROFILE = "/user/{user_id}"
Fields = Annotated[models.Metadata, Body()]


@router.get("", response_model=models.Documents)
async def recent(
    served: Served,
    limit: Limit = 100,
    since: models.Moment | None = None,
    until: models.Moment | None = None,
    after: str | None = None,
) -> Response:
    """Profiles with `since <= last_updated < until`, the last changed first."""
    profiles = await served.profiles()
    page = await profiles.recent(limit, since=since, until=until, after=after)
    return listed(page, page.cursor)


@router.get("/search", response_model=models.Found)
async def search(
    served: Served,
    text: Words = None,
    query: Words = None,
    limit: Limit = 10,
    after: str | None = None,
) -> Response:
    """Profiles whose name, summary or facts have the words of a text, the best first; `query` in
    place of a text is in the query language."""
    profiles = await served.profiles()
    return found(await profiles.search(text, query=query, limit=limit, after=after))


@router.get(PROFILE, response_model=models.Document)
async def get(served: Served, user_id: Name) -> Response:
    """The whole profile."""
    profile = await (await served.profiles()).get(user_id)
    if profile is None:
        raise MissingKeyError(f"there is no profile of {user_id!r}", key=user_id)
    return answer(profile)


@router.put(PROFILE, response_model=models.Document)
async def save(served: Served, user_id: Name, given: Fields) -> Response:
    """Creates the profile or merges the given fields into it; the profile after that."""
    return answer(await (await served.profiles()).save(user_id, given))


@router.patch(PROFILE, response_model=models.Document)
async def update(served: Served, user_id: Name, given: Fields) -> Response:
    """Changes the profile by a patch with operators: $set $unset $inc $push $max; the profile after
    that."""
    return answer(await (await served.profiles()).update(user_id, given))


@router.post(PROFILE + "/conversations", response_model=models.Counted)
async def count_conversation(
    served: Served, user_id: Name, by: Annotated[int, Query(ge=1, le=1_000_000)] = 1
) -> Response:
    """Adds to `conversation_count`; the new count."""
    return answer({"count": await (await served.profiles()).count_conversation(user_id, by)})


@router.delete(PROFILE, response_model=models.Counted)
async def delete(served: Served, user_id: Name) -> Response:
    """Deletes the profile."""
    await (await served.profiles()).delete(user_id)
    return answer({"count": 1})
