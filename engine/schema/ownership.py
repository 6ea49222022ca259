"""Ownership: which system declares a collection.

    the program            db.collection("event", ...)                  no owner
    a system               db.collection("event", owner="memory", ...)  its mark in the catalog

Two users of one name would drop each other's indexes, since a declaration is the complete list.

Invariants:
- A collection is declared again by its owner alone: another declaration that would change it raises
  CollectionError. One that changes nothing, or declares nothing, is free to all.
- A collection without a mark becomes a system's only if the system, in a version that made no
  marks, can have made it: no index of it is dropped, and what it requires is the same.
"""

from dataclasses import replace

from amberdb._errors import CollectionError
from amberdb._plain import plain_text
from amberdb.engine.schema.definition import CollectionDef
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector

OWNER_BYTES_MAX = 100


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
    if before.owner is None and _may_be_of(before, after, is_empty):
        return replace(after, owner=owner)
    maker = "the program" if before.owner is None else f"the system {before.owner!r}"
    raise CollectionError(
        f"collection {before.name!r} was made by {maker}, and {owner!r} would change it: give the "
        "system a name=, which is a prefix of its collections"
    )


def _may_be_of(before: CollectionDef, after: CollectionDef, is_empty: bool) -> bool:
    """Whether the system that declares `after` can have declared `before`."""
    kept, had = _indexed(after), _indexed(before)
    if not had <= kept:
        return False
    if before.expires_at is None and not before.required and not had:
        return is_empty or not kept
    return (before.expires_at, before.required) == (after.expires_at, after.required)


def _indexed(definition: CollectionDef) -> set[str]:
    """The names of its indexes, which have kinds and fields. Without those of vectors: a system has
    them with an embedder alone."""
    return {spec.name for spec in definition.specs if not isinstance(spec, Vector | EmbeddingQueue)}


def _checked_owner(owner: object) -> str:
    text = plain_text(owner)
    if not text or len(text.encode("utf-8", "replace")) > OWNER_BYTES_MAX:
        raise CollectionError(f"owner={owner!r}: a str of 1 to {OWNER_BYTES_MAX} bytes")
    return text
