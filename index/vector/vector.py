"""Vector: nearest neighbours of a vector field.

    metric      score of a vector; higher is closer
    cosine      cosine of the angle: -1 to 1
    ip          inner product
    l2          Euclidean distance, negative: 0 is the same vector

Invariants:
- A declaration never changes. Two are equal when their stored fields are: `embed` and `defer` are
  not stored and not compared. A map with an unknown key was written by a newer format and is
  refused.
- content() and vectors() never raise: a value that does not fit the index is not indexed.
- The map of a declaration with one vector per document has no "multi": it is that of the first
  version, which refuses the others.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, final

from amberdb._errors import CollectionError, FormatError, InvalidDocumentError
from amberdb._public import public
from amberdb._types import Document
from amberdb.index.declaration import checked_name
from amberdb.index.paths import Path, path_problem
from amberdb.index.vector.coercion import (
    METRICS,
    Metric,
    are_valid,
    check_length,
    coerce,
    coerce_several,
    is_converted,
)

if TYPE_CHECKING:
    from amberdb.index.vector.coercion import Array

Embed: TypeAlias = Callable[[list[str]], Any]
"""Texts -> an array, or lists, of numbers of shape (len(texts), dim)."""

DIM_MAX: Final = 16384
MEAN_OF_MAX: Final = 64

_MAP_KEYS = {"kind", "field", "dim", "metric", "source", "name", "m", "ef_construction", "ef"}
_MULTI_KEYS = {"multi", "mean_of"}


@public
@final
@dataclasses.dataclass(frozen=True, slots=True, init=False, repr=False)
class Vector:
    """Declares a vector index: `Vector("embedding", dim=384, metric="cosine")`.

    dim              numbers in each vector, 1 to 16384
    metric           "cosine", "ip" (inner product) or "l2" (Euclidean distance)
    source, embed    documents that have text in the field `source` and no vector get one:
                     `embed(list of texts)` returns an array of shape (number of texts, dim).
                     `embed` is not stored: give it again at each open
    multi            a document has any number of vectors in the field, a list or an array of shape
                     (n, dim). `source` is a text or a list of texts, each with a vector of its own
    mean_of          with `multi`: the score of a document is the mean of the scores of so many of
                     its vectors, the best ones; of all when it has fewer. 1: the best one counts
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
    multi: bool
    mean_of: int
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
        multi: bool = False,
        mean_of: int = 1,
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
        _check_number("mean_of", mean_of, 1, MEAN_OF_MAX if multi else 1)
        if type(multi) is not bool:  # pyright: ignore[reportUnnecessaryComparison]
            raise CollectionError(f"multi must be True or False, not {multi!r}")
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
            ("multi", multi),
            ("mean_of", mean_of),
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
        if self.multi:
            parts += ["multi=True", f"mean_of={self.mean_of}"]
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def fields(self) -> tuple[str, ...]:
        """The field, as a tuple: other kinds of indexes have several."""
        return (self.field,)

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores."""
        keys = _MAP_KEYS | _MULTI_KEYS if self.multi else _MAP_KEYS
        stored: dict[str, Any] = {key: getattr(self, key) for key in sorted(keys)}
        return stored

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "Vector":
        """The declaration that to_map() stored, without `embed`. Raises FormatError."""
        keys = _MAP_KEYS | _MULTI_KEYS if stored.get("multi") is True else _MAP_KEYS
        if set(stored) != keys or stored["kind"] != cls.kind:
            raise FormatError(
                f"an index of kind {cls.kind!r} with an unknown field "
                f"(written by a newer version?): {stored!r}"
            )
        try:
            return cls(**{key: value for key, value in stored.items() if key != "kind"})
        except CollectionError as error:
            raise FormatError(f"a stored index is invalid: {error}") from error

    def coerced(self, value: object) -> "Array":
        """The vectors of a document, given as the value of the field, as they are stored:
        float32[dim], or float32[n, dim] with `multi`; a read-only copy. Raises
        InvalidDocumentError."""
        to_stored = coerce_several if self.multi else coerce
        return to_stored(value, self.field, self.dim, self.metric)

    def vectors(self, document: Document) -> "Array | None":
        """The vectors of a stored document that are indexed: float32[n, dim], read-only; None when
        it has none that fit.

        An array that is float32 and read-only, as prepared and decoded documents have it, is
        checked and returned without a copy.
        """
        value = Path.of(self.field).find(document)
        if value is None:
            return None
        shape = getattr(value, "shape", ())  # of most lists, before numpy is imported
        try:
            if shape == (self.dim,) and is_converted(value):
                check_length(value, value, self.field, self.metric)
                return value[None]
            if self.multi and shape[1:] == (self.dim,) and is_converted(value):
                vectors = value if are_valid(value, self.metric) else value[:0]
            else:
                vectors = self.coerced(value).reshape(-1, self.dim)
        except InvalidDocumentError:
            return None
        return vectors if len(vectors) else None

    def centroid(self, document: Document) -> "Array | None":
        """The vector of a document, or the mean of several, each of length one when the metric is
        cosine: float32[dim]. None for none."""
        vectors = self.vectors(document)
        if vectors is None or len(vectors) == 1:
            return None if vectors is None else vectors[0]
        from amberdb.index.vector.distance import prepared  # imports numpy

        mean: Array = prepared(vectors, self.metric).mean(axis=0)
        return mean

    def content(self, document: Document) -> bytes | None:
        """vectors() as little-endian bytes, to be compared with ==; None for none."""
        vectors = self.vectors(document)
        return None if vectors is None else vectors.astype("<f4", copy=False).tobytes()


def _check_number(what: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise CollectionError(f"{what} must be an int from {low} to {high}, not {value!r}")
