"""Vectors that callers give: checked, and converted to float32.

Invariants:
- A returned array is a copy: float32, read-only, finite, and short enough that no score of two such
  vectors overflows. A stored vector never shares memory with the caller's array.
- An error names the field; in a list of vectors also the place, as in "chunks[3]".
"""

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeGuard

from amberdb._errors import InvalidDocumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float32]

Metric: TypeAlias = Literal["cosine", "ip", "l2"]
METRICS: Final = ("cosine", "ip", "l2")
LENGTH_MAX: Final = 1e18
"""The greatest length of a vector under "ip" and "l2": products and squares stay far below the
limit of float32."""


def is_converted(value: object) -> "TypeGuard[Array]":
    """Whether this array has the form that coerce() and coerce_several() return."""
    import numpy as np

    return type(value) is np.ndarray and value.dtype == np.float32 and not value.flags.writeable


def coerce(value: object, field: str, dim: int | None, metric: Metric | None) -> "Array":
    """A read-only float32 copy of a list, tuple or array of int or float numbers.

    `dim` None accepts any length, `metric` None any finite numbers. Raises InvalidDocumentError
    (`field`).
    """
    import numpy as np

    numbers: Any = value
    if not isinstance(value, list | tuple | np.ndarray):
        raise _invalid(field, f"is a {type(value).__name__}", "give a list or an array of numbers")
    try:
        given: NDArray[Any] = np.asarray(numbers)
    except ValueError:  # lists of different lengths
        raise _invalid(
            field, "is not a flat list of numbers", "give one number per dimension"
        ) from None
    if given.ndim != 1:
        raise _invalid(
            field,
            f"has {given.ndim} dimensions",
            "give a flat array; an index with multi=True takes several vectors per document",
        )
    if given.dtype.kind not in "iuf" and len(given):
        raise _invalid(
            field,
            f"holds elements of type {given.dtype}",
            "give int or float numbers within the range of float",
        )
    if dim is not None and len(given) != dim:
        raise _invalid(
            field,
            f"has {len(given)} numbers, and the index takes {dim}",
            "embed with the model that the index was declared for",
        )
    if given.dtype == np.float32:
        vector = given.astype(np.float32)  # a copy, though nothing is converted
    else:
        with np.errstate(over="ignore"):
            vector = given.astype(np.float32)
    check_length(vector, given, field, metric)
    vector.flags.writeable = False
    return vector


def coerce_several(value: object, field: str, dim: int | None, metric: Metric | None) -> "Array":
    """A read-only float32 copy, of shape (n, dim), of a list of vectors or an array of this shape.
    One vector alone is a list of one.

    `dim` None accepts any length, of an array of two dimensions; `metric` None any finite numbers.
    Raises InvalidDocumentError: its `field` names the first wrong vector, as "chunks[3]".
    """
    import numpy as np

    given: Any = value
    if not isinstance(value, list | tuple | np.ndarray):
        raise _invalid(field, f"is a {type(value).__name__}", "give a list of vectors")
    if _is_one_vector(given):
        return coerce(given, field, dim, metric)[None]
    if dim is None:
        dim = int(given.shape[1])
        if not dim:
            raise _invalid(field, "has vectors without a number", "leave the field out")
    vectors = _converted_at_once(given, dim, metric)
    if vectors is None:
        rows = [coerce(each, f"{field}[{at}]", dim, metric) for at, each in enumerate(given)]
        vectors = np.array(rows)
    vectors.flags.writeable = False
    return vectors


def _is_one_vector(given: Any) -> bool:
    """Whether an array or list is meant as one vector: it has elements, and none is a vector."""
    import numpy as np

    if not getattr(given, "ndim", 1):  # an array that is a number
        return True
    return len(given) > 0 and not any(isinstance(each, list | tuple | np.ndarray) for each in given)


def _converted_at_once(given: Any, dim: int, metric: Metric | None) -> "Array | None":
    """The vectors of coerce_several(), converted as one array; None unless all are valid."""
    import numpy as np

    try:
        array: NDArray[Any] = np.asarray(given)
    except ValueError:  # vectors of different lengths
        return None
    if not len(array):
        return np.empty((0, dim), np.float32)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind not in "iuf":
        return None
    with np.errstate(over="ignore"):
        vectors = np.array(array, np.float32, order="C")
    return vectors if are_valid(vectors, metric) else None


def are_valid(vectors: "Array", metric: Metric | None) -> bool:
    """Whether check_length() passes each row of float32[n, dim]."""
    import numpy as np

    wide = vectors.astype(np.float64)
    squares = np.vecdot(wide, wide)
    if not np.isfinite(squares).all():
        return False
    if metric == "cosine":
        return bool((squares > 0.0).all())
    return metric is None or bool((squares <= LENGTH_MAX**2).all())


def check_length(vector: "Array", given: "NDArray[Any]", field: str, metric: Metric | None) -> None:
    """Raises InvalidDocumentError unless the vector is finite and its length suits the metric.
    Computed in float64, which holds the square of every finite float32."""
    import numpy as np

    wide = vector.astype(np.float64)
    square = float(np.dot(wide, wide))
    if not isfinite(square):
        place = int(np.argmin(np.isfinite(vector)))
        if np.isfinite(given[place]):
            advice = "the limit of float32 is 3.4e38: scale it"
        else:
            advice = "give finite numbers"
        raise _invalid(field, f"has {given[place]} at {place}", advice)
    if metric == "cosine" and square == 0.0:
        raise _invalid(
            field,
            "is all zeros, for which the cosine is undefined",
            'leave the field out, or declare the metric "l2" or "ip"',
        )
    if metric in ("ip", "l2") and square > LENGTH_MAX**2:
        raise _invalid(field, f"has a length over {LENGTH_MAX:g}", "scale it")


def _invalid(field: str, what: str, advice: str) -> InvalidDocumentError:
    return InvalidDocumentError(f"the vector {field!r} {what}: {advice}", field=field)
