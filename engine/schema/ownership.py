"""Ownership: which system declares a collection.

    the program            db.collection("event", ...)                  no owner
    a system               db.collection("event", owner="memory", ...)  its mark in the catalog

Two users of one name would drop each other's indexes, since a declaration is the complete list.

Invariants:
- A collection is declared again by its owner alone: another declaration that would change it raises
  CollectionError. One that changes nothing, or declares nothing, is free to all.
- A collection without a mark becomes a system's if an earlier version of the system, which made no
  marks, has made it: the declarations have the same required fields and expiry, and enough in
  common.
"""

from dataclasses import replace

from amberdb._errors import CollectionError
from amberdb._plain import plain_text
from amberdb.engine.schema.definition import CollectionDef
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector

OWNER_BYTES_MAX = 100
_COMMON_MIN = 2
"""Of the indexes of a collection, its required fields and its expiry."""
_FIELDS_MIN = 3
"""Of one index in common, which then is enough."""


def owned(
    before: CollectionDef | None, after: CollectionDef, owner: str | None, *, is_empty: bool
) -> CollectionDef:
    """The definition `after` a declaration by this owner. Raises CollectionError."""
    if owner is not None:
        owner = _checked_owner(owner)
    if before is None or before.owner == owner:
        return replace(after, owner=owner)
    if owner is None:
        if after == before:
            return after
        raise CollectionError(
            f"collection {before.name!r} is one of the system {before.owner!r}, and this "
            "declaration would change it: choose another name for yours, or give the system a "
            "name=, which is a prefix of its collections"
        )
    if before.owner is None and _is_of(before, after, is_empty):
        return replace(after, owner=owner)
    maker = "the program" if before.owner is None else f"the system {before.owner!r}"
    raise CollectionError(
        f"collection {before.name!r} was made by {maker}, and {owner!r} would change it: give the "
        "system a name=, which is a prefix of its collections"
    )


def _is_of(before: CollectionDef, after: CollectionDef, is_empty: bool) -> bool:
    """Whether an earlier version of the system that declares `after` has declared `before`."""
    if (before.expires_at, before.required) != (after.expires_at, after.required):
        return is_empty and not _properties(before)
    had, has = _properties(before), _properties(after)
    if not had:
        return is_empty or not has
    fields = max((len(spec.fields) for spec in before.specs if spec.name in had & has), default=0)
    return len(had & has) >= _COMMON_MIN or fields >= _FIELDS_MIN


def _properties(definition: CollectionDef) -> set[str]:
    """Its indexes, by names that have kinds and fields, and what it requires. Without indexes of
    vectors: a system has them with an embedder alone."""
    specs = definition.specs
    names = {spec.name for spec in specs if not isinstance(spec, Vector | EmbeddingQueue)}
    names |= {"expires_at"} if definition.expires_at else set()
    return names | ({"required"} if definition.required else set())


def _checked_owner(owner: object) -> str:
    text = plain_text(owner)
    if not text or len(text.encode("utf-8", "replace")) > OWNER_BYTES_MAX:
        raise CollectionError(f"owner={owner!r}: a str of 1 to {OWNER_BYTES_MAX} bytes")
    return text
