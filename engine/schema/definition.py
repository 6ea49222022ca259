"""Definitions: what the catalog stores of a collection and of its indexes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from amberdb._errors import CollectionError, FormatError
from amberdb.index.paths import path_problem
from amberdb.index.registry import IndexSpec, spec_from_map

MigrationStep: TypeAlias = tuple[int, int]
"""(version, the Lsn at which it was declared)"""


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


@dataclass(frozen=True, slots=True)
class IndexDef:
    """An index as declared, and the tree of its entries."""

    spec: IndexSpec
    keyspace: int
    complete_from: int = 0
    """Declared while the collection was empty, at this Lsn: complete without a build."""
    identity: str = ""
    """Of what made its entries, besides the declaration: the analyzer of a text index."""

    def to_map(self) -> dict[str, Any]:
        stored = {
            "spec": self.spec.to_map(),
            "tree": self.keyspace,
            "complete_from": self.complete_from,
        }
        return {**stored, "identity": self.identity} if self.identity else stored

    @classmethod
    def from_map(cls, stored: Mapping[str, Any]) -> "IndexDef":
        """Raises FormatError, and what a map of another form raises."""
        return cls(
            spec_from_map(stored["spec"]),
            checked_number(stored["tree"]),
            checked_number(stored["complete_from"], 1 << 64),
            str(stored.get("identity", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionDef:
    """A collection as the catalog stores it."""

    name: str
    number: int
    keyspace: int
    expiry_keyspace: int
    indexes: tuple[IndexDef, ...] = ()
    expires_at: str | None = None
    required: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    vectors: tuple[str, ...] = ()
    """Fields that have ever been declared as vectors: documents may hold arrays there."""
    version: int = 1
    """Of its documents, as the program counts: see engine/schema/migration.py."""
    steps: tuple[MigrationStep, ...] = ()
    """Ascending, those that some documents have yet to take."""
    former: tuple[tuple[int, str], ...] = ()
    """Names that it had, and the Lsn up to which, ascending: the feed tells of the past."""

    @property
    def keyspaces(self) -> tuple[int, ...]:
        """All that the collection has."""
        return (self.keyspace, self.expiry_keyspace, *(index.keyspace for index in self.indexes))

    def name_at(self, lsn: int) -> str:
        """What it was called when this commit was made."""
        return next((name for until, name in self.former if lsn <= until), self.name)

    def to_map(self) -> dict[str, Any]:
        """The map that the catalog stores under the collection's name."""
        added: dict[str, Any] = {} if self.version == 1 else {"version": self.version}
        for name, pairs in (("steps", self.steps), ("former", self.former)):
            if pairs:
                added[name] = [list(pair) for pair in pairs]
        return {
            "number": self.number,
            "tree": self.keyspace,
            "expiry_tree": self.expiry_keyspace,
            "indexes": [index.to_map() for index in self.indexes],
            "expires_at": self.expires_at,
            "required": dict(self.required),
            "vectors": list(self.vectors),
            **added,
        }

    @classmethod
    def from_map(cls, name: str, stored: Mapping[str, Any]) -> "CollectionDef":
        """What to_map() gave. Raises FormatError for anything else."""
        try:
            found = cls(
                name=name,
                number=checked_number(stored["number"]),
                keyspace=checked_number(stored["tree"]),
                expiry_keyspace=checked_number(stored["expiry_tree"]),
                indexes=tuple(map(IndexDef.from_map, stored["indexes"])),
                expires_at=stored["expires_at"],
                required=dict(stored["required"]),
                vectors=tuple(stored.get("vectors", ())),
                version=checked_number(stored.get("version", 1)),
                steps=tuple(
                    (checked_number(version), checked_number(lsn, 1 << 64))
                    for version, lsn in stored.get("steps", ())
                ),
                former=tuple(
                    (checked_number(lsn, 1 << 64), str(former))
                    for lsn, former in stored.get("former", ())
                ),
            )
            if found.expires_at is not None:
                check_field("expires_at", found.expires_at)
            for vector in found.vectors:
                check_field("a vector", vector)
            for required, kind in found.required.items():
                check_field("required", required)
                if kind is not None and kind not in TYPES:
                    raise ValueError(f"the type {kind!r}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the catalog entry of {name!r} is not as this version knows it ({error!r}): open "
                "it with the version that wrote it"
            ) from error
        return found


def checked_number(value: object, limit: int = 1 << 32) -> int:
    """A number as the catalog stores it. Raises ValueError."""
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"the number {value!r}")
    return value


def required_types(
    required: Mapping[str, type | None] | Sequence[str],
) -> dict[str, str | None]:
    """A declaration of required fields in the form of the catalog. Raises CollectionError."""
    if isinstance(required, (str, bytes)):
        raise CollectionError(f"required is a list or a map of fields, not {required!r}")
    types = required if isinstance(required, Mapping) else dict.fromkeys(required)
    found: dict[str, str | None] = {}
    for name, kind in types.items():
        check_field("required", name)
        word = None if kind is None else getattr(kind, "__name__", repr(kind))
        if word is not None and word not in TYPES:
            raise CollectionError(
                f"required field {name!r}: {word} is not one of {', '.join(TYPES)}"
            )
        found[name] = word
    return found


def check_field(what: str, name: object) -> None:
    """Raises CollectionError for what is not the name of a field of the document itself."""
    problem = path_problem(name)
    if problem is None and "." in str(name):
        problem = f"{name!r} is a path, and this is asked of a field of the document itself"
    if problem is not None:
        raise CollectionError(f"{what}: {problem}")
