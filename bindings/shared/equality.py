"""Equality of values with their types: 1, 1.0 and True are three, 0.0 and -0.0 are two.

Invariants:
- Of maps the order of the keys does not count; of lists that of the elements does.
"""

from collections.abc import Sequence
from math import copysign
from typing import Any, cast


def equal_in_type(one: Any, other: Any) -> bool:
    """Whether two values, as documents hold them, are equal and of equal types, at all depths."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        ours, theirs = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return ours.keys() == theirs.keys() and all(
            equal_in_type(value, theirs[name]) for name, value in ours.items()
        )
    if type(one) is list:
        items, others = cast(Sequence[Any], one), cast(Sequence[Any], other)
        return len(items) == len(others) and all(map(equal_in_type, items, others))
    if type(one) is float:
        return one == other and copysign(1, one) == copysign(1, other)
    return bool(one == other)
