"""Arguments and options that several commands share, and parsing of their values."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final, cast
from zoneinfo import ZoneInfo

import typer

from amberdb import QueryError, Where
from amberdb._jsonl.text import loads

DatabasePath = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="The database: a directory, or postgresql://...", show_default=False
    ),
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
ZoneName = Annotated[
    str, typer.Option(help="The zone of times without one: Asia/Shanghai, +08:00.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]

_SQLITE: Final = b"SQLite format 3\0"


def zone_of(text: str) -> tzinfo:
    """The zone of the option --zone. Raises QueryError."""
    try:
        if text[:1] in ("+", "-"):
            return datetime.fromisoformat(f"2026-01-01T00:00:00{text}").tzinfo or UTC
        return ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise QueryError(f"--zone {text}: give a name such as Asia/Shanghai, or +08:00") from None


def is_sqlite(source: Path) -> bool:
    """Whether a file is a SQLite database. Raises OSError when there is none."""
    if source.is_dir():
        return False
    with source.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


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
