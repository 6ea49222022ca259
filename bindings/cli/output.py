"""Output of the commands: JSON, tables and lines of text on stdout.

Invariants:
- rich is imported when a table or a line of text is shown; JSON does not need it.
- Stored text is shown with its control characters escaped, so that it cannot control the terminal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amberdb._jsonl.text import dumps, iso

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.table import Table

CELL_CHARS_MAX = 300


def emit(value: Any) -> None:
    """Prints a value as one line of JSON."""
    print(dumps(value))


def plain(report: "DataclassInstance") -> dict[str, Any]:
    """A report as a map for JSON; times are ISO 8601 text."""
    return asdict(report, dict_factory=_plain)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in pairs}


def show(table: "Table | str") -> None:
    """Prints a table, or a line of text."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=isinstance(table, str))
    console.print(Text(visible(table)) if isinstance(table, str) else table)


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "Table":
    """A table with a title; cells are shown by cell()."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def properties(title: str, values: Mapping[str, Any]) -> "Table":
    """A table of names and values."""
    return grid(title, ("", ""), list(values.items()))


def cell(value: Any) -> str:
    """A value as short text."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, (dict, list)):
        text = dumps(value)
    elif isinstance(value, bytes):
        text = f"{len(value)} bytes"
    text = visible(text)
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 3] + "..."


def visible(text: str) -> str:
    """The text with all control characters except line ends escaped."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )
