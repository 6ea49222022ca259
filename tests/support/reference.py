"""The filter language and the orders once more, as plainly as they can be written.

It follows docs/queries.md, shares no code with the package, and is slow. Values here are what
documents hold.

Invariants:
- `rank` gives equal results exactly for values that no order tells apart.
"""

# What a document holds has no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

GONE = object()
"""The value of a field that is not there."""

Doc = dict[str, Any]

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def rank(value: Any) -> Any:
    """Sorts as values do in an order."""
    if value is None or value is GONE:
        return (0,)
    if isinstance(value, bool):
        return 1, value
    for number, kind in ((2, (int, float)), (3, str), (4, bytes), (5, datetime)):
        if isinstance(value, kind):
            return number, value
    return (6,) if isinstance(value, list) else (7,)


def same(left: Any, right: Any) -> bool:
    """Equal in every type, at any depth: what a database gives back is what was put."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(map(repr, sorted(left))) == list(map(repr, sorted(right))) and all(
            same(value, right[name]) for name, value in left.items()
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        arrays: tuple[NDArray[Any], NDArray[Any]] = left, right
        return arrays[0].dtype == arrays[1].dtype and np.array_equal(*arrays)
    return bool(left == right) and repr(left) == repr(right)


def field(doc: Any, path: str) -> Any:
    """The value of a dotted path, or GONE."""
    first, _, rest = path.partition(".")
    if isinstance(doc, list):
        found: list[Any] = []
        is_there = False
        for element in doc:
            value = field(element, path) if isinstance(element, dict) else GONE
            if value is not GONE:
                is_there = True
                found.extend(value if isinstance(value, list) else [value])
        return found if is_there else GONE
    if not isinstance(doc, dict) or first not in doc:
        return GONE
    return field(doc[first], rest) if rest else doc[first]


def matches(doc: Doc, where: Mapping[str, Any] | None) -> bool:
    for name, operand in (where or {}).items():
        if name == "$and":
            fits = all(matches(doc, each) for each in operand)
        elif name == "$or":
            fits = any(matches(doc, each) for each in operand)
        elif name == "$not":
            fits = not matches(doc, operand)
        else:
            fits = _field_matches(field(doc, name), operand)
        if not fits:
            return False
    return True


def _field_matches(value: Any, operand: Any) -> bool:
    if isinstance(operand, Mapping) and any(str(name).startswith("$") for name in operand):
        return all(_operator(value, name, each) for name, each in operand.items())
    return _operator(value, "$eq", operand)


def _operator(value: Any, name: str, operand: Any) -> bool:
    if name == "$ne":
        return not _operator(value, "$eq", operand)
    if name == "$nin":
        return not _operator(value, "$in", operand)
    if name == "$in":
        return any(_operator(value, "$eq", each) for each in operand)
    if name == "$not":
        return not _field_matches(value, operand)
    if name == "$exists":
        return bool((value is not GONE) == operand)
    if name == "$contains":
        if isinstance(value, list):
            return any(_equal(each, operand) for each in value)
        return isinstance(value, str) and isinstance(operand, str) and operand in value
    if name == "$prefix":
        return any(
            rank(each)[0] == rank(operand)[0] and each[: len(operand)] == operand
            for each in _elements(value)
        )
    if name == "$eq":
        whole = isinstance(operand, list) and isinstance(value, list) and _equal(value, operand)
        return whole or any(_equal(each, operand) for each in _elements(value))
    return any(
        rank(each)[0] == rank(operand)[0] and _COMPARE[name](rank(each), rank(operand))
        for each in _elements(value)
    )


def _elements(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _equal(left: Any, right: Any) -> bool:
    if rank(left)[0] != rank(right)[0]:
        return False
    if isinstance(left, dict):
        return set(left) == set(right) and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(rank(left) == rank(right))


def values(docs: Iterable[Doc], path: str) -> list[tuple[Any, int]]:
    """The values of a field, and in how many documents each is."""
    found: list[tuple[Any, int]] = []
    for doc in docs:
        own: list[Any] = []
        for value in _elements(field(doc, path)):
            value = None if value is GONE else value
            if not any(_equal(value, each) for each in own):
                own.append(value)
        for value in own:
            at = next((n for n, (each, _) in enumerate(found) if _equal(each, value)), None)
            if at is None:
                found.append((value, 1))
            else:
                found[at] = found[at][0], found[at][1] + 1
    return sorted(found, key=lambda pair: rank(pair[0]))


def ordered(docs: Iterable[tuple[int, Doc]], order_by: Sequence[str]) -> list[Doc]:
    """(rowid, document) pairs in the order asked for; ties by rowid, in the last direction."""
    is_last_descending = bool(order_by) and order_by[-1].startswith("-")
    found = sorted(docs, key=lambda pair: pair[0], reverse=is_last_descending)
    for name in reversed(order_by):
        descending = name.startswith("-")
        choose = max if descending else min

        def key(
            pair: tuple[int, Doc], path: str = name.removeprefix("-"), choose: Any = choose
        ) -> Any:
            value = field(pair[1], path)
            return choose(map(rank, (value or [None]) if isinstance(value, list) else [value]))

        found.sort(key=key, reverse=descending)
    return [doc for _, doc in found]
