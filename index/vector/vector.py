"""Vector: nearest neighbours of a vector field.

    metric      score of a document; higher is closer
    cosine      cosine of the angle: -1 to 1
    ip          inner product
    l2          Euclidean distance, negative: 0 is the same vector

Invariants:
- A declaration never changes. Two are equal when their stored fields are: `embed` and `defer` are
  not stored and not compared. A map with an unknown key was written by a newer format and is
  refused.
- coerce() returns a copy: float32, read-only, finite, and short enough that no score of two such
  vectors overflows. A stored vector never shares memory with the caller's array.
- content() and vector() never raise: a value that does not fit the index is not indexed.
"""

import dataclasses
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeGuard, final

from amberdb._errors import CollectionError, FormatError, InvalidDocumentError
from amberdb._types import Document
from amberdb.index.declaration import checked_name
from amberdb.index.paths import Path, path_problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float32]

Metric: TypeAlias = Literal["cosine", "ip", "l2"]
Embed: TypeAlias = Callable[[list[str]], Any]
"""Texts -> an array, or lists, of numbers of shape (len(texts), dim)."""

METRICS: Final = ("cosine", "ip", "l2")
DIM_MAX: Final = 16384
LENGTH_MAX: Final = 1e18
"""The greatest length of a vector under "ip" and "l2": products and squares stay far below the
limit of float32."""

_MAP_KEYS = {"kind", "field", "dim", "metric", "source", "name", "m", "ef_construction", "ef"}


@final
@dataclasses.dataclass(frozen=True, slots=True, init=False, repr=False)
class Vector:
    """Declares a vector index: `Vector("embedding", dim=384, metric="cosine")`.

    dim              numbers in each vector, 1 to 16384
    metric           "cosine", "ip" (inner product) or "l2" (Euclidean distance)
    source, embed    documents that have text in the field `source` and no vector get one:
                     `embed(list of texts)` returns an array of shape (number of texts, dim).
                     `embed` is not stored: give it again at each open
    defer            when `embed` fails, store the document and embed its text later. Not stored
    m                edges of each row in the HNSW graph, 2 to 128
    ef_construction  candidates examined to insert a row into the graph, m to 4096
    ef               candidates examined by a search of the graph, 1 to 4096: a higher value finds
                     more of the true neighbours and is slower

    Raises CollectionError.
    """

    kind: ClassVar[str] = "vector"

    field: str
    dim: int
    metric: Metric
    source: str | None
    name: str
    m: int
    ef_construction: int
    ef: int
    embed: Embed | None = dataclasses.field(compare=False)
    defer: bool = dataclasses.field(compare=False)

    def __init__(
        self,
        field: str,
        *,
        dim: int,
        metric: Metric = "cosine",
        source: str | None = None,
        embed: Embed | None = None,
        defer: bool = False,
        name: str | None = None,
        m: int = 16,
        ef_construction: int = 128,
        ef: int = 128,
    ) -> None:
        for what, path in (("field", field), ("source", source)):
            problem = path_problem(path) if what == "field" or path is not None else None
            if problem:
                raise CollectionError(f"the {what} of a vector index: {problem}")
        field = str.__str__(field)
        source = None if source is None else str.__str__(source)
        if metric not in METRICS:
            raise CollectionError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
        _check_number("dim", dim, 1, DIM_MAX)
        _check_number("m", m, 2, 128)
        _check_number("ef_construction", ef_construction, m, 4096)
        _check_number("ef", ef, 1, 4096)
        if embed is not None and not callable(embed):
            raise CollectionError(f"embed must be a function of a list of str, not {embed!r}")
        if embed is not None and source is None:
            raise CollectionError("embed needs source=, the field whose text it embeds")
        if name is None:
            name = f"{self.kind}:{field}"
        name = checked_name(name)
        for attribute, value in (
            ("field", field),
            ("dim", dim),
            ("metric", metric),
            ("source", source),
            ("name", name),
            ("m", m),
            ("ef_construction", ef_construction),
            ("ef", ef),
            ("embed", embed),
            ("defer", defer),
        ):
            object.__setattr__(self, attribute, value)

    def __repr__(self) -> str:
        parts = [repr(self.field), f"dim={self.dim}", f"metric={self.metric!r}"]
        if self.source is not None:
            parts.append(f"source={self.source!r}")
        if self.name != f"{self.kind}:{self.field}":
            parts.append(f"name={self.name!r}")
        parts += [f"{what}={getattr(self, what)}" for what in ("m", "ef_construction", "ef")]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def fields(self) -> tuple[str, ...]:
        """The field, as a tuple: other kinds of indexes have several."""
        return (self.field,)

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores."""
        stored: dict[str, Any] = {key: getattr(self, key) for key in sorted(_MAP_KEYS)}
        return stored

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "Vector":
        """The declaration that to_map() stored, without `embed`. Raises FormatError."""
        if set(stored) != _MAP_KEYS or stored["kind"] != cls.kind:
            raise FormatError(
                f"an index of kind {cls.kind!r} with an unknown field "
                f"(written by a newer version?): {stored!r}"
            )
        try:
            return cls(**{key: value for key, value in stored.items() if key != "kind"})
        except CollectionError as error:
            raise FormatError(f"a stored index is invalid: {error}") from error

    def vector(self, document: Document) -> "Array | None":
        """The vector of a stored document that is indexed: float32[dim], read-only; None when the
        document has none that fits.

        An array that is float32 and read-only, as prepared and decoded documents have it, is
        checked and returned without a copy.
        """
        value = Path.of(self.field).find(document)
        if value is None:
            return None
        try:
            if _is_converted(value, self.dim):
                _check_length(value, value, self.field, self.metric)
                return value
            return coerce(value, self.field, self.dim, self.metric)
        except InvalidDocumentError:
            return None

    def content(self, document: Document) -> bytes | None:
        """vector() as little-endian bytes, to be compared with ==; None for none."""
        vector = self.vector(document)
        return None if vector is None else vector.astype("<f4", copy=False).tobytes()


def _check_number(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise CollectionError(f"{what} must be an int from {low} to {high}, not {value!r}")


def _is_converted(value: object, dim: int) -> "TypeGuard[Array]":
    """Whether this has the form that coerce() returns, with `dim` numbers."""
    if getattr(value, "shape", None) != (dim,):  # of most lists, before numpy is imported
        return False
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
            field, f"has {given.ndim} dimensions", "give a flat array, one vector per document"
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
    _check_length(vector, given, field, metric)
    vector.flags.writeable = False
    return vector


def _check_length(
    vector: "Array", given: "NDArray[Any]", field: str, metric: Metric | None
) -> None:
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
