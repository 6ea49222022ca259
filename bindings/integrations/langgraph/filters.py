"""LangGraph's filters of items: what AmberDB answers of them, and the whole of them.

    {"kind": "note"}   {"stars": {"$gte": 3, "$lt": 5}}   {"place": {"city": "Oslo"}}

Invariants:
- Every item that matches() is found by where(), which finds more: LangGraph compares True and 1 as
  equal, and numbers with texts that are numbers.
- A key is that of a field, or the path to one inside maps, with dots.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

_OPERATORS: Final = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
_INTEGER_END: Final = 1 << 63


def where(filter: Mapping[str, Any] | None) -> dict[Any, Any]:
    """The part of a filter that narrows what is read. Raises ValueError for an operator that
    LangGraph does not have."""
    found: dict[Any, Any] = {}
    for key, wanted in (filter or {}).items():
        if _is_operators(wanted):
            for operator in wanted:
                if operator not in _OPERATORS:
                    raise ValueError(
                        f"Unsupported operator: {operator}; a filter has {', '.join(_OPERATORS)}"
                    )
            wanted = wanted.get("$eq")
        if "." not in key and _is_narrow(wanted):
            found["value", key] = wanted
    return found


def _is_narrow(wanted: object) -> bool:
    """Whether AmberDB's equality finds all that LangGraph's does."""
    if type(wanted) is float:
        return math.isfinite(wanted) and wanted not in (0, 1)
    if type(wanted) is int:
        return abs(wanted) < _INTEGER_END and wanted not in (0, 1)
    return type(wanted) is str


def matches(value: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    """Whether the value of an item matches a filter."""
    return all(_compare(_at(value, key), wanted) for key, wanted in (filter or {}).items())


def _at(value: object, key: str) -> Any:
    if _is_map(value) and key in value:
        return value[key]
    for part in key.split("."):
        value = value.get(part) if _is_map(value) else None
    return value


def _is_map(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _is_operators(wanted: object) -> TypeGuard[Mapping[str, Any]]:
    return _is_map(wanted) and any(str(key).startswith("$") for key in wanted)


def _compare(value: Any, wanted: Any) -> bool:
    if _is_operators(wanted):
        return all(_operate(value, operator, operand) for operator, operand in wanted.items())
    if _is_map(wanted):
        return _is_map(value) and all(
            _compare(value.get(key), entry) for key, entry in wanted.items()
        )
    if _is_list(wanted):
        return (
            _is_list(value)
            and len(value) == len(wanted)
            and all(_compare(have, element) for have, element in zip(value, wanted, strict=True))
        )
    return bool(value == wanted)


def _operate(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return bool(value == operand)
    if operator == "$ne":
        return bool(value != operand)
    if not (isinstance(value, str) and isinstance(operand, str)):
        try:
            value, operand = float(value), float(operand)
        except (TypeError, ValueError, OverflowError):
            return False
    if operator == "$gt":
        return bool(value > operand)
    if operator == "$gte":
        return bool(value >= operand)
    return bool(value < operand if operator == "$lt" else value <= operand)
