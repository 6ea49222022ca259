"""The common part of declarations over fields: Ordered, Unique and EmbeddingQueue.

Invariants:
- A declaration never changes, and two are equal when kind, fields, sparse and name are.
- from_map(to_map()) equals the declaration. A map with an unknown key was written by a newer format
  and is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from amberdb._errors import CollectionError, FormatError
from amberdb._plain import SURROGATE, has_surrogate, plain_text
from amberdb._types import FieldPath
from amberdb.index.paths import path_name, path_problem

FIELDS_MAX = 16
_MAP_KEYS = {"kind", "fields", "sparse", "name"}

_D = TypeVar("_D", bound="Declaration")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Declaration:
    """The fields of an index, in order; "-b" is stored inverted, so that it descends."""

    kind: ClassVar[str]
    fields: tuple[str, ...]
    sparse: bool
    name: str

    def __init__(self, *fields: FieldPath, sparse: bool = False, name: str | None = None) -> None:
        names = checked_fields(fields)
        if type(sparse) is not bool:  # pyright: ignore[reportUnnecessaryComparison]
            raise CollectionError(f"sparse must be True or False, not {sparse!r}")
        if name is None:
            name = f"{self.kind}:{','.join(names)}"
        name = checked_name(name)
        object.__setattr__(self, "fields", names)
        object.__setattr__(self, "sparse", sparse)
        object.__setattr__(self, "name", name)

    def __repr__(self) -> str:
        parts = [repr(field) for field in self.fields]
        if self.sparse:
            parts.append("sparse=True")
        if self.name != f"{self.kind}:{','.join(self.fields)}":
            parts.append(f"name={self.name!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields without their direction."""
        return tuple(field.removeprefix("-") for field in self.fields)

    @property
    def descending(self) -> tuple[bool, ...]:
        """Whether each field is stored inverted."""
        return tuple(field.startswith("-") for field in self.fields)

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores."""
        return {
            "kind": self.kind,
            "fields": list(self.fields),
            "sparse": self.sparse,
            "name": self.name,
        }

    @classmethod
    def from_map(cls: type[_D], stored: Mapping[str, Any]) -> _D:
        """The declaration that to_map() stored. Raises FormatError."""
        if set(stored) != _MAP_KEYS or stored["kind"] != cls.kind:
            raise FormatError(
                f"an index of kind {cls.kind!r} with an unknown field "
                f"(written by a newer version?): {stored!r}"
            )
        fields: object = stored["fields"]
        name: object = stored["name"]
        if not isinstance(fields, list) or not isinstance(name, str):
            raise FormatError(f"a stored index has fields of wrong types: {stored!r}")
        try:
            return cls(*cast(list[str], fields), sparse=stored["sparse"], name=name)
        except CollectionError as error:
            raise FormatError(f"a stored index is invalid: {error}") from error


def checked_name(name: object) -> str:
    """A name for an index, as a str. Raises CollectionError."""
    text = plain_text(name)
    if not text:
        raise CollectionError(f"the name of an index must be a non-empty str, not {name!r}")
    if has_surrogate(text):
        raise CollectionError(f"the name of an index: {name!r} holds {SURROGATE}")
    return text


def checked_fields(fields: tuple[object, ...]) -> tuple[str, ...]:
    """Distinct paths, each optionally with "-" in front, as str. Raises CollectionError."""
    if not 0 < len(fields) <= FIELDS_MAX:
        raise CollectionError(f"an index has 1 to {FIELDS_MAX} fields, not {len(fields)}")
    plain: dict[str, str] = {}
    for given in fields:
        try:
            field: object = path_name(given)
        except ValueError as error:
            raise CollectionError(f"an index over {given!r}: {error}") from None
        path = field.removeprefix("-") if isinstance(field, str) else field
        problem = path_problem(path)
        if problem is None and str(path).startswith("$"):
            problem = "no filter and no order names a field that begins with $"
        if problem:
            raise CollectionError(f"an index over {field!r}: {problem}")
        assert isinstance(path, str)
        assert isinstance(field, str)
        if path in plain:
            raise CollectionError(f"an index names the field {path!r} twice")
        plain[path] = str.__str__(field)
    return tuple(plain.values())
