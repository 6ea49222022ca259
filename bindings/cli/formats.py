"""The formats of --format: rows of named values as JSON, JSON lines, CSV, TSV, Markdown, a table
or Parquet.

    JSON, JSON lines   values as docs/cli.md has them; a row has its own names only
    CSV, TSV           a line of names; a value that is no text, number or date is JSON; nothing
                       where a value is missing, is null or is an empty text
    Markdown           the same cells; the columns are aligned as far as the first rows show
    Parquet            one type for each column (amberdb.cli.parquet); needs the extra `parquet`

Invariants:
- Rows are written as they come. Memory holds WINDOW of them, however many there are; only a table
  for people and one line of JSON are whole in memory, and they are of one page.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

from amberdb import QueryError
from amberdb._jsonl.text import dumps
from amberdb.cli.arguments import one_of
from amberdb.cli.columns import Row, flat, value_of
from amberdb.cli.output import emit, grid, show, visible

FORMATS: Final = ("json", "jsonl", "csv", "tsv", "markdown", "table", "parquet")
WINDOW: Final = 100
"""Rows whose widths decide those of Markdown's columns."""


def chosen(text: str | None, as_json: bool, *, default: str = "table") -> str:
    """The format that --format, or --json, asks for. Raises QueryError."""
    if text is None:
        return "json" if as_json else default
    if as_json and text != "json":
        raise QueryError(f"give --json or --format {text}, and not both")
    return one_of("--format", text, FORMATS)


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Row], format: str) -> None:
    """Prints rows that are in memory."""
    if format == "table":
        show(grid(title, columns, [[value_of(row, name) for name in columns] for row in rows]))
    elif format == "json":
        emit(rows)
    elif format == "parquet":
        from amberdb.cli.parquet import Columns, write

        found = Columns(columns)
        for row in rows:
            found.add(row)
        write(binary_stdout(), found, rows)
    else:
        for line in lines_of(format, columns, rows):
            print(line)


def binary_stdout() -> Any:
    """Standard output for bytes. Raises QueryError when it is a terminal."""
    if sys.stdout.isatty():
        raise QueryError("Parquet is not for a terminal: write it to a file, > FILE or --output")
    return sys.stdout.buffer


def lines_of(format: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a format that is text, without their line ends."""
    if format == "jsonl":
        yield from map(dumps, rows)
    elif format == "json":
        yield from _json_array(rows)
    elif format == "markdown":
        yield from _markdown(columns, rows)
    else:
        cells = ([flat(value_of(row, name)) for name in columns] for row in rows)
        # It quotes a cell that has a character of its line end, which is left out here.
        writer = csv.writer(_Line(), "excel-tab" if format == "tsv" else "excel")
        for each in chain([columns], cells):
            yield str(writer.writerow(each)).removesuffix("\r\n")


class _Line:
    """A file for csv.writer(), whose writerow() then returns the line."""

    def write(self, text: str) -> str:
        return text


def _json_array(rows: Iterable[Row]) -> Iterator[str]:
    before = None
    for row in rows:
        yield "[" if before is None else f"{before},"
        before = dumps(row)
    if before is None:
        yield "[]"
    else:
        yield before
        yield "]"


def _markdown(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    from rich.cells import cell_len

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    cells = ([_cell(flat(value_of(row, name))) for name in columns] for row in rows)
    first = list(islice(cells, WINDOW))
    head = [_cell(name) for name in columns]
    widths = [max(3, *map(cell_len, column)) for column in zip(head, *first, strict=True)]
    yield line(head)
    yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from map(line, chain(first, cells))


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("\n", "<br>")
