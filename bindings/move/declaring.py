"""Declarations of the source, made in the target."""

from datetime import datetime
from typing import Any, Final

from amberdb import CollectionDef, Database, Ordered, Vector
from amberdb.move.errors import MoveSourceError

_TYPES: Final = {
    each.__name__: each for each in (bool, int, float, str, bytes, datetime, list, dict)
}


def declare(target: Database, definition: CollectionDef, *, with_late: bool) -> None:
    """Declares a collection as the source has it. Late indexes: Unique, whose values may be there
    twice until all changes are followed; Text, which is built faster over what is there. Raises
    MoveSourceError."""
    if definition.steps:
        raise MoveSourceError(
            f"collection {definition.name!r} has documents of an older version: open the source "
            "with the program that has its functions, and call db.migrate()"
        )
    specs = definition.specs
    required: dict[str, type[Any] | None] = {
        field: None if kind is None else _TYPES[kind] for field, kind in definition.required.items()
    }
    target.collection(
        definition.name,
        indexes=[each for each in specs if with_late or isinstance(each, Ordered | Vector)],
        expires_at=definition.expires_at,
        required=required,
        version=definition.version,
        owner=definition.owner,
    )


def declared(definition: CollectionDef) -> tuple[Any, ...]:
    """What a declaration has said: equal for collections that are declared alike."""
    specs = sorted(definition.specs, key=lambda spec: spec.name)
    required = sorted(definition.required.items())
    return specs, definition.expires_at, required, definition.version, definition.owner
