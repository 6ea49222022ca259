"""The command search: documents ranked by a text or a query in the query language, by a vector, or
by both.

Invariants:
- A vector is given as a JSON list of numbers, or is made of the text by the server of --embed-url;
  no other model is called.
- A search for which an index is missing says which command makes it.
"""

from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from amberdb import Hits, Neighbors, QueryError, Text, Vector
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    Cursor,
    DatabasePath,
    EmbedModel,
    EmbedUrl,
    FilterJson,
    KeptFields,
    OutputFormat,
    PageLimit,
    parse_json,
    parse_where,
    words,
)
from amberdb.cli.columns import columns_of
from amberdb.cli.embedding import endpoint_of, vectors_for
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit, grid, properties, show
from amberdb.cli.verb import Exit, opened_read_only, say, verb


@verb
def search(
    path: DatabasePath,
    collection: CollectionName,
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="Any text: its words are looked for."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="QUERY", help='In place of a text: "a phrase", +must, -not, prefix*.'),
    ] = None,
    vector: Annotated[
        str | None, typer.Option(metavar="JSON", help="A list of numbers, or {field: list}.")
    ] = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    where: FilterJson = None,
    limit: PageLimit = 10,
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
    after: Cursor = None,
    fields: KeptFields = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also how each index was searched.")
    ] = False,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Shows the documents that match best, the best first. They are ranked by the words of a text,
    by a vector, or by both; with --embed-url the text is also compared by its meaning."""
    kind = chosen(format, as_json)
    near = None if vector is None else _parse_vector(vector)
    beside = None if neighbors is None else _parse_neighbors(neighbors)
    endpoint = endpoint_of(embed_url, embed_model)
    if endpoint is not None and (text is None or near is not None):
        raise QueryError("--embed-url makes a vector of TEXT: give a text, and no --vector")
    with opened_read_only(path) as db, db.snapshot() as at:
        source, specs = at[collection], db.definition(collection).specs
        has_text = any(isinstance(each, Text) for each in specs)
        if endpoint is not None and text is not None:
            near = vectors_for(specs, endpoint, text) or None
            text = text if has_text or near is None else None
        if (text is not None or query is not None) and not has_text:
            raise QueryError(_missing(db.path, collection, "text FIELD"))
        if near is not None and not any(isinstance(each, Vector) for each in specs):
            raise QueryError(_missing(db.path, collection, "vector FIELD --dim N"))
        hits = source.search(
            text,
            query=query,
            vector=near,
            where=parse_where(where),
            limit=limit,
            neighbors=beside,
            group_by=group_by,
            after=after,
            fields=words(fields) or None,
            snippets=text is not None or query is not None,
        )
    _show(hits, collection, words(fields), kind, explain)
    if not hits:
        raise typer.Exit(Exit.NOTHING)


def _show(hits: Hits, collection: str, fields: list[str], kind: str, explain: bool) -> None:
    if kind == "json":
        result: dict[str, Any] = {"hits": [asdict(hit) for hit in hits], "cursor": hits.cursor}
        emit({**result, "how": hits.how} if explain else result)
        return
    if explain:
        for name, steps in hits.how["indexes"].items():
            show(properties(name, {**steps, **hits.how["where"]}))
        for name in ("neighbors", "group_by"):
            if name in hits.how:
                show(properties(name, hits.how[name]))
    if not hits:
        say(f"nothing found: {why}" if (why := hits.how.get("no_terms")) else "nothing found")
        return
    if kind == "table":
        rows = [(f"{hit.score:.4f}", hit.id, hit.snippet or dict(hit.document)) for hit in hits]
        show(grid(collection, ("score", "id", ""), rows))
    else:
        found = [{"id": hit.id, "score": hit.score, **hit.document} for hit in hits]
        names = fields or columns_of(found)
        show_rows(collection, list(dict.fromkeys(["id", "score", *names])), found, kind)
    if hits.cursor is not None:
        say(f"more: --after {hits.cursor}")


def _missing(path: str, name: str, index: str) -> str:
    """The error of a search without an index, with the command that makes it."""
    kind = index.partition(" ")[0].capitalize()
    return (
        f"collection {name!r} has no {kind} index: make one with `amberdb index add {path} {name} "
        f"{index}`"
    )


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
