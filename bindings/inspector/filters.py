"""Filters that a person writes: as JSON, or as conditions that are put together.

Invariants:
- The conditions of a builder and the JSON are one filter: where_of() makes it of conditions, and
  conditions_of() gives them back for every filter that is a conjunction of such conditions.
- What a person types as a value is JSON where it can be read as JSON, else it is text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, final

from amberdb import QueryError, Where
from amberdb._jsonl.text import dumps, loads
from amberdb.inspector.values import kind_of

OPERATORS: Final = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$prefix", "$contains", "$exists",
)  # fmt: skip
_NUMBER_LIKE: Final = re.compile(r"[-+]?0\d|[-+.\d]+[eE_]")
"""Digits that are rather an id or a code than a number: 007, 12e5."""


@final
@dataclass(frozen=True, slots=True)
class Condition:
    """One line of a builder."""

    field: str
    operator: str
    value: str
    """As a person types it."""


def parse_where(text: str) -> Where | None:
    """The filter of a text; None for an empty one. Raises QueryError."""
    if not text.strip():
        return None
    try:
        value = loads(text)
    except ValueError as error:
        raise QueryError(f"the filter: {error}") from None
    if type(value) is not dict:
        raise QueryError('the filter is not a map: write {"field": value}')
    return cast(Where, value) or None


def where_text(where: Where | None) -> str:
    """A filter as JSON text."""
    return dumps(dict(where)) if where else ""


def where_of(conditions: Iterable[Condition]) -> Where | None:
    """The filter that all conditions together are; None without one. Conditions without a field
    are left out. Raises QueryError for an operator that there is not."""
    made: dict[str, dict[str, Any]] = {}
    more: list[Where] = []
    for condition in conditions:
        field, operator = condition.field.strip(), condition.operator
        if not field:
            continue
        if operator not in OPERATORS:
            raise QueryError(f"{operator!r} is not an operator: use {', '.join(OPERATORS)}")
        value = _operand(operator, condition.value)
        known = made.setdefault(field, {})
        if operator in known:
            more.append({field: {operator: value}})
        else:
            known[operator] = value
    where: dict[Any, Any] = {field: _short(entry) for field, entry in made.items()}
    if more:
        where["$and"] = more
    return where or None


def conditions_of(where: Where | None) -> list[Condition] | None:
    """The conditions of a filter, for a builder; None when it is not made of such."""
    conditions: list[Condition] = []
    for field, entry in (where or {}).items():
        if field == "$and" and isinstance(entry, list):
            parts = [conditions_of(each) for each in cast(list[Where], entry)]
            if any(part is None for part in parts):
                return None
            conditions += [condition for part in parts for condition in part or ()]
            continue
        if not isinstance(field, str) or field.startswith("$"):
            return None
        operators = cast(Mapping[Any, Any], entry) if _has_operators(entry) else {"$eq": entry}
        for operator, value in operators.items():
            if operator not in OPERATORS:
                return None
            conditions.append(Condition(field, operator, _typed(value)))
    return conditions


def _operand(operator: str, text: str) -> Any:
    if operator == "$exists":
        return text.strip().lower() not in ("false", "0", "no")
    if operator in ("$prefix", "$contains"):
        value = _value(text)
        return value if isinstance(value, str | bytes) or operator == "$contains" else text
    value = _value(text)
    if operator in ("$in", "$nin") and not isinstance(value, list):
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return cast(Any, value)


def _value(text: str) -> Any:
    stripped = text.strip()
    if _NUMBER_LIKE.match(stripped) and stripped[:1] not in '"{[':
        return text
    try:
        return loads(stripped)
    except ValueError:
        return text


def _typed(value: Any) -> str:
    """The text that a person would type for this value."""
    if isinstance(value, str) and _value(value) == value and value.strip() == value:
        return value
    return dumps(value)


def _short(entry: dict[str, Any]) -> Any:
    """{"$eq": value} as the value itself, where that means the same."""
    if list(entry) == ["$eq"] and not isinstance(entry["$eq"], Mapping):
        return entry["$eq"]
    return entry


def _has_operators(entry: Any) -> bool:
    names: list[Any] = list(entry) if kind_of(entry) == "map" else []
    return bool(names) and all(isinstance(name, str) and name.startswith("$") for name in names)
