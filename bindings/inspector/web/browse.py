"""The pages of what is stored: collections, documents, one document, search, the map of vectors.

Invariants:
- A URL has all that a page shows, so it can be kept and sent; the filter in it is JSON.
"""

from collections.abc import Iterator

from starlette.concurrency import iterate_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from amberdb import Lsn, QueryError
from amberdb._jsonl.text import loads
from amberdb.inspector import (
    OPERATORS,
    Condition,
    conditions_of,
    export_documents,
    parse_where,
    read_collection,
    read_collections,
    read_document,
    read_history,
    read_map,
    read_page,
    read_plan,
    search_documents,
    where_of,
    where_text,
    whole_text,
)
from amberdb.inspector.documents import LIMIT, SCAN_DOCUMENTS
from amberdb.inspector.search import Words
from amberdb.inspector.web.visit import Visit, link

_LIMITS = (25, 50, 100, 200, 500)


def collections(visit: Visit) -> Response:
    """All collections."""
    stats = visit.db.stats()
    return visit.page(
        "collections.html", stats=stats, collections=read_collections(visit.db, stats)
    )


def documents(visit: Visit) -> Response:
    """A page of documents; or the same with the filter of the builder, as a URL with its JSON."""
    name, order = visit.asked("collection"), visit.asked_fields("order")
    columns, limit = visit.asked_fields("columns"), _limit(visit)
    if visit.asked("build"):
        where = where_of(_conditions(visit))
        return visit.to(
            "/documents",
            collection=name,
            where=where_text(where),
            order=order,
            columns=columns,
            limit=limit if limit != LIMIT else "",
        )
    collection = read_collection(visit.db, name)
    where, problem, plan, shown = None, None, None, None
    is_large = collection.documents > SCAN_DOCUMENTS and not visit.asked("scan")
    try:
        where = parse_where(visit.asked("where"))
        plan = read_plan(visit.db, name, where=where, order_by=order)
        if not (is_large and plan.is_full_scan):
            shown = read_page(
                visit.db,
                name,
                where=where,
                order_by=order,
                after=visit.asked("after") or None,
                columns=columns,
                limit=limit,
            )
    except QueryError as error:
        problem = error.message
    return visit.page(
        "documents.html",
        status=400 if problem else 200,
        collection=collection,
        plan=plan,
        page=shown,
        problem=problem,
        scan=visit.asked("scan"),
        where_text=visit.asked("where"),
        conditions=conditions_of(where),
        operators=OPERATORS,
        order=order,
        columns=columns,
        limit=limit,
        limits=_LIMITS,
        after=visit.asked("after"),
    )


def document(visit: Visit) -> Response:
    """One document and its history."""
    name, id = visit.asked("collection"), visit.asked("id")
    collection = read_collection(visit.db, name)
    view = read_document(visit.db, name, id)
    since = visit.asked_number("since")
    history = read_history(visit.db, name, id, since=None if since is None else Lsn(since))
    return visit.page(
        "document.html",
        status=200 if view is not None or history.versions else 404,
        collection=collection,
        id=id,
        view=view,
        history=history,
        whole=whole_text(view.record.document) if view and visit.options.write else "",
        problem=None,
    )


def search(visit: Visit) -> Response:
    """A search, and what it has found."""
    collection = read_collection(visit.db, visit.asked("collection"))
    words, like = visit.asked("words"), visit.asked("like")
    meaning = visit.asked("meaning") if visit.options.embed else ""
    language: Words = "query" if visit.asked("language") == "query" else "text"
    found, problem = None, None
    if words or like or meaning:
        try:
            found = search_documents(
                visit.db,
                collection.name,
                words=words or None,
                language=language,
                meaning=meaning or None,
                like=None if like.startswith("[") else like or None,
                vector=loads(like) if like.startswith("[") else None,
                field=visit.asked("field") or None,
                where=parse_where(visit.asked("where")),
                after=visit.asked("after") or None,
                embed=visit.options.embed,
            )
        except (QueryError, ValueError) as error:
            problem = str(error)
    return visit.page(
        "search.html",
        status=400 if problem else 200,
        collection=collection,
        words=words,
        language=language,
        meaning=meaning,
        like=like,
        field=visit.asked("field"),
        where_text=visit.asked("where"),
        has_embedder=visit.options.embed is not None,
        found=found,
        problem=problem,
        best=max((abs(hit.score) for hit in found.hits), default=0.0) if found else 0.0,
    )


def vectors(visit: Visit) -> Response:
    """The map of vectors; its points are asked for by the page."""
    return visit.page(
        "vectors.html",
        collection=read_collection(visit.db, visit.asked("collection")),
        field=visit.asked("field"),
        group=visit.asked("group"),
    )


def points(visit: Visit) -> Response:
    """The points of the map, as JSON."""
    name = visit.asked("collection")
    try:
        shown = read_map(
            visit.db,
            name,
            field=visit.asked("field") or None,
            group_by=visit.asked("group") or None,
        )
    except QueryError as error:
        return JSONResponse({"problem": error.message}, 400)
    share = visit.text(
        "vectors.sample" if shown.is_sample else "vectors.all",
        points=f"{len(shown.points):,}",
        documents=f"{shown.documents:,}",
        explained=f"{shown.explained:.0%}",
        took=f"{shown.took_ms:,.0f}",
    )
    return JSONResponse(
        {
            "note": share,
            "points": [
                {
                    "id": point.id,
                    "x": point.x,
                    "y": point.y,
                    "label": point.label,
                    "group": point.group,
                    "href": link("/document", collection=name, id=point.id),
                }
                for point in shown.points
            ],
        }
    )


def export(visit: Visit) -> Response:
    """What is shown, as JSON lines: one document, one page, or all that match."""
    lines = _exported(visit)
    first = next(lines, "")  # an error of the query is a page, not half a file
    after_first = iterate_in_threadpool(_chain(first, lines))
    return StreamingResponse(
        after_first,
        media_type="application/jsonl",
        headers={"Content-Disposition": 'attachment; filename="export.jsonl"'},
    )


# -- inside --------------------------------------------------------------------------------------


def _exported(visit: Visit) -> Iterator[str]:
    name, id = visit.asked("collection"), visit.asked("id")
    if id:
        return iter([whole_text(visit.db[name][id], indent=None) + "\n"])
    is_page = visit.asked("only") == "page"
    return export_documents(
        visit.db,
        name,
        where=parse_where(visit.asked("where")),
        order_by=visit.asked_fields("order"),
        columns=visit.asked_fields("columns"),
        after=visit.asked("after") or None if is_page else None,
        limit=_limit(visit) if is_page else None,
    )


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _conditions(visit: Visit) -> list[Condition]:
    """The lines of the builder, without the one that was taken away."""
    lines = zip(
        visit.asked_all("field"),
        visit.asked_all("operator"),
        visit.asked_all("value"),
        strict=False,
    )
    dropped = visit.asked("drop")
    return [Condition(*line) for number, line in enumerate(lines) if str(number) != dropped]


def _limit(visit: Visit) -> int:
    given = visit.asked_number("limit")
    return given if given in _LIMITS else LIMIT
