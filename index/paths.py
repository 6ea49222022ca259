"""Dotted paths: from a document to the value that a filter, an order or an index names.

Invariants:
- A path goes through maps only; every segment is a map key, also one that looks like a number.
- Where it meets a list on its way, it goes on in each of the list's maps, and stands for the flat
  list of what it found there (lists found at the end are joined). Other elements are passed over;
  when none of them leads on, the field is missing.
- Filters, orders, indexes, imports and series all read through this module, so they agree.

`a.b` is always b inside a. A key that contains a dot, or is empty, is reached by the list of the
keys on the way: ["a.b", "c"]. Its name as a str, which JSON and `-` in an order take too, is
`.["a.b","c"]`: no other path begins with a dot.
"""

# What a document holds has no static type, so type(value) and its lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast, final

from amberdb._public import public
from amberdb._types import Document


class _Missing(Enum):
    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""What Path.get returns when the document does not have the field."""

Missing: TypeAlias = Literal[_Missing.MISSING]

_LISTED: Final = ".["
_DENSE: Final = (",", ":")


@final
class Path:
    """One path, compiled. Raises ValueError when the name is not a path. Path.of caches paths."""

    __slots__ = ("find", "get", "is_plain", "name", "segments")

    name: str
    segments: tuple[str, ...]
    is_plain: bool
    """Whether the path is one key, `segments[0]`: `document.get()` of it is the value."""
    get: Callable[[Document], Any]
    """The value, or MISSING."""
    find: Callable[[Document], Any]
    """The value, or None when the field is missing."""

    def __init__(self, name: str) -> None:
        problem = path_problem(name)
        if problem:
            raise ValueError(problem)
        name = str.__str__(name)  # of an Enum for one, which prints otherwise
        self.name = name
        self.segments = _segments(name)
        self.is_plain = len(self.segments) == 1
        if self.is_plain:
            (key,) = self.segments
            self.get = lambda document: document.get(key, MISSING)
            self.find = lambda document: document.get(key)
        else:
            self.get = _dotted(self.segments)
            self.find = _dotted(self.segments, None)

    def __repr__(self) -> str:
        return f"Path({self.name!r})"

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(name: str) -> "Path":
        """Path(name), from a cache."""
        return Path(name)


def path_name(path: object) -> Any:
    """The name of a path that is given as a list of keys; anything else as it is. Raises
    ValueError."""
    if not isinstance(path, (list, tuple)):
        return path
    keys: Sequence[Any] = path
    if not keys or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"a path is a str, or a list of keys that are str, not {path!r}")
    if all(key and "." not in key for key in keys):
        return ".".join(keys)
    plain = [str.__str__(key) for key in keys]
    return "." + json.dumps(plain, ensure_ascii=False, separators=_DENSE)


@public
def value_at(document: Mapping[str, Any], path: str | Sequence[str], default: Any = None) -> Any:
    """The value at a path, as filters, orders and indexes read it: `value_at(event, "a.b")`, or
    `value_at(event, ["a.b"])` for the key "a.b".

    A path that meets a list goes on in each map of the list and returns the list of all values
    found there. `default` when the field is missing. Raises ValueError for an invalid path.
    """
    plain = document if type(document) is dict else dict(document)  # a Projection, for one
    value = Path.of(path_name(path)).get(plain)
    return default if value is MISSING else value


def path_problem(name: object) -> str | None:
    """Why this is not a path; None when it is one."""
    if not isinstance(name, str):
        return f"a field is named by a str, not by {type(name).__name__}"
    if not name:
        return "a field has an empty name"
    if not name.startswith(_LISTED) and "" in name.split("."):
        return f"the path {name!r} has an empty segment: name a key with a dot by a list of keys"
    try:
        name.encode()
        _segments(name)
    except UnicodeEncodeError:
        return f"the path {name!r} has a lone surrogate"
    except (ValueError, RecursionError):
        return f"the path {name!r} is not a dot and a JSON list of keys, written without spaces"
    return None


def _segments(name: str) -> tuple[str, ...]:
    """The keys on the way. Raises ValueError for a name that path_name() cannot have returned."""
    if not name.startswith(_LISTED):
        return tuple(name.split("."))
    keys = json.loads(name[1:])
    if path_name(keys) != name:
        raise ValueError(name)
    return tuple(keys)


def _dotted(segments: tuple[str, ...], missing: object = MISSING) -> Callable[[Document], Any]:
    def get(document: Document) -> Any:
        value: Any = document
        for depth, segment in enumerate(segments):
            if type(value) is dict:
                value = cast(Document, value).get(segment, MISSING)
                if value is MISSING:
                    return missing
            elif type(value) is list:
                elements: list[Any] = value
                values = _fan_out(elements, segments[depth:])
                return missing if values is None else values
            else:
                return missing
        return value

    return get


def _fan_out(elements: list[Any], segments: tuple[str, ...]) -> list[Any] | None:
    """The values of the rest of the path in the maps of a list; None when no map has one."""
    rest = _dotted(segments)
    values: list[Any] | None = None
    for element in elements:
        if type(element) is not dict:
            continue
        value = rest(cast(Document, element))
        if value is MISSING:
            continue
        if values is None:
            values = []
        if type(value) is list:
            inner: list[Any] = value
            values.extend(inner)
        else:
            values.append(value)
    return values
