"""The commands get, find and count.

Invariants:
- They change nothing, and create neither a database nor a collection.
"""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from amberdb.cli.arguments import (
    LIMIT,
    AsJson,
    CollectionName,
    Cursor,
    DatabasePath,
    FilterJson,
    KeptFields,
    OrderFields,
    OutputFormat,
    PageLimit,
    parse_where,
    words,
)
from amberdb.cli.columns import columns_of
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit, properties, show
from amberdb.cli.verb import Exit, opened_read_only, say, verb

COLUMNS_MAX = 8


@verb
def get(
    path: DatabasePath,
    collection: CollectionName,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The id of the document.", show_default=False)
    ],
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="With its version, the Lsn of its last write, and the times of its first and "
            "last write.",
        ),
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
def find(
    path: DatabasePath,
    collection: CollectionName,
    where: FilterJson = None,
    order_by: OrderFields = None,
    limit: PageLimit = LIMIT,
    after: Cursor = None,
    fields: KeptFields = None,
    explain: Annotated[bool, typer.Option("--explain", help="Only the query plan.")] = False,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Shows documents that match a filter, one page."""
    query, order, names = parse_where(where), words(order_by) or None, words(fields) or None
    kind = chosen(format, as_json)
    with opened_read_only(path) as db, db.snapshot() as at:
        source = at[collection]
        if explain:
            plan = source.explain(query, order_by=order, fields=names)
            emit(plan) if kind == "json" else show(properties(collection, plan))
            return
        page = source.find(query, order_by=order, limit=limit, after=after, fields=names)
    documents = [dict(document) for document in page]
    if kind == "json":
        emit({"documents": documents, "cursor": page.cursor})
    elif kind == "table":
        _show_documents(collection, documents, names)
    else:
        show_rows(collection, names or columns_of(documents), documents, kind)
    if not page:
        say("nothing found")
        raise typer.Exit(Exit.NOTHING)
    if page.cursor is not None and kind != "json":
        say(f"more: --after {page.cursor}")


@verb
def count(
    path: DatabasePath,
    collection: CollectionName,
    where: FilterJson = None,
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="For each value of this field.")
    ] = None,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Counts documents, all or those that match a filter."""
    query, kind = parse_where(where), chosen(format, as_json)
    with opened_read_only(path) as db, db.snapshot() as at:
        if by is None:
            number = at[collection].count(query)
            emit({"count": number}) if kind == "json" else show(f"{number}")
            return
        counts = at[collection].count_by(by, query)
    rows = [{"value": value, "documents": number} for value, number in counts.items()]
    show_rows(by, ("value", "documents"), rows, kind)


# -- inside --------------------------------------------------------------------------------------


def _show_documents(title: str, documents: list[dict[str, Any]], fields: list[str] | None) -> None:
    """A table, of the first columns unless they were chosen."""
    if not documents:
        return
    if fields is not None:
        show_rows(title, fields, documents, "table")
        return
    names = columns_of(documents)
    show_rows(title, names[:COLUMNS_MAX], documents, "table")
    if len(names) > COLUMNS_MAX:
        say(f"not shown: {', '.join(names[COLUMNS_MAX:])} (choose with --fields, or use --json)")
