"""Inputs of import that are no JSON lines: CSV, TSV and Parquet, as numbered lines of JSON.

Invariants:
- A row has a number, that of its first line in a file of text, so that an import can go on there.
- A cell of CSV is text, and an empty one is no field, unless --types says what it is.
- A row that is bad is an error of that row; the rows after it are read.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final

from amberdb import QueryError
from amberdb._jsonl.importer import Line
from amberdb._jsonl.reader import LINE_BYTES_MAX, numbered_lines
from amberdb._jsonl.text import dumps, loads, parse_date
from amberdb.cli.arguments import one_of

INPUTS: Final = ("jsonl", "csv", "tsv", "parquet")
AUTO: Final = "auto"


def input_format(file: str, text: str | None) -> str:
    """The format of --format, or that of the file's name. Raises QueryError."""
    if text is not None:
        return one_of("--format", text, INPUTS)
    ending = file.removesuffix(".gz").rpartition(".")[2].lower()
    return ending if ending in INPUTS else "jsonl"


def numbered(format: str, file: str, stream: BinaryIO, types: "Types") -> Iterator[Line]:
    """The lines of an input. Raises QueryError, InputDamagedError, and as read() of Parquet."""
    if types and format not in ("csv", "tsv"):
        raise QueryError(f"--types is for CSV and TSV: {format} has types of its own")
    if format == "jsonl":
        return numbered_lines(stream)
    if format == "parquet":
        return _parquet(file, stream)
    return _rows(stream, csv.excel_tab if format == "tsv" else csv.excel, types)


# -- types of cells ------------------------------------------------------------------------------

Types = Mapping[str, Callable[[str], Any]]
"""By column what makes a value of a cell, of which `AUTO` is for all others. Raises ValueError."""


def types_of(text: str | None) -> Types:
    """The types of --types: `age=int,tags=json`, or `auto`. Raises QueryError."""
    found: dict[str, Callable[[str], Any]] = {}
    for pair in (text or "").split(","):
        if pair.strip() == AUTO:
            found[AUTO] = _auto
        elif pair.strip():
            name, _, kind = pair.strip().rpartition("=")
            one_of(f"--types {name}=", kind, tuple(_READERS))
            found[name] = _READERS[kind]
    return found


def _bool(text: str) -> bool:
    value = {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower())
    if value is None:
        raise ValueError("it is neither true nor false")
    return value


def _auto(text: str) -> Any:
    """A number, true, false, a list or a map, when the cell is written as JSON writes it."""
    if text[:1] in '-0123456789[{tf"':
        try:
            value = loads(text)
        except ValueError:
            return text
        is_number = type(value) in (int, float)
        return text if isinstance(value, str) or (is_number and dumps(value) != text) else value
    return text


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": _bool,
    "date": parse_date,
    "json": loads,
}

# -- readers -------------------------------------------------------------------------------------


def _parquet(file: str, stream: BinaryIO) -> Iterator[Line]:
    from amberdb.cli.parquet import read

    if file == "-" or file.endswith(".gz"):
        raise QueryError("a Parquet file is read from its end: give a file that is not packed")
    for number, row in enumerate(read(stream), 1):
        yield number, dumps(row).encode()


class _Text:
    """The lines of an input as text. Bytes that are no UTF-8 become surrogates, which only the rows
    that have them suffer for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = numbered_lines(stream)
        self.was_cut = False
        """Whether a line since the last row was longer than LINE_BYTES_MAX, and is cut."""

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines:
            self.was_cut |= len(line) > LINE_BYTES_MAX
            yield line.decode("utf-8", "surrogateescape")


def _rows(stream: BinaryIO, dialect: type[csv.Dialect], types: Types) -> Iterator[Line]:
    csv.field_size_limit(LINE_BYTES_MAX)
    text = _Text(stream)
    reader = csv.reader(iter(text), dialect, strict=True)
    names = _names(reader)
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield first, ValueError(f"not CSV: {error}")
            continue
        if row is None:
            return
        if text.was_cut:
            text.was_cut = False
            yield first, ValueError(f"a line of more than {LINE_BYTES_MAX} bytes")
        elif row:
            yield first, _document(names, row, types)


def _names(reader: Iterator[list[str]]) -> list[str]:
    """The names of the first line. Raises QueryError."""
    try:
        names: list[str] = next(reader, list[str]())
    except csv.Error as error:
        raise QueryError(f"line 1: not CSV: {error}") from None
    if not names or "" in names or len(set(names)) < len(names):
        raise QueryError("line 1 has the names of the columns: none is empty, none is there twice")
    return names


def _document(names: list[str], row: list[str], types: Types) -> bytes | ValueError:
    """The JSON text of a row, or why it has none."""
    if len(row) > len(names):
        return ValueError(f"{len(row)} cells for {len(names)} columns")
    document: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=False):
        if not cell:
            continue
        if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
            return ValueError(f"column {name!r} is not UTF-8")
        read = types.get(name) or (types.get(AUTO, str) if name != "id" else str)
        try:
            document[name] = read(cell)
        except ValueError as error:
            return ValueError(f"column {name!r}: {error}")
    try:
        return dumps(document).encode()
    except (ValueError, RecursionError) as error:
        return ValueError(f"the row cannot be stored: {error}")
