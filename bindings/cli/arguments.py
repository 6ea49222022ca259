"""Arguments and options that several commands have, each declared once, and the values of them.

Invariants:
- A value that is none (a limit of 0, a rate of nan, a zone that does not exist) is refused before a
  database is opened or created.
"""

import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final, cast
from zoneinfo import ZoneInfo

import typer

from amberdb import QueryError, Where
from amberdb._jsonl.text import loads
from amberdb.cli.completion import complete_collection

COUNT_MAX: Final = 1_000_000_000
"""The largest number of documents that an option takes."""
LIMIT: Final = 20
"""Documents, or changes, that a command shows when it is not told how many."""
TOKEN_VARIABLE: Final = "AMBERDB_TOKEN"
MODEL_KEY_VARIABLE: Final = "AMBERDB_MODEL_KEY"

_SQLITE: Final = b"SQLite format 3\0"


def positive(value: float | None) -> float | None:
    """The callback of an option that takes a number above 0."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is not a number above 0")
    return value


# -- the database --------------------------------------------------------------------------------

DatabasePath = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="The database: a directory, or postgresql://...", show_default=False
    ),
]
SourcePath = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The database that is read: a directory, or postgresql://...",
        show_default=False,
    ),
]
TargetPath = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="The database that is written: a directory, or postgresql://...",
        show_default=False,
    ),
]
CollectionName = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="The name of the collection.",
        show_default=False,
        autocompletion=complete_collection,
    ),
]
OneCollection = Annotated[
    str | None,
    typer.Argument(
        metavar="[COLLECTION]",
        help="Only this collection.",
        show_default=False,
        autocompletion=complete_collection,
    ),
]
DocumentIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="The ids of the documents.", show_default=False),
]

# -- which documents -----------------------------------------------------------------------------

FilterJson = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="JSON", help="Only documents that match this filter (docs/queries.md)."
    ),
]
OrderFields = Annotated[
    str | None,
    typer.Option(
        "--order-by", metavar="FIELD,...", help="Order by these fields; - in front: descending."
    ),
]
PageLimit = Annotated[
    int, typer.Option("--limit", min=1, max=COUNT_MAX, help="How many at most.", metavar="N")
]
ChangeLimit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        max=COUNT_MAX,
        help="How many documents at most; by default all that match.",
        metavar="N",
    ),
]
Cursor = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="The next page: the cursor of the one before."),
]
KeptFields = Annotated[
    str | None,
    typer.Option(
        "--fields", metavar="FIELD,...", help="Only these fields of each document, in this order."
    ),
]

# -- what is written -----------------------------------------------------------------------------

DateFields = Annotated[
    str | None,
    typer.Option(
        "--dates",
        metavar="FIELD,...",
        help="Fields whose ISO 8601 text, with a zone, is stored as a date.",
    ),
]
ZoneName = Annotated[
    str,
    typer.Option("--zone", help="The zone of times without one: Asia/Shanghai, +08:00."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show what would be done; nothing is changed.")
]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; stored in the receipt.")
]

# -- output --------------------------------------------------------------------------------------

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="json, jsonl, csv, tsv, markdown, table or parquet; by default a table.",
    ),
]
InputFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="jsonl, csv, tsv or parquet, where the file's name does not say it.",
    ),
]
OutputFile = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help="- is stdout; .gz is compressed."),
]

# -- models and servers --------------------------------------------------------------------------

EmbedUrl = Annotated[
    str | None,
    typer.Option(
        "--embed-url",
        metavar="URL",
        envvar="AMBERDB_EMBED_URL",
        help="A server of embeddings with the protocol of OpenAI, such as "
        f"http://127.0.0.1:11434/v1; its key is in {MODEL_KEY_VARIABLE}.",
    ),
]
EmbedModel = Annotated[
    str | None,
    typer.Option(
        "--embed-model",
        metavar="NAME",
        envvar="AMBERDB_EMBED_MODEL",
        help="The model that makes the vectors there.",
    ),
]
EmbedFunction = Annotated[
    str | None,
    typer.Option(
        "--embed", metavar="MODULE:FUNCTION", help="From a list of str to vectors, for search."
    ),
]
VectorDim = Annotated[
    int | None,
    typer.Option("--dim", min=1, max=16384, metavar="N", help="The length of the vectors."),
]
EmbedName = Annotated[
    str | None,
    typer.Option("--embed-name", metavar="NAME", help="Its name: another one makes vectors anew."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"The bearer token; by default from {TOKEN_VARIABLE}.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="The key of the archives: `openssl rand -hex 32 > FILE`.",
    ),
]

# -- values --------------------------------------------------------------------------------------


def zone_of(text: str) -> tzinfo:
    """The zone of the option --zone. Raises QueryError."""
    try:
        if text[:1] in ("+", "-"):
            return datetime.fromisoformat(f"2026-01-01T00:00:00{text}").tzinfo or UTC
        return ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise QueryError(f"--zone {text}: give a name such as Asia/Shanghai, or +08:00") from None


def time_of(option: str, text: str) -> datetime:
    """The time of an option. Raises QueryError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        lsn = "an Lsn, or " if option == "--until" else ""
        raise QueryError(f"{option} {text}: give {lsn}a time as ISO 8601 with a zone")
    return time


def token_of(file: Path | None) -> str | None:
    """The token of the option --token-file, or of the environment. Raises QueryError, OSError."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or not token.isascii():
        raise QueryError(f"--token-file {file}: it has no token, one line of ASCII text")
    return token


def is_sqlite(source: Path) -> bool:
    """Whether a file is a SQLite database. Raises OSError when there is none."""
    if source.is_dir():
        return False
    with source.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def words(text: str | None) -> list[str]:
    """The items of a list separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def one_of(option: str, value: str, choices: Sequence[str]) -> str:
    """The value. Raises QueryError when it is none of the choices."""
    if value not in choices:
        raise QueryError(f"{option} {value}: use {', '.join(choices[:-1])} or {choices[-1]}")
    return value


def parse_json(option: str, text: str) -> Any:
    """The value of a JSON option. Raises QueryError naming the option."""
    try:
        return loads(text)
    except ValueError as error:
        raise QueryError(f"{option}: {error}") from None


def parse_where(text: str | None) -> Where | None:
    """The filter of the option --where, None where there is none. Raises QueryError."""
    if text is None:
        return None
    value = parse_json("--where", text)
    if not isinstance(value, dict):
        raise QueryError("--where: a filter is a JSON map, see docs/queries.md")
    return cast(Where, value)
