"""Arguments and options that several commands share, and parsing of their values."""

from typing import Annotated, Any, cast

import typer

from amberdb import QueryError, Where
from amberdb._jsonl.text import loads

DatabasePath = Annotated[
    str, typer.Argument(metavar="PATH", help="The database, a directory.", show_default=False)
]
CollectionName = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Its name.", show_default=False)
]
FilterJson = Annotated[
    str | None, typer.Option(metavar="JSON", help="A filter, see docs/queries.md.")
]
KeptFields = Annotated[
    str | None, typer.Option(metavar="FIELD,...", help="The fields of each document to show.")
]
DateFields = Annotated[
    str | None, typer.Option(metavar="FIELD,...", help="Fields whose ISO text is a date.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


def words(text: str | None) -> list[str]:
    """The items of a list separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def parse_json(option: str, text: str) -> Any:
    """The value of a JSON option. Raises QueryError naming the option."""
    try:
        return loads(text)
    except ValueError as error:
        raise QueryError(f"{option}: {error}") from None


def parse_where(text: str) -> Where:
    """The filter of the option --where. Raises QueryError."""
    value = parse_json("--where", text)
    if not isinstance(value, dict):
        raise QueryError("--where: a filter is a JSON map, see docs/queries.md")
    return cast(Where, value)
