"""The pages of what happens: changes as they come, charts of the last hour.

Invariants:
- A stream of changes waits in a thread for STEP_S at a time, and there are STREAMS_MAX of them at
  most: the pool keeps threads for pages.
"""

from collections.abc import AsyncIterator
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from amberdb import AmberError, Lsn
from amberdb.inspector import newest_changes, read_measures, wait_for_changes
from amberdb.inspector.web.visit import Visit, number_in

STEP_S: Final = 1.0
STREAMS_MAX: Final = 8


def changes(visit: Visit) -> Response:
    """The newest changes; the page then asks for the stream."""
    return visit.page("changes.html", changes=newest_changes(visit.db))


async def stream(request: Request) -> Response:
    """Changes as server-sent events: rows of the table of changes()."""
    state = request.app.state
    if state.streams >= STREAMS_MAX:
        return PlainTextResponse("too many pages of changes are open: close one", 503)
    visit = Visit(request, {})
    since = number_in(request.headers.get("last-event-id", visit.asked("since")))
    if since is None:
        since = await run_in_threadpool(visit.db.refresh)
    return StreamingResponse(
        _events(visit, request, Lsn(since)),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _events(visit: Visit, request: Request, since: Lsn) -> AsyncIterator[str]:
    state = request.app.state
    state.streams += 1
    try:
        yield ": open\n\n"
        while not state.is_closing():
            batch = await run_in_threadpool(wait_for_changes, visit.db, since, STEP_S)
            since = batch.last
            if not batch.lines:
                yield ": waiting\n\n"  # a write finds a connection that has ended
                continue
            rows = visit.part("changes_rows.html", changes=batch)
            data = "".join(f"data: {line}\n" for line in rows.splitlines())
            yield f"id: {since}\n{data}\n"
    except AmberError as error:  # the database was closed, or is another one by now
        yield f"event: problem\ndata: {' '.join(error.message.split())}\n\n"
    finally:
        state.streams -= 1


def activity(visit: Visit) -> Response:
    """Charts of the last hour, and the figures of now."""
    return visit.page("activity.html", measures=read_measures(visit.db), stats=visit.db.stats())
