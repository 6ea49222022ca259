"""Values of documents outside the database: compared, and as JSON.

    {"$date": "2026-02-23T00:41:00.000001Z"}   a datetime, ISO 8601 in UTC
    {"$bytes": "aGVsbG8="}                     bytes, base64
    {"$vector": "AACAPwAAAEA="}                a vector: its float32, little-endian, base64
    {"$vector": {"dim": 2, "data": "AACA..."}} several vectors of one field, joined

Invariants:
- equal() is the equality of filters, for documents and vectors as well: 1 equals 1.0 and not True.
- to_json() gives the maps that `amberdb import` reads.
"""

# The values of a document have no static type, so type(value) and its parts are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import base64
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from amberdb._public import public


@public
def equal(left: Any, right: Any) -> bool:
    """Whether two documents, or values, are the same, vectors included.

        amberdb.equal(memory["a"], {"id": "a", "embedding": [0.25, 0.5]})

    A vector equals the list of its numbers, as float32. Maps are compared in any order of their
    keys, times by their instant; 1 equals 1.0, and not True.
    """
    if _is_array(left) or _is_array(right):
        return _equal_arrays(left, right)
    if isinstance(left, Mapping):
        return (
            isinstance(right, Mapping)
            and len(left) == len(right)
            and all(name in right and equal(value, right[name]) for name, value in left.items())
        )
    if isinstance(left, (list, tuple)):
        return (
            isinstance(right, (list, tuple))
            and len(left) == len(right)
            and all(map(equal, left, right))
        )
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


@public
def to_json(value: Any) -> Any:
    """What json.dumps() makes of a value that JSON does not have, as its `default`.

        json.dumps(document, default=amberdb.to_json)

    A datetime, bytes and a vector become a map with one key (docs/cli.md), which `amberdb import`
    reads; a Record or Hit a map of its fields. Raises TypeError for anything else.
    """
    if isinstance(value, datetime):
        return {"$date": value.astimezone(UTC).isoformat().replace("+00:00", "Z")}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if _is_array(value):
        data = base64.b64encode(value.astype("<f4", copy=False).tobytes()).decode("ascii")
        return {"$vector": data if value.ndim == 1 else {"dim": value.shape[1], "data": data}}
    if hasattr(value, "dtype"):  # a scalar of numpy
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"a {type(value).__name__} has no place in a document: convert it before")


def _is_array(value: Any) -> bool:
    return bool(getattr(value, "ndim", 0))


def _equal_arrays(left: Any, right: Any) -> bool:
    import numpy as np  # only a database with vectors needs it

    if not all(_is_array(value) or isinstance(value, (list, tuple)) for value in (left, right)):
        return False
    if not len(left) and not len(right):  # an array of no vectors has the shape (0, dim)
        return True
    try:
        return np.array_equal(np.asarray(left, np.float32), np.asarray(right, np.float32))
    except (TypeError, ValueError):
        return False
