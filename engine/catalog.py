"""The catalog: which collections and indexes exist, and the numbers they were given.

Invariants:
- It is kept in the META tree and changed by ordinary commits, so it is recovered, snapshotted
  and backed up like documents.
- In memory it is an immutable value that is replaced after each change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amberdb._bytes import is_sealed, seal
from amberdb._errors import (
    CollectionError,
    CollectionMissingError,
    CorruptionError,
    FormatError,
)
from amberdb.engine.codec import decode_document, encode
from amberdb.engine.row_index import RowIndex, identity_of
from amberdb.engine.schema import CollectionDef, IndexDef, Schema, check_field, checked_number
from amberdb.engine.trees import COLLECTIONS, COUNTERS, FIRST_TREE, end_of
from amberdb.index.base import IndexSpec
from amberdb.index.vector import Vector
from amberdb.index.waiting import Waiting

if TYPE_CHECKING:
    from amberdb.engine.view import View
    from amberdb.engine.writer import Writer

NAME_BYTES_MAX = 200
FORMER_MAX = 256
"""Renamings that a collection remembers, for readers of the feed that are behind them."""


class Catalog:
    """All collections by name, and the trees of dropped indexes that are still to be purged."""

    __slots__ = ("next_collection", "next_tree", "retired", "schemas")

    def __init__(
        self,
        schemas: Mapping[str, Schema],
        next_tree: int = FIRST_TREE,
        next_collection: int = 1,
        retired: tuple[int, ...] = (),
    ) -> None:
        self.schemas = schemas
        self.next_tree = next_tree
        self.next_collection = next_collection
        self.retired = retired

    @classmethod
    def load(cls, view: "View", document_bytes_max: int) -> "Catalog":
        schemas: dict[str, Schema] = {}
        for key, value in view.scan(COLLECTIONS, end_of(COLLECTIONS)):
            name = key[len(COLLECTIONS) :].decode()
            definition = CollectionDef.from_map(name, open_entry(key, value))
            schemas[name] = Schema(definition, document_bytes_max)
        stored = view.get(COUNTERS)
        if stored is None:
            return cls(schemas)
        counters = open_entry(COUNTERS, stored)
        try:
            return cls(
                schemas,
                checked_number(counters["tree"]),
                checked_number(counters["collection"]),
                tuple(map(checked_number, counters["retired"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"the catalog's counters are not as this version knows them ({error!r}): open it "
                "with the version that wrote it"
            ) from error

    @property
    def row_indexes(self) -> dict[bytes, RowIndex]:
        """All search indexes by their trees."""
        return {i.prefix: i for schema in self.schemas.values() for i in schema.row_indexes}

    @property
    def row_prefixes(self) -> frozenset[bytes]:
        """How the entries of all search indexes begin."""
        return frozenset(index.entry_prefix for index in self.row_indexes.values())

    def by_tree(self) -> dict[bytes, Schema]:
        """Schemas by the prefix of their documents."""
        return {schema.prefix: schema for schema in self.schemas.values()}

    def schema(self, name: str) -> Schema:
        """Raises CollectionMissingError."""
        schema = self.schemas.get(name)
        if schema is None:
            raise CollectionMissingError(
                f"there is no collection {name!r}: declare it with db.collection({name!r})",
                collection=name,
            )
        return schema

    def wanted(
        self,
        name: str,
        indexes: list[IndexSpec] | None,
        expires_at: str | None,
        required: Mapping[str, str | None] | None,
        complete_from: int,
    ) -> tuple[CollectionDef, "Catalog"] | None:
        """The definition that a declaration asks for and the counters after it; None when the
        collection is just so already. What is not given stays as it is.

        `complete_from` is the Lsn of the change when the collection is empty, else 0.
        """
        known = self.schemas.get(name)
        number, next_tree = self.next_collection, self.next_tree
        retired = list(self.retired)
        if known is None:
            _check_name(name)
            definition = CollectionDef(
                name=name, number=number, tree=next_tree, expiry_tree=next_tree + 1
            )
            number, next_tree = number + 1, next_tree + 2
        else:
            definition = known.definition
        before = definition
        if indexes is not None:
            _check_indexes(indexes)
            indexes = _with_queues(indexes)
            kept = {index.spec: index for index in definition.indexes}
            chosen: list[IndexDef] = []
            for spec in indexes:
                index = kept.get(spec)
                identity = identity_of(spec)
                if index is not None and index.identity == identity:
                    del kept[spec]
                else:  # new, or made by another analyzer
                    index = IndexDef(spec, next_tree, complete_from, identity)
                    next_tree += 1
                chosen.append(index)
            retired += [index.tree for index in kept.values()]
            fields = [spec.field for spec in indexes if isinstance(spec, Vector)]
            for vector in fields:
                check_field("a Vector index", vector)
            vectors = tuple(dict.fromkeys([*definition.vectors, *fields]))
            definition = replace(definition, indexes=tuple(chosen), vectors=vectors)
        if required is not None:
            definition = replace(definition, required=dict(required))
        if expires_at is not None:
            check_field("expires_at", expires_at)
            if definition.expires_at != expires_at and not complete_from:
                raise CollectionError(
                    f"collection {name!r} has documents that were stored with "
                    f"expires_at={definition.expires_at!r}: to expire by {expires_at!r}, declare "
                    "a new collection and put them there"
                )
            definition = replace(definition, expires_at=expires_at)
        if known is not None and definition == before:
            return None
        return definition, Catalog(self.schemas, next_tree, number, tuple(retired))

    def replaced(self, schema: Schema) -> "Catalog":
        """This catalog with one collection added or changed."""
        schemas = {**self.schemas, schema.name: schema}
        return Catalog(schemas, self.next_tree, self.next_collection, self.retired)

    def rename(self, writer: "Writer", old: str, new: str) -> "Catalog":
        """Adds a renaming to the writer's effects; the catalog after it. Raises CollectionError,
        CollectionMissingError."""
        schema = self.schema(old)
        _check_name(new)
        if new in self.schemas:
            raise CollectionError(
                f"there is a collection {new!r} already: drop it first, or choose another name"
            )
        former = (*schema.definition.former, (writer.lsn, old))[-FORMER_MAX:]
        definition = replace(schema.definition, name=new, former=former)
        writer.set(COLLECTIONS + old.encode(), None)
        self.save(writer, definition)
        return self._without(schema).replaced(schema.redefined(definition))

    def drop(self, writer: "Writer", name: str) -> "Catalog":
        """Adds the removal of a collection to the writer's effects; the catalog after it, which
        knows the trees to purge. Raises CollectionMissingError."""
        schema = self.schema(name)
        writer.set(COLLECTIONS + name.encode(), None)
        writer.set(schema.head_key, None)
        catalog = self._without(schema, schema.definition.trees)
        catalog.save_counters(writer)
        return catalog

    def _without(self, schema: Schema, retired: tuple[int, ...] = ()) -> "Catalog":
        schemas = {name: each for name, each in self.schemas.items() if each is not schema}
        retired = (*self.retired, *retired)
        return Catalog(schemas, self.next_tree, self.next_collection, retired)

    def purged(self, number: int) -> "Catalog":
        retired = tuple(tree for tree in self.retired if tree != number)
        return Catalog(self.schemas, self.next_tree, self.next_collection, retired)

    def save(self, writer: "Writer", definition: CollectionDef) -> None:
        """Adds the definition and the counters to the writer's effects."""
        key = COLLECTIONS + definition.name.encode()
        writer.set(key, sealed_entry(key, definition.to_map()))
        self.save_counters(writer)

    def save_counters(self, writer: "Writer") -> None:
        writer.set(COUNTERS, sealed_entry(COUNTERS, self.counters()))

    def counters(self) -> dict[str, Any]:
        """The numbers as they are stored."""
        return {
            "tree": self.next_tree,
            "collection": self.next_collection,
            "retired": list(self.retired),
        }


def listed(indexes: Sequence[IndexSpec]) -> list[IndexSpec]:
    """Raises CollectionError."""
    if not isinstance(indexes, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise CollectionError(f"indexes is a list of declarations, not {indexes!r}")
    return list(indexes)


def sealed_entry(key: bytes, content: dict[str, Any]) -> bytes:
    """The value of a catalog entry."""
    data = encode(content)
    return data + seal(data + key)


def open_entry(key: bytes, value: bytes) -> dict[str, Any]:
    """What sealed_entry() was given. Raises CorruptionError."""
    data, crc = value[:-4], value[-4:]
    if not is_sealed(data + key + crc):
        raise CorruptionError(f"the catalog entry {key!r} fails its checksum: restore a backup")
    return decode_document(data)


def _check_name(name: object) -> None:
    if type(name) is not str or not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX:
        raise CollectionError(
            f"{name!r}: the name of a collection is a str of 1 to {NAME_BYTES_MAX} bytes"
        )
    if name.isprintable() is False or "\0" in name:
        raise CollectionError(f"{name!r}: the name of a collection is printable text")


def _with_queues(indexes: list[IndexSpec]) -> list[IndexSpec]:
    """With a queue beside each vector index that has a source, and no others."""
    declared = [spec for spec in indexes if not isinstance(spec, Waiting)]
    sourced = [spec for spec in declared if isinstance(spec, Vector) and spec.source is not None]
    return [*declared, *map(Waiting.of, sourced)]


def _check_indexes(indexes: list[IndexSpec]) -> None:
    for spec in indexes:
        if not isinstance(spec, IndexSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CollectionError(
                f"an index is declared as Ordered(...) and the like, not {spec!r}"
            )
    names = [spec.name for spec in indexes]
    for name in names:
        if names.count(name) > 1:
            raise CollectionError(f"two indexes are named {name!r}: give one of them name=...")
