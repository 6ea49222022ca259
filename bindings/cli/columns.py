"""Rows of named values, and the columns that they make.

Invariants:
- A row is a map; a column may also be a dotted path into it. "id" is the first column.
- COLUMNS_MAX columns at most: what has more is not for a table.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from amberdb import QueryError, value_at
from amberdb._jsonl.text import dumps, iso

COLUMNS_MAX: Final = 1000

Row = Mapping[str, Any]


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The names of the values, in the order in which they are first seen, "id" before all. Raises
    QueryError when there are more than COLUMNS_MAX."""
    names: dict[str, None] = {}
    for row in rows:
        if not row.keys() <= names.keys():
            names.update(dict.fromkeys(row))
            check_columns(names)
    return ["id", *(name for name in names if name != "id")] if "id" in names else list(names)


def check_columns(names: Iterable[str]) -> None:
    """Raises QueryError when there are more than COLUMNS_MAX."""
    if len(list(names)) > COLUMNS_MAX:
        raise QueryError(f"more than {COLUMNS_MAX} fields: choose with --fields, or use jsonl")


def value_of(row: Row, name: str) -> Any:
    """The value of a column; its name may be a path."""
    return row[name] if name in row else value_at(dict(row), name) if "." in name else None


def flat(value: Any) -> str:
    """A value as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return dumps(value)
