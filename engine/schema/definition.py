"""Definitions: the catalog's record of a collection and of its indexes.

    name  ->  map of _StoredCollection, whose "indexes" are maps of _StoredIndex

Invariants:
- A definition never changes; a new declaration makes another one.
- from_map(to_map()) gives an equal definition. A map with an unknown field, or with a value of
  another type, is refused: a newer version may have written it, and saving it would lose the field.
- Names in the stored maps ("tree" is a keyspace) are part of the format and stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from amberdb._errors import AmberError, CollectionError, FormatError
from amberdb._plain import plain_text
from amberdb._public import public
from amberdb.index.paths import path_problem
from amberdb.index.registry import IndexSpec, spec_from_map

TYPES: Final[dict[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bytes": (bytes,),
    "datetime": (datetime,),
    "list": (list,),
    "dict": (dict,),
}
"""The types that a required field may have, by the names in the catalog."""

MigrationStep: TypeAlias = tuple[int, int]
"""(version, the Lsn at which it was declared)"""


@dataclass(frozen=True, slots=True)
class IndexDef:
    """An index as declared, and the keyspace of its entries."""

    spec: IndexSpec
    keyspace: int
    complete_from: int = 0
    """The Lsn at which it was declared over an empty collection: it needs no build. Otherwise 0."""
    identity: str = ""
    """What its entries depend on besides the declaration: the analyzer of a text index, the marks
    of an ordered one."""


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionDef:
    """A collection as it was declared, with the numbers that the catalog gave it."""

    name: str
    number: int
    keyspace: int
    expiry_keyspace: int
    indexes: tuple[IndexDef, ...] = ()
    expires_at: str | None = None
    required: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """By field the name of its type, or None for any type."""
    vectors: tuple[str, ...] = ()
    """Fields that have ever been declared as vectors: documents may hold arrays there."""
    vector_keyspace: int = 0
    """The keyspace of the vectors of its documents; 0 until a vector index is declared."""
    split_from: int = 0
    """The Lsn at which it got that keyspace without having a document: no document that LMDB has is
    to be split. Otherwise 0."""
    version: int = 1
    """The version of its documents, as the program counts: see engine/schema/migration.py."""
    steps: tuple[MigrationStep, ...] = ()
    """The migration steps that some documents have yet to take, ascending."""
    former: tuple[tuple[int, str], ...] = ()
    """Former names, each with the last Lsn at which it was used, ascending: the change feed reports
    a change under the name of its time."""
    owner: str | None = None
    """The system that declared it, and alone declares it again; None: the program."""

    @property
    def specs(self) -> list[IndexSpec]:
        """The declared indexes, each once: one whose analyzer has changed is here twice until it is
        rebuilt, first as the older analyzer made it."""
        return list(dict.fromkeys(index.spec for index in self.indexes))

    @property
    def keyspaces(self) -> tuple[int, ...]:
        """The keyspaces of its documents, their vectors, its expiry index and its indexes."""
        vectors = (self.vector_keyspace,) if self.vector_keyspace else ()
        indexes = (index.keyspace for index in self.indexes)
        return (self.keyspace, self.expiry_keyspace, *vectors, *indexes)

    def name_at(self, lsn: int) -> str:
        """The collection's name when the commit with this Lsn was made."""
        return next((name for until, name in self.former if lsn <= until), self.name)

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores under the collection's name."""
        stored = _StoredCollection(
            number=self.number,
            tree=self.keyspace,
            expiry_tree=self.expiry_keyspace,
            indexes=[
                _StoredIndex(i.spec.to_map(), i.keyspace, i.complete_from, i.identity)
                for i in self.indexes
            ],
            expires_at=self.expires_at,
            required=dict(self.required),
            vectors=self.vectors,
            vector_tree=self.vector_keyspace,
            split_from=self.split_from,
            version=self.version,
            steps=self.steps,
            former=self.former,
            owner=self.owner,
        )
        builtins: dict[str, Any] = msgspec.to_builtins(stored)
        return builtins

    @classmethod
    def from_map(cls, name: str, stored: Mapping[str, Any]) -> "CollectionDef":
        """The definition that to_map() stored. Raises FormatError."""
        try:
            # The oldest databases have no "vectors".
            known = msgspec.convert({"vectors": (), **stored}, _StoredCollection)
            indexes = [
                IndexDef(spec_from_map(i.spec), i.tree, i.complete_from, i.identity)
                for i in known.indexes
            ]
            if known.expires_at is not None:
                check_field("expires_at", known.expires_at)
            for vector in known.vectors:
                check_field("a vector", vector)
            for required, kind in known.required.items():
                check_field("required", required)
                if kind is not None and kind not in TYPES:
                    raise ValueError(f"the type {kind!r} of the required field {required!r}")
        except (AmberError, msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"collection {name!r}: unknown field or type in its catalog entry (written by a "
                f"newer version?): {error}"
            ) from error
        return cls(
            name=name,
            number=known.number,
            keyspace=known.tree,
            expiry_keyspace=known.expiry_tree,
            indexes=tuple(indexes),
            expires_at=known.expires_at,
            required=known.required,
            vectors=known.vectors,
            vector_keyspace=known.vector_tree,
            split_from=known.split_from,
            version=known.version,
            steps=known.steps,
            former=known.former,
            owner=known.owner,
        )


Number: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 32)]
"""A number that the catalog gives to a collection or a keyspace, as it is stored."""

_Lsn: TypeAlias = Annotated[int, Meta(ge=0)]


class _StoredIndex(Struct, forbid_unknown_fields=True, omit_defaults=True):
    spec: dict[str, Any]
    tree: Number
    complete_from: _Lsn
    identity: str = ""


class _StoredCollection(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    number: Number
    tree: Number
    expiry_tree: Number
    indexes: list[_StoredIndex]
    expires_at: str | None
    required: dict[str, str | None]
    vectors: tuple[str, ...]
    vector_tree: Number = 0
    split_from: _Lsn = 0
    version: Number = 1
    steps: tuple[tuple[Number, _Lsn], ...] = ()
    former: tuple[tuple[_Lsn, str], ...] = ()
    owner: str | None = None


def required_types(
    required: Mapping[str, type | None] | Sequence[str],
) -> dict[str, str | None]:
    """A declaration of required fields in the form of the catalog. Raises CollectionError."""
    if isinstance(required, (str, bytes)):
        raise CollectionError(f"required is a list or a map of fields, not {required!r}")
    types = required if isinstance(required, Mapping) else dict.fromkeys(required)
    names: dict[str, str | None] = {}
    for name, kind in types.items():
        check_field("required", name)
        word = None if kind is None else getattr(kind, "__name__", repr(kind))
        if word is not None and word not in TYPES:
            raise CollectionError(
                f"required field {name!r}: {word} is not one of {', '.join(TYPES)}"
            )
        names[str.__str__(name)] = word
    return names


def check_field(option: str, name: object) -> None:
    """Raises CollectionError unless the name is that of a top-level field. `option` is where it was
    given."""
    problem = path_problem(name)
    if problem is None and "." in (plain_text(name) or ""):
        problem = f"{name!r} is a path: give a top-level field"
    if problem is not None:
        raise CollectionError(f"{option}: {problem}")
