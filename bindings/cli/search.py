"""The command search: documents ranked by a text or a query in the query language, by a vector, or
by both.

Invariants:
- A vector is given as a JSON list of numbers; no model is called.
"""

from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from amberdb import Neighbors, QueryError
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    FilterJson,
    KeptFields,
    parse_json,
    parse_where,
    words,
)
from amberdb.cli.output import emit, grid, properties, show
from amberdb.cli.verb import Exit, opened_read_only, say, verb


@verb
def search(
    path: DatabasePath,
    collection: CollectionName,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="Any text: its words are looked for."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="QUERY", help='In place of a text: "a phrase", +must, -not, prefix*.'),
    ] = None,
    vector: Annotated[
        str | None, typer.Option(metavar="JSON", help="A list of numbers, or {field: list}.")
    ] = None,
    where: FilterJson = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents at most.")] = 10,
    neighbors: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP,ORDER",
            help="Fields: rank a document with those beside it in its group, by this order.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Only the best of each of its values.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The cursor of the page before.")
    ] = None,
    fields: KeptFields = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also how each index was searched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the documents that match best, the best first."""
    with opened_read_only(path) as db, db.snapshot() as at:
        hits = at[collection].search(
            text,
            query=query,
            vector=None if vector is None else _parse_vector(vector),
            where=None if where is None else parse_where(where),
            limit=limit,
            neighbors=None if neighbors is None else _parse_neighbors(neighbors),
            group_by=group_by,
            after=after,
            fields=words(fields) or None,
            snippets=text is not None or query is not None,
        )
    if as_json:
        result: dict[str, Any] = {"hits": [asdict(hit) for hit in hits], "cursor": hits.cursor}
        emit({**result, "how": hits.how} if explain else result)
    else:
        if explain:
            for name, steps in hits.how["indexes"].items():
                show(properties(name, {**steps, **hits.how["where"]}))
            for name in ("neighbors", "group_by"):
                if name in hits.how:
                    show(properties(name, hits.how[name]))
        if hits:
            rows = [(f"{hit.score:.4f}", hit.id, hit.snippet or dict(hit.document)) for hit in hits]
            show(grid(collection, ("score", "id", ""), rows))
            if hits.cursor is not None:
                say(f"more: --after {hits.cursor}")
        else:
            say(f"nothing found: {why}" if (why := hits.how.get("no_terms")) else "nothing found")
    if not hits:
        raise typer.Exit(Exit.NOTHING)


def _parse_neighbors(text: str) -> Neighbors:
    """The neighbors of the option --neighbors. Raises QueryError."""
    *group, order = words(text) or [""]
    if not group:
        raise QueryError("--neighbors: the fields of the group and then that of the order")
    return Neighbors(group=group, order=order)


def _parse_vector(text: str) -> Any:
    """The vector, or the map of vectors, of the option --vector. Raises QueryError."""
    value = parse_json("--vector", text)
    if not isinstance(value, list | dict):
        raise QueryError("--vector: a list of numbers, or a map of field to such a list")
    return cast(Any, value)
