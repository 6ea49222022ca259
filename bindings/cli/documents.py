"""The commands info, get, put and find.

Invariants:
- Only put creates a database or a collection; the others report that it is missing.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from amberdb import InvalidDocumentError
from amberdb._jsonl.text import convert_dates, loads
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    DateFields,
    FilterJson,
    KeptFields,
    parse_where,
    words,
)
from amberdb.cli.output import emit, grid, properties, show
from amberdb.cli.verb import Exit, opened, opened_read_only, say, verb

COLUMNS_MAX = 8
LIMIT = 20


@verb
def info(path: DatabasePath, as_json: AsJson = False) -> None:
    """Shows collections, counts, sizes and Lsns."""
    with opened_read_only(path) as db:
        stats = db.stats().to_map()
    if as_json:
        emit(stats)
        return
    collections = stats.pop("collections")
    plain = {name: value for name, value in stats.items() if not isinstance(value, dict)}
    for part in ("bytes", "log", "store"):  # latencies belong to the process that writes
        plain |= {f"{part} {name}": value for name, value in stats[part].items()}
    show(properties("database", plain))
    rows = [
        (
            name,
            facts["documents"],
            _version_words(facts),
            facts["expires_at"],
            "\n".join(_index_words(facts["indexes"])),
        )
        for name, facts in collections.items()
    ]
    show(grid("collections", ("name", "documents", "version", "expires at", "indexes"), rows))
    if stats["subscribers"]:
        lags = stats["subscriber_lag"]
        positions = [(name, str(lsn), lags[name]) for name, lsn in stats["subscribers"].items()]
        show(grid("subscribers", ("name", "position", "lag in commits"), positions))


@verb
def get(
    path: DatabasePath,
    collection: CollectionName,
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    record: Annotated[
        bool, typer.Option("--record", help="With its version and the times of its writes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows one whole document."""
    with opened_read_only(path) as db, db.snapshot() as at:
        entry = at[collection].record(id)
    if as_json:
        emit(asdict(entry) if record else entry.document)
        return
    if record:
        times = {"created": entry.created_at, "updated": entry.updated_at}
        show(properties("record", {"version": str(entry.version), **times}))
    show(properties(id, entry.document))


@verb
def put(
    path: DatabasePath,
    collection: CollectionName,
    document: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="A map, or a list of maps; by default from stdin."),
    ] = None,
    dates: DateFields = None,
    on_conflict: Annotated[
        str, typer.Option(metavar="replace|keep|raise", help="Where a document with the id exists.")
    ] = "replace",
    as_json: AsJson = False,
) -> None:
    """Stores documents under their "id", in one commit; replaces existing ones."""
    if on_conflict not in ("replace", "keep", "raise"):
        raise typer.BadParameter("use replace, keep or raise", param_hint="--on-conflict")
    text = sys.stdin.buffer.read() if document is None else document
    try:
        value = loads(text)
        documents = list(cast(Sequence[Any], value)) if type(value) is list else [value]
        for entry in documents:
            if type(entry) is not dict:
                raise ValueError("a document must be a map")
            convert_dates(cast(dict[str, Any], entry), words(dates))
    except ValueError as error:
        raise InvalidDocumentError(f"the document: {error}") from None
    with opened(path, create=True) as db:
        ids = db.collection(collection).put_many(documents, on_conflict=cast(Any, on_conflict))
    if as_json:
        emit({"ids": ids})
    else:
        for id in ids:
            show(id)


@verb
def find(
    path: DatabasePath,
    collection: CollectionName,
    where: FilterJson = None,
    order_by: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="With - in front: descending.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents on one page.")] = LIMIT,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The cursor of the page before.")
    ] = None,
    fields: KeptFields = None,
    count: Annotated[bool, typer.Option("--count", help="Only their number.")] = False,
    count_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Only their number for each value.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Only the query plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows documents that match a filter, one page."""
    query = None if where is None else parse_where(where)
    order = words(order_by) or None
    with opened_read_only(path) as db, db.snapshot() as at:
        source = at[collection]
        if explain or count:
            facts: dict[str, Any] = (
                source.explain(query, order_by=order) if explain else {"count": source.count(query)}
            )
            emit(facts) if as_json else show(properties(collection, facts))
            return
        if count_by is not None:
            _show_counts(count_by, source.count_by(count_by, query), as_json)
            return
        names = words(fields) or None
        page = source.find(query, order_by=order, limit=limit, after=after, fields=names)
    documents = [dict(document) for document in page]
    if as_json:
        emit({"documents": documents, "cursor": page.cursor})
    elif documents:
        _show_documents(collection, documents)
        if page.cursor is not None:
            say(f"more: --after {page.cursor}")
    else:
        say("nothing found")
    if not page:
        raise typer.Exit(Exit.NOTHING)


# -- inside --------------------------------------------------------------------------------------


def _version_words(collection: dict[str, Any]) -> str:
    migrating = "" if collection.get("migrating") is None else " (migrating)"
    return f"{collection['version']}{migrating}"


def _index_words(indexes: dict[str, str]) -> list[str]:
    return [name if state == "ready" else f"{name} ({state})" for name, state in indexes.items()]


def _show_counts(field: str, counts: dict[Any, int], as_json: bool) -> None:
    if as_json:
        emit([{"value": value, "documents": count} for value, count in counts.items()])
    else:
        show(grid(field, ("value", "documents"), list(counts.items())))


def _show_documents(title: str, documents: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(["id", *(name for document in documents for name in document)]))
    if not any("id" in document for document in documents):
        names.remove("id")
    columns = names[:COLUMNS_MAX]
    rows = [[document.get(name) for name in columns] for document in documents]
    show(grid(title, columns, rows))
    if len(names) > COLUMNS_MAX:
        say(f"not shown: {', '.join(names[COLUMNS_MAX:])} (choose with --fields, or use --json)")
