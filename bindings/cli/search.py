"""The verb search: documents ranked by words, by a vector, or by both.

Invariants:
- A vector is what JSON can say: a list of numbers. No model is called from here.
"""

from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from amberdb._errors import QueryError
from amberdb._jsonl.text import loads
from amberdb.cli.output import (
    AsJson,
    CollectionName,
    DatabasePath,
    Exit,
    FilterJson,
    KeptFields,
    emit,
    grid,
    opened_to_read,
    parse_where,
    properties,
    say,
    show,
    verb,
    words,
)


@verb
def search(
    path: DatabasePath,
    collection: CollectionName,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help='Words, "a phrase", +must, -not, prefix*.'),
    ] = None,
    vector: Annotated[
        str | None, typer.Option(metavar="JSON", help="A list of numbers, or {field: list}.")
    ] = None,
    where: FilterJson = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents at most.")] = 10,
    fields: KeptFields = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also how each index was searched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Documents that fit best, the best first."""
    with opened_to_read(path) as db, db.snapshot() as at:
        hits = at[collection].search(
            text,
            vector=_parse_vector(vector),
            where=parse_where(where),
            limit=limit,
            fields=words(fields) or None,
            snippets=text is not None,
        )
    if as_json:
        found: dict[str, Any] = {"hits": [{**asdict(hit)} for hit in hits]}
        emit({**found, "how": hits.how} if explain else found)
    else:
        if explain:
            for name, steps in hits.how["indexes"].items():
                show(properties(name, {**steps, **hits.how["where"]}))
        if hits:
            rows = [(f"{hit.score:.4f}", hit.id, hit.snippet or dict(hit.document)) for hit in hits]
            show(grid(collection, ("score", "id", ""), rows))
        else:
            say("nothing found")
    if not hits:
        raise typer.Exit(Exit.NOTHING)


def _parse_vector(text: str | None) -> Any:
    """Raises QueryError."""
    if text is None:
        return None
    try:
        value = loads(text)
    except ValueError as error:
        raise QueryError(f"--vector: {error}") from None
    if not isinstance(value, list | dict):
        raise QueryError("--vector: a list of numbers, or a map of field to such a list")
    return cast(Any, value)
