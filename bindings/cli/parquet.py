"""Parquet files, through pyarrow (the extra `parquet`), which is imported when one is read or
written.

    int -> int64      float, or both -> float64     bool      str -> string
    bytes -> binary   date -> timestamp in UTC      vector -> list of float32
    list of str, of numbers -> list                 anything else, and a mix -> JSON text, marked so

Invariants:
- A column has one type, known before the first row is written: Columns are filled by a first pass
  over the same rows.
- A column of JSON text that write() has marked is read as the values that it was made of.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from typing import Any, Final, cast, final

from amberdb import AmberError
from amberdb._jsonl.reader import InputDamagedError
from amberdb._jsonl.text import dumps, loads
from amberdb._shared.storable import storable
from amberdb.cli.columns import Row, check_columns, value_of

ROWS: Final = 1000
"""Rows that are read, or written, at once."""
GROUP_ROWS: Final = 20_000

_MARK: Final = {b"amberdb": b"json"}


class ParquetMissingError(AmberError, ImportError):
    """pyarrow is not installed."""


def pyarrow() -> Any:
    """The library. Raises ParquetMissingError."""
    try:
        arrow = import_module("pyarrow")  # which has no types
        import_module("pyarrow.parquet")
    except ImportError:
        raise ParquetMissingError(
            'Parquet needs pyarrow: pip install "amberdb[cli,parquet]"'
        ) from None
    return arrow


@final
class Columns:
    """The columns of rows: names, and the kinds of their values."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._is_open = not names
        self._kinds: dict[str, set[str]] = {name: set() for name in names}

    @property
    def names(self) -> list[str]:
        return list(self._kinds)

    def add(self, row: Row) -> None:
        """Takes note of the values of a row. Raises QueryError for too many columns."""
        if self._is_open and not row.keys() <= self._kinds.keys():
            for name in row:
                self._kinds.setdefault(name, set())
            check_columns(self._kinds)
        for name, kinds in self._kinds.items():
            value = value_of(row, name)
            if value is not None:
                kinds.add(_kind(value))

    def schema(self) -> Any:
        """The schema of pyarrow. Raises ParquetMissingError."""
        arrow = pyarrow()
        types = {
            "bool": arrow.bool_(),
            "int": arrow.int64(),
            "float": arrow.float64(),
            "str": arrow.string(),
            "bytes": arrow.binary(),
            "datetime": arrow.timestamp("us", tz="UTC"),
            "vector": arrow.list_(arrow.float32()),
            "list of str": arrow.list_(arrow.string()),
            "list of int": arrow.list_(arrow.int64()),
            "list of float": arrow.list_(arrow.float64()),
        }
        fields: list[Any] = []
        for name, kinds in self._kinds.items():
            kind = _common(kinds)
            fields.append(
                arrow.field(name, types[kind])
                if kind in types
                else arrow.field(name, arrow.string(), metadata=_MARK)
            )
        return arrow.schema(fields)


def write(file: Any, columns: Columns, rows: Iterable[Row]) -> int:
    """Writes rows to a binary file; how many. Raises ParquetMissingError, OSError."""
    arrow = pyarrow()
    schema = columns.schema()
    marked = {each.name for each in schema if each.metadata}
    remaining, count = iter(rows), 0
    with arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(remaining, GROUP_ROWS)):
            values = [
                arrow.array(
                    [_stored(value_of(row, f.name), f.name in marked) for row in group], f.type
                )
                for f in schema
            ]
            writer.write_table(arrow.Table.from_arrays(values, schema=schema))
            count += len(group)
    return count


def read(file: Any) -> Iterator[dict[str, Any]]:
    """The rows of a binary file that can seek, as documents; a value that is null is left out.
    Raises ParquetMissingError, InputDamagedError."""
    arrow = pyarrow()
    number = 0
    try:
        source = arrow.parquet.ParquetFile(file)
        marked = {each.name for each in source.schema_arrow if each.metadata == _MARK}
        for batch in source.iter_batches(batch_size=ROWS):
            for row in batch.to_pylist():
                number += 1
                yield {
                    name: loads(value) if name in marked else storable(value)
                    for name, value in row.items()
                    if value is not None
                }
    except (arrow.ArrowException, OSError, OverflowError, ValueError) as error:
        raise InputDamagedError(
            f"the Parquet file cannot be read after row {number}: {error}", line=number
        ) from None


def _kind(value: Any) -> str:
    if isinstance(value, list):
        kinds = {_kind(each) for each in cast(Sequence[Any], value)}
        return f"list of {_common(kinds)}" if kinds else "list"
    if getattr(value, "shape", None) is not None and len(value.shape) == 1:
        return "vector"
    return type(value).__name__


def _common(kinds: set[str]) -> str:
    """The kind of a column, or of a list: "" where it is JSON text."""
    for number, others in (("float", {"int", "float"}), ("list of float", _NUMBERS)):
        if number in kinds and kinds <= others:
            return number
    if "list" in kinds and len(kinds) == 2:  # an empty list is one of any kind
        kinds = kinds - {"list"}
    return next(iter(kinds)) if len(kinds) == 1 else ""


_NUMBERS: Final = {"list of int", "list of float", "list"}


def _stored(value: Any, as_text: bool) -> Any:
    if value is None:
        return None
    if as_text:
        return dumps(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value.tolist() if hasattr(value, "tolist") else value
