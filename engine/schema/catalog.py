"""The catalog: which collections and indexes exist, and the numbers they were given.

Invariants:
- It is stored in the keyspace META and changed by ordinary commits, so recovery, snapshots and
  backups treat it as they treat documents.
- A number of a collection or keyspace is given once; names can be used again.
- In memory it is an immutable value, replaced after each change. A change copies the map of names,
  which is one copy of memory, and looks at no other collection. Reads of one collection, and its
  declarations, cost the same among thousands.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import msgspec
from msgspec import Struct

from amberdb._bytes import append_crc, crc_matches
from amberdb._errors import (
    CollectionError,
    CollectionMissingError,
    CollectionVersionError,
    CorruptionError,
    FormatError,
)
from amberdb._plain import plain_text
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import decode_document, encode
from amberdb.engine.schema.definition import CollectionDef, IndexDef, Number, check_field
from amberdb.engine.schema.keyspace import COLLECTIONS, COUNTERS, FIRST_KEYSPACE, end_of
from amberdb.engine.schema.migration import Upgrade, Upgrades
from amberdb.engine.schema.ownership import owned
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex, identity_of
from amberdb.index.registry import IndexSpec
from amberdb.index.text.text import Text
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector

NAME_BYTES_MAX = 200
FORMER_MAX = 256
"""Former names that a definition keeps, for readers of the change feed that lag."""


class CatalogReader(Protocol):
    """Reads of catalog entries: a view."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class CatalogWriter(Protocol):
    """Takes catalog entries into a commit: a write batch."""

    @property
    def lsn(self) -> int: ...

    def set(self, key: bytes, value: bytes | None) -> None: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The arguments of db.collection(); None leaves a property as it is, but for the owner."""

    indexes: list[IndexSpec] | None = None
    expires_at: str | None = None
    required: Mapping[str, str | None] | None = None
    version: int | None = None
    owner: str | None = None
    """The system that declares; None: the program."""
    upgrades: Upgrades = field(default_factory=dict[int, Upgrade])
    """Functions to newer versions."""

    def migrating(
        self, definition: CollectionDef, upgrades: Upgrades, lsn: int, is_empty: bool
    ) -> CollectionDef:
        """The definition at the declared version, with the steps to it. `upgrades` are the
        functions of earlier declarations. Raises CollectionError, CollectionVersionError."""
        version, name = self.version, definition.name
        assert version is not None
        if version < definition.version:
            raise CollectionVersionError(
                f"collection {name!r} is at version {definition.version}, and this program "
                f"declares version {version}: use the program that declared the newer one",
                collection=name,
                version=definition.version,
            )
        newer = range(definition.version + 1, version + 1)
        steps = () if is_empty else (*definition.steps, *((step, lsn) for step in newer))
        lacking = [step for step, _ in steps if step not in self.upgrades and step not in upgrades]
        if lacking and (newer or self.upgrades):
            raise CollectionError(
                f"collection {name!r} has documents from before version {lacking[0]}: give the "
                f"function that upgrades one of them, as migrate={{{lacking[0]}: function}}"
            )
        return replace(definition, version=version, steps=steps)


class Catalog:
    """All collections by name, and the keyspaces of dropped indexes that are still to be purged."""

    __slots__ = (
        "_by_keyspace",
        "_row_indexes",
        "next_collection",
        "next_keyspace",
        "retired",
        "schemas",
    )

    def __init__(
        self,
        schemas: dict[str, Schema],
        next_keyspace: int = FIRST_KEYSPACE,
        next_collection: int = 1,
        retired: tuple[int, ...] = (),
    ) -> None:
        self.schemas = schemas
        self.next_keyspace = next_keyspace
        self.next_collection = next_collection
        self.retired = retired
        self._row_indexes: dict[bytes, RowIndex] | None = None
        self._by_keyspace: dict[bytes, Schema] | None = None
        """Made at the first use."""

    @classmethod
    def load(
        cls,
        source: CatalogReader,
        options: Options,
        known: dict[tuple[bytes, bytes], Schema] | None = None,
        kind: type[Schema] = Schema,
    ) -> "Catalog":
        """The stored catalog, its schemas of one kind. Raises CorruptionError, FormatError.

        `known` has the schemas of an earlier call by their entries. Those that have not changed are
        taken over, and it is brought up to date.
        """
        before, loaded = known or {}, dict[tuple[bytes, bytes], Schema]()
        for entry in source.scan(COLLECTIONS, end_of(COLLECTIONS)):
            schema = before.get(entry)
            if schema is None:
                name = entry[0][len(COLLECTIONS) :].decode()
                schema = kind(CollectionDef.from_map(name, open_entry(*entry)), options)
            loaded[entry] = schema
        schemas = {schema.name: schema for schema in loaded.values()}
        if known is not None:
            known.clear()
            known.update(loaded)
        stored = source.get(COUNTERS)
        if stored is None:
            return cls(schemas)
        try:
            counters = msgspec.convert(open_entry(COUNTERS, stored), _Counters)
        except msgspec.ValidationError as error:
            raise FormatError(
                "unknown field or type in the catalog's counters (written by a newer version?): "
                f"{error}"
            ) from error
        return cls(schemas, counters.tree, counters.collection, counters.retired)

    @property
    def row_indexes(self) -> dict[bytes, RowIndex]:
        """All search indexes by the prefixes of their keyspaces."""
        if self._row_indexes is None:
            schemas = self.schemas.values()
            self._row_indexes = {i.prefix: i for schema in schemas for i in schema.row_indexes}
        return self._row_indexes

    @property
    def row_prefixes(self) -> frozenset[bytes]:
        """The prefixes of the entries of all search indexes."""
        return frozenset(index.entry_prefix for index in self.row_indexes.values())

    @property
    def unique_prefixes(self) -> frozenset[bytes]:
        """The prefixes of all Unique indexes."""
        schemas = self.schemas.values()
        return frozenset(index.prefix for schema in schemas for index in schema.unique_indexes)

    def by_keyspace(self) -> dict[bytes, Schema]:
        """Schemas by the prefix of their documents."""
        if self._by_keyspace is None:
            self._by_keyspace = {schema.prefix: schema for schema in self.schemas.values()}
        return self._by_keyspace

    def schema(self, name: str) -> Schema:
        """Raises CollectionMissingError."""
        try:
            schema = self.schemas.get(name)
        except TypeError:  # unhashable, a map for one
            schema = None
        if schema is None:
            raise CollectionMissingError(
                f"there is no collection {name!r}: declare it with db.collection({name!r})",
                collection=name,
            )
        return schema

    def wanted(
        self, name: str, declaration: Declaration, lsn: int, *, is_empty: bool
    ) -> tuple[CollectionDef, "Catalog"] | None:
        """The definition after a declaration at an Lsn, and a catalog with the numbers after it;
        None when nothing changes. `is_empty`: the collection has no documents. Raises
        CollectionError."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            _checked_name(name)  # raises
        known = self.schemas.get(name)
        number, next_keyspace = self.next_collection, self.next_keyspace
        retired = self.retired
        if known is None:
            name = _checked_name(name)
            definition = CollectionDef(
                name=name, number=number, keyspace=next_keyspace, expiry_keyspace=next_keyspace + 1
            )
            number, next_keyspace = number + 1, next_keyspace + 2
        else:
            definition = known.definition
        before = definition
        if declaration.indexes is not None:
            complete_from = lsn if is_empty else 0
            definition, next_keyspace = _indexed(
                definition, declaration.indexes, next_keyspace, complete_from
            )
            retired += tuple(
                index.keyspace for index in before.indexes if index not in definition.indexes
            )
            definition, next_keyspace = with_vectors(definition, next_keyspace, complete_from)
        if declaration.required is not None:
            definition = replace(definition, required=dict(declaration.required))
        if declaration.expires_at is not None:
            definition = _expiring(definition, declaration.expires_at, is_empty)
        if declaration.version is not None:
            upgrades: Upgrades = {} if known is None else known.upgrades
            definition = declaration.migrating(definition, upgrades, lsn, is_empty)
        definition = owned(
            None if known is None else before, definition, declaration.owner, is_empty=is_empty
        )
        if known is not None and definition == before:
            return None
        return definition, Catalog(self.schemas, next_keyspace, number, retired)

    def replaced(self, schema: Schema) -> "Catalog":
        """This catalog with one collection added or changed."""
        schemas = {**self.schemas, schema.name: schema}
        return Catalog(schemas, self.next_keyspace, self.next_collection, self.retired)

    def rename(self, writer: CatalogWriter, old: str, new: str) -> "Catalog":
        """Adds a renaming to the writer's effects, and returns the catalog after it. Raises
        CollectionError, CollectionMissingError."""
        schema = self.schema(old)
        new = _checked_name(new)
        if new in self.schemas:
            raise CollectionError(
                f"there is a collection {new!r} already: drop it first, or choose another name"
            )
        former = (*schema.definition.former, (writer.lsn, schema.name))[-FORMER_MAX:]
        definition = replace(schema.definition, name=new, former=former)
        writer.set(COLLECTIONS + schema.name.encode(), None)
        self.save(writer, definition)
        return self._without(schema).replaced(schema.redefined(definition))

    def drop(self, writer: CatalogWriter, name: str) -> "Catalog":
        """Adds the removal of a collection to the writer's effects, and returns the catalog after
        it, with the keyspaces to purge. Raises CollectionMissingError."""
        schema = self.schema(name)
        writer.set(COLLECTIONS + name.encode(), None)
        writer.set(schema.counters_key, None)
        catalog = self._without(schema, schema.definition.keyspaces)
        catalog.save_counters(writer)
        return catalog

    def without_older(self, writer: CatalogWriter, schema: Schema) -> "Catalog":
        """Adds the drop of a collection's older indexes to the writer's effects, and returns the
        catalog after it, with the keyspaces to purge."""
        schema = self.schema(schema.name)
        kept = tuple(i for i in schema.definition.indexes if i.keyspace not in schema.older)
        definition = replace(schema.definition, indexes=kept)
        catalog = self._without(schema, tuple(sorted(schema.older)))
        catalog.save(writer, definition)
        return catalog.replaced(schema.redefined(definition))

    def _without(self, schema: Schema, retired: tuple[int, ...] = ()) -> "Catalog":
        schemas = {**self.schemas}
        del schemas[schema.name]
        retired = (*self.retired, *retired)
        return Catalog(schemas, self.next_keyspace, self.next_collection, retired)

    def purged(self, number: int) -> "Catalog":
        """This catalog when a keyspace has been purged."""
        retired = tuple(keyspace for keyspace in self.retired if keyspace != number)
        return Catalog(self.schemas, self.next_keyspace, self.next_collection, retired)

    def save(self, writer: CatalogWriter, definition: CollectionDef) -> None:
        """Adds the definition and the counters to the writer's effects."""
        key = COLLECTIONS + definition.name.encode()
        writer.set(key, sealed_entry(key, definition.to_map()))
        self.save_counters(writer)

    def save_counters(self, writer: CatalogWriter) -> None:
        """Adds the counters to the writer's effects."""
        writer.set(COUNTERS, sealed_entry(COUNTERS, self.counters()))

    def counters(self) -> dict[str, Any]:
        """The map that the catalog stores of its numbers."""
        counters = _Counters(self.next_keyspace, self.next_collection, self.retired)
        builtins: dict[str, Any] = msgspec.to_builtins(counters)
        return builtins


class _Counters(msgspec.Struct, forbid_unknown_fields=True):
    """The stored counters of the catalog; "tree" is a keyspace."""

    tree: Number
    collection: Number
    retired: tuple[Number, ...]


def listed(indexes: Sequence[IndexSpec]) -> list[IndexSpec]:
    """The declarations as a list. Raises CollectionError unless they are iterable."""
    if not isinstance(indexes, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise CollectionError(f"indexes is a list of declarations, not {indexes!r}")
    return list(indexes)


def sealed_entry(key: bytes, content: dict[str, Any] | Struct) -> bytes:
    """The value of a catalog entry: its content and a checksum of key and content."""
    data = encode(content)
    return data + append_crc(data + key)


def open_entry(key: bytes, value: bytes) -> dict[str, Any]:
    """The content of a catalog entry. Raises CorruptionError when the checksum fails."""
    return decode_document(entry_data(key, value))


def entry_data(key: bytes, value: bytes) -> bytes:
    """The encoded content of a catalog entry. Raises CorruptionError."""
    data, crc = value[:-4], value[-4:]
    if not crc_matches(data + key + crc):
        raise CorruptionError(f"the catalog entry {key!r} fails its checksum: restore a backup")
    return data


def _checked_name(name: object) -> str:
    text = plain_text(name)
    if text is None or not 0 < len(text.encode("utf-8", "replace")) <= NAME_BYTES_MAX:
        raise CollectionError(
            f"{name!r}: the name of a collection is a str of 1 to {NAME_BYTES_MAX} bytes"
        )
    if text.isprintable() is False or "\0" in text:
        raise CollectionError(f"{name!r}: the name of a collection has printable characters only")
    return text


def _indexed(
    definition: CollectionDef, indexes: list[IndexSpec], next_keyspace: int, complete_from: int
) -> tuple[CollectionDef, int]:
    """The definition with these indexes, and the next free keyspace. Indexes that it has already
    keep their keyspaces. One that another version of its analyzer made stays, and answers until the
    one after it is built."""
    _check_indexes(indexes)
    indexes = _with_queues(indexes)
    existing: dict[IndexSpec, list[IndexDef]] = {}
    for index in definition.indexes:
        existing.setdefault(index.spec, []).append(index)
    chosen: list[IndexDef] = []
    for spec in indexes:
        known = existing.get(spec, [])
        identity = identity_of(spec)
        is_foreign = known and isinstance(spec, Text) and known[-1].identity != identity
        if not known or is_foreign:
            # The first may be built; one after it is not, and has terms of several versions.
            older = known[:1] if not complete_from else []
            known = [*older, IndexDef(spec, next_keyspace, complete_from, identity)]
            next_keyspace += 1
        chosen += known
    fields = [spec.field for spec in indexes if isinstance(spec, Vector)]
    for vector in fields:
        check_field("a Vector index", vector)
    vectors = tuple(dict.fromkeys([*definition.vectors, *fields]))
    return replace(definition, indexes=tuple(chosen), vectors=vectors), next_keyspace


def with_vectors(
    definition: CollectionDef, next_keyspace: int, split_from: int
) -> tuple[CollectionDef, int]:
    """The definition with a keyspace for vectors, if it needs one, and the next free keyspace."""
    if definition.vector_keyspace or not definition.vectors:
        return definition, next_keyspace
    changed = replace(definition, vector_keyspace=next_keyspace, split_from=split_from)
    return changed, next_keyspace + 1


def _expiring(definition: CollectionDef, expires_at: str, is_empty: bool) -> CollectionDef:
    check_field("expires_at", expires_at)
    if definition.expires_at != expires_at and not is_empty:
        raise CollectionError(
            f"collection {definition.name!r} has documents that were stored with "
            f"expires_at={definition.expires_at!r}: for {expires_at!r}, declare a new collection "
            "and put them there"
        )
    return replace(definition, expires_at=str.__str__(expires_at))


def _with_queues(indexes: list[IndexSpec]) -> list[IndexSpec]:
    """The declarations, with an embedding queue for each vector index that has a source, and no
    other queue."""
    declared = [spec for spec in indexes if not isinstance(spec, EmbeddingQueue)]
    sourced = [spec for spec in declared if isinstance(spec, Vector) and spec.source is not None]
    return [*declared, *map(EmbeddingQueue.of, sourced)]


def _check_indexes(indexes: list[IndexSpec]) -> None:
    for spec in indexes:
        if not isinstance(spec, IndexSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CollectionError(
                f"an index is declared as Ordered, Unique, Text or Vector, not {spec!r}"
            )
    names = [spec.name for spec in indexes]
    for name in names:
        if names.count(name) > 1:
            raise CollectionError(f"two indexes are named {name!r}: give one of them name=...")
