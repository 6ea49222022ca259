"""Haystack's filters in AmberDB's language (docs/queries.md).

Invariants:
- What Haystack refuses is a FilterError: a key that is missing, an operator that is unknown, an
  order of texts that are no times, a list behind `>`, anything else than a list behind `in`.
- A time is compared with the times of the documents (documents.py), everything else as it is.
- A list in a document matches when an element does.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, cast

from haystack.errors import FilterError

from amberdb import QueryError
from amberdb.integrations.haystack.documents import FIELDS, time_of

Filter: TypeAlias = dict[Any, Any]
Path: TypeAlias = tuple[str, ...]

DEPTH_MAX: Final = 32
NOTHING: Final[Filter] = {"id": {"$in": []}}
_ORDERS: Final = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}


@contextmanager
def filter_errors() -> Generator[None]:
    """A QueryError of the block is raised as FilterError."""
    try:
        yield
    except QueryError as error:
        raise FilterError(str(error)) from error


def where_of(filters: Mapping[str, Any] | None) -> Filter:
    """The filter in AmberDB's language; without conditions for None and {}. Raises FilterError."""
    return _either(filters, 1) if filters else {}


def meta_path(field: str) -> Path:
    """The path of a metadata field, with or without "meta." in front."""
    return ("meta", *field.removeprefix("meta.").split("."))


def _either(condition: object, depth: int) -> Filter:
    if not isinstance(condition, Mapping):
        raise FilterError(f"a condition must be a map, not {condition!r}")
    if depth > DEPTH_MAX:
        raise FilterError(f"a filter has more than {DEPTH_MAX} levels")
    known = cast(Mapping[str, Any], condition)
    if "field" in known:
        operator, value = _needed(known, "operator"), _needed(known, "value")
        return _comparison(_path(known["field"]), operator, value)
    operator = _needed(known, "operator")
    conditions = _needed(known, "conditions")
    if not isinstance(conditions, list):
        raise FilterError(f"'conditions' must be a list, not {conditions!r}")
    parts = [_either(each, depth + 1) for each in cast(list[object], conditions)]
    if operator == "AND":
        return {"$and": parts} if parts else {}
    if operator == "OR":
        return {"$or": parts} if parts else NOTHING
    if operator == "NOT":
        return {"$not": {"$and": parts}} if parts else NOTHING
    raise FilterError(f"the logical operator {operator!r} is unknown: use AND, OR or NOT")


def _needed(condition: Mapping[str, Any], key: str) -> Any:
    if key not in condition:
        raise FilterError(f"the key {key!r} is missing in {condition!r}")
    return condition[key]


def _path(field: object) -> Path:
    if not isinstance(field, str):
        raise FilterError(f"'field' must be a str, not {field!r}")
    path = tuple(field.split("."))
    return path if path[0] in FIELDS else ("meta", *path)


def _comparison(path: Path, operator: object, value: object) -> Filter:
    if operator == "==":
        return _equal(path, value)
    if operator == "!=":
        return {"$not": _equal(path, value)}
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"the value of {operator!r} must be a list, not {value!r}")
        found = _one_of(path, cast(list[object], value))
        return found if operator == "in" else {"$not": found}
    if isinstance(operator, str) and operator in _ORDERS:
        return _ordered(path, operator, value)
    raise FilterError(
        f"the operator {operator!r} is unknown: use ==, !=, >, >=, <, <=, in or not in"
    )


def _equal(path: Path, value: Any) -> Filter:
    if path == ("embedding",):
        if value is not None:
            raise FilterError("an embedding can only be compared with None")
        return {path: {"$exists": False}}
    path, value = _in_time(path, value)
    return {path: {"$eq": value}}


def _one_of(path: Path, values: list[object]) -> Filter:
    of: dict[Path, list[Any]] = {}
    for value in values:
        own, value = _in_time(path, value)
        of.setdefault(own, []).append(value)
    parts: list[Filter] = [{own: {"$in": group}} for own, group in of.items()]
    return {"$or": parts} if parts else NOTHING


def _ordered(path: Path, operator: str, value: Any) -> Filter:
    if value is None:
        return NOTHING
    own, instant = _in_time(path, value)
    if isinstance(instant, (str, list, tuple, dict)):
        raise FilterError(
            f"{operator} compares numbers and times in ISO 8601, not {instant!r}, in "
            f"{'.'.join(path)!r}"
        )
    return {own: {_ORDERS[operator]: instant}}


def _in_time(path: Path, value: Any) -> tuple[Path, Any]:
    """The path and the value to compare: of a time those of `dates`."""
    time = time_of(value) if path[0] == "meta" else None
    return (path, value) if time is None else (("dates", *path[1:]), time)
