"""What a series is asked for: the fields, the groups and the filter.

Invariants:
- A group is one value of a field, as in distinct(): each element of a list is a value, an empty
  list is in no group, a missing field is None.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, cast, final

from amberdb import Document, QueryError, value_at

Key: TypeAlias = tuple[int, Any]
"""A group, as it sorts: the rank of its type, and its value."""

UNGROUPED: Final[Key] = (0, None)
_RANKS: Final[Mapping[type, int]] = {bool: 1, int: 2, float: 2, str: 3, bytes: 4, datetime: 5}
"""Types in the order of the database, after None; int and float are one."""


@final
@dataclass(frozen=True, slots=True)
class Question:
    collection: str
    field: str
    of: Sequence[str]
    percentiles: Sequence[float]
    group_by: str | None
    where: Mapping[str, Any]

    @property
    def fields(self) -> list[str]:
        """What is read of each document."""
        return [self.field, *self.of, *([] if self.group_by is None else [self.group_by])]


def keys_of(document: Document, group_by: str) -> Iterable[Key]:
    """The groups of a document. Raises QueryError."""
    value = value_at(document, group_by)
    values = cast(Sequence[Any], value) if isinstance(value, list) else [value]
    return {key_of(each, group_by) for each in values}


def key_of(value: Any, group_by: str) -> Key:
    """Raises QueryError."""
    if value is None:
        return UNGROUPED
    rank = next((rank for kind, rank in _RANKS.items() if isinstance(value, kind)), None)
    if rank is None:
        raise QueryError(
            f"the field {group_by!r} holds a {type(value).__name__}, which is no group: group by "
            "one of its fields"
        )
    return rank, value


def fields_of(of: str | Sequence[str] | None) -> list[str]:
    """The fields to aggregate, each once. Raises QueryError."""
    paths: Sequence[object] = [] if of is None else [of] if isinstance(of, str) else of
    if not isinstance(paths, list | tuple):
        raise QueryError(f"of is a path or a list of paths, not {of!r}")
    return [
        path
        for path in dict.fromkeys(checked_path("of", each) for each in paths)
        if path is not None
    ]


def checked_path(name: str, path: object) -> str | None:
    if path is not None and (not isinstance(path, str) or not path):
        raise QueryError(f"{name} is the path of a field, not {path!r}")
    return path


def checked_percentiles(percentiles: Sequence[float], of: object) -> list[float]:
    """Raises QueryError."""
    given: Any = percentiles
    if not isinstance(given, list | tuple | range):
        raise QueryError(f"percentiles is a list of numbers from 0 to 100, not {given!r}")
    numbers = list(cast(Sequence[Any], given))
    for each in numbers:
        if not isinstance(each, int | float) or isinstance(each, bool) or not 0 <= each <= 100:
            raise QueryError(f"a percentile is a number from 0 to 100, not {each!r}")
    if numbers and not of:
        raise QueryError("percentiles need numbers: give of, the path of a field")
    return numbers
