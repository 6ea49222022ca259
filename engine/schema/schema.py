"""The schema: a collection's definition, compiled to make keys, values and index entries.

    document        prefix | id                        ->  see document_format.py
    expiry index    prefix | expires_us + 2^63 | rowid ->  id, for documents that expire
    other indexes   see ordered_index.py and search_index.py

Invariants:
- Checks of a document that need no lock are done in prepare(), before the writer lock is taken.
- A schema never changes, except that functions to newer versions are added to its migration.
- The result of an upgrade is checked here: it keeps the id and the time of expiry.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, cast

from amberdb._errors import (
    DocumentError,
    DocumentTooLargeError,
    InvalidDocumentError,
)
from amberdb._time import microseconds
from amberdb._types import Document
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import decode_document, decode_unchecked, encode
from amberdb.engine.schema.definition import TYPES, CollectionDef
from amberdb.engine.schema.document_format import NEVER, StoredDocument
from amberdb.engine.schema.documents import encode_id, is_map, new_id, normalise, surrogate_error
from amberdb.engine.schema.entry_plan import EntryPlan
from amberdb.engine.schema.expiry_index import TIME_ZERO, ExpiryIndex
from amberdb.engine.schema.keyspace import COLLECTION_COUNTERS, Effects, prefix_of
from amberdb.engine.schema.migration import Migration, Upgrades, failed
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.search_index import RowIndex, identity_of
from amberdb.engine.schema.split_document import join
from amberdb.engine.schema.vector_block import VectorsAt
from amberdb.index.ordered.key_encoder import FieldSpec
from amberdb.index.ordered.keys import SCALAR_ENCODERS
from amberdb.index.text.text import Text
from amberdb.index.vector.coercion import coerce, coerce_several
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector

_EXPIRY = Struct(">QQ")
_decode: Callable[[bytes], Document] = decode_unchecked
_PLANS_MAX = 64
"""Sets of changed fields whose indexes are remembered."""
_ROUNDING_US = 1000
"""The largest change of the time of expiry by an upgrade: storing it as another type rounds it."""


class Prepared(NamedTuple):
    """A document that has passed all checks of prepare(), encoded."""

    id: str
    id_bytes: bytes
    key: bytes
    document: Document
    body: bytes
    expires_us: int
    fresh: bool
    """The id was made by prepare(), so no document exists under it."""


AnyIndex: TypeAlias = CompiledIndex | RowIndex


class Schema:
    """A compiled collection. Threads may share it."""

    __slots__ = (
        "_indexed",
        "_plans",
        "_required",
        "all_indexes",
        "counters_key",
        "definition",
        "entry_plan",
        "expires_at",
        "expiry",
        "expiry_prefix",
        "foreign",
        "indexes",
        "migration",
        "name",
        "older",
        "options",
        "prefix",
        "queues",
        "row_indexes",
        "row_prefixes",
        "row_roots",
        "unindexed_vectors",
        "unique_indexes",
        "vector_prefix",
        "vectors",
    )

    decode = staticmethod(_decode)
    """Decodes the body of a stored document, whose checksum was correct."""

    def __init__(
        self,
        definition: CollectionDef,
        options: Options,
        upgrades: Upgrades = MappingProxyType({}),
    ) -> None:
        self.definition = definition
        self.migration = Migration(definition.steps, upgrades) if definition.steps else None
        """None once all documents are of the newest version."""
        self.name = definition.name
        self.prefix = prefix_of(definition.keyspace)
        self.expiry_prefix = prefix_of(definition.expiry_keyspace)
        self.counters_key = COLLECTION_COUNTERS + definition.number.to_bytes(4)
        self.indexes = tuple(
            CompiledIndex(index, index.spec)
            for index in definition.indexes
            if isinstance(index.spec, FieldSpec)
        )
        """The indexes with sorted entries."""
        self.queues = tuple(
            index for index in self.indexes if isinstance(index.spec, EmbeddingQueue)
        )
        """The sorted indexes that find() does not use: queues of documents to embed."""
        self.row_indexes = tuple(
            RowIndex(index, index.spec, self.prefix)
            for index in definition.indexes
            if isinstance(index.spec, Text | Vector)
        )
        """The indexes that search() uses."""
        self.foreign = frozenset(
            index.keyspace
            for index in definition.indexes
            if isinstance(index.spec, Text) and index.identity != identity_of(index.spec)
        )
        """Keyspaces of text indexes whose terms come from another version of the analyzer."""
        newest = {index.spec: index.keyspace for index in definition.indexes}
        self.older = frozenset(
            index.keyspace for index in definition.indexes if newest[index.spec] != index.keyspace
        )
        """Keyspaces of the indexes that answer until the newer one of their declaration is built;
        they precede it."""
        self.all_indexes: tuple[AnyIndex, ...] = (*self.indexes, *self.row_indexes)
        self.entry_plan = EntryPlan(self.indexes)
        self._plans: dict[frozenset[str], EntryPlan] = {}
        self.row_prefixes = frozenset(index.entry_prefix for index in self.row_indexes)
        self.vectors: dict[str, Vector | None] = dict.fromkeys(definition.vectors)
        """Fields that may hold arrays; each with its declaration, or None when that was dropped."""
        for index in self.row_indexes:
            if isinstance(index.spec, Vector):
                self.vectors[index.spec.field] = index.spec
        self.unindexed_vectors = [name for name, spec in self.vectors.items() if spec is None]
        unindexed = frozenset(self.unindexed_vectors)
        self.row_roots = unindexed.union(*(index.roots for index in self.row_indexes))
        """The top-level fields whose change gives a document another rowid: those that a search
        index depends on, and vectors."""
        self._indexed = self.row_roots.union(*(index.roots for index in self.indexes))
        """Those, and the fields that an index depends on."""
        keyspace = definition.vector_keyspace
        self.vector_prefix = prefix_of(keyspace) if keyspace else b""
        """Of the vectors of its documents; empty while these are stored whole."""
        self.unique_indexes = tuple(index for index in self.indexes if index.is_unique)
        self.expires_at = expires_at = definition.expires_at
        self.expiry = None if expires_at is None else ExpiryIndex(definition, expires_at)
        """The expiry index, where documents expire."""
        self._required = tuple(
            (name, TYPES[kind] if kind else None, kind)
            for name, kind in definition.required.items()
        )
        self.options = options
        """Of the open database: the limits of documents and of queries."""

    @property
    def upgrades(self) -> Upgrades:
        """The functions to newer versions, while a migration needs them."""
        return {} if self.migration is None else self.migration.upgrades

    def register_upgrades(self, upgrades: Upgrades) -> None:
        """Adds functions to newer versions; they replace those to the same versions."""
        if self.migration is not None:
            self.migration.upgrades = {**self.migration.upgrades, **upgrades}

    def redefined(self, definition: CollectionDef) -> "Schema":
        """The schema of this collection with another definition."""
        return type(self)(definition, self.options, self.upgrades)

    def as_stored(self, stored: StoredDocument, vectors_at: VectorsAt) -> Document:
        """The stored document with its vectors. Raises CorruptionError."""
        document = decode_document(stored.body, self.decode)
        return join(document, self.vectors, vectors_at) if self.vectors else document

    def document(self, stored: StoredDocument, vectors_at: VectorsAt) -> Document:
        """as_stored(), upgraded to the newest version. Raises CorruptionError, MigrationError."""
        if self.is_newest(stored):
            return self.as_stored(stored, vectors_at)
        return decode_document(self.upgraded(stored, vectors_at).body)

    def is_newest(self, stored: StoredDocument) -> bool:
        """Whether the stored document is of the newest version."""
        return self.migration is None or stored.version > self.migration.since

    def upgraded(self, stored: StoredDocument, vectors_at: VectorsAt) -> Prepared:
        """An older document as the migrator stores it. Raises CorruptionError, MigrationError."""
        assert self.migration is not None
        document = self.as_stored(stored, vectors_at)
        id: str = document["id"]
        version = self.migration.newest_version
        upgraded = self.migration.upgrade(self.name, document, stored.version)
        try:
            prepared = self.prepare(upgraded)
        except DocumentError as error:
            problem = f"returned a document that cannot be stored: {error.message}"
            raise failed(self.name, id, version, problem) from error
        if prepared.fresh or prepared.id != id:
            problem = "changed the id: put a copy under another id instead"
            raise failed(self.name, id, version, problem)
        if abs(prepared.expires_us - stored.expires_us) > _ROUNDING_US:
            problem = f"changed {self.expires_at!r}, when it expires: change that with update()"
            raise failed(self.name, id, version, problem)
        return prepared._replace(expires_us=stored.expires_us)

    def key(self, id: object) -> bytes:
        """The key of a document. Raises InvalidDocumentError for an invalid id."""
        return self.prefix + encode_id(id)

    def prepare(self, document: Mapping[str, Any]) -> Prepared:
        """Checks and encodes a document. Raises InvalidDocumentError, DocumentTooLargeError."""
        return self._encoded(self._with_vectors(document) if self.vectors else normalise(document))

    def prepare_changed(self, document: Document, fields: Iterable[str]) -> Prepared:
        """prepare() for a stored document of which the given top-level fields were changed, and
        which the caller owns."""
        changed = {name: document[name] for name in fields if name in document}
        for name in self.vectors:  # the index may have been declared since
            if name in document:
                changed[name] = document[name]
        document.update(self._with_vectors(changed) if self.vectors else normalise(changed))
        return self._encoded(document)

    def _encoded(self, plain: Document) -> Prepared:
        id = plain.get("id")
        fresh = id is None
        if id is None:
            id = new_id()
            plain = {**plain, "id": id} if "id" in plain else {"id": id, **plain}
            id_bytes = id.encode()
        else:
            id_bytes = encode_id(id)
        if self._required:
            self._check_required(plain)
        try:
            body = encode(plain)
        except UnicodeEncodeError:
            raise surrogate_error(plain) from None
        if len(body) > self.options.document_bytes_max:
            raise DocumentTooLargeError(
                f"the document {id!r} has {len(body)} bytes, and document_bytes_max is "
                f"{self.options.document_bytes_max}: split it, or raise the limit at open",
                size=len(body),
            )
        expires = NEVER if self.expires_at is None else self._expires_us(plain)
        return Prepared(id, id_bytes, self.prefix + id_bytes, plain, body, expires, fresh)

    def _with_vectors(self, document: Mapping[str, Any]) -> Document:
        """normalise() for all fields but vectors, which become arrays of float32."""
        if not is_map(document):
            return normalise(document)  # raises
        arrays: dict[str, Any] = {}
        for name, spec in self.vectors.items():
            value = document.get(name)
            if value is not None and spec is not None:
                arrays[name] = spec.coerced(value)
            elif ndim := getattr(value, "ndim", 0):  # an array of numpy; the index was dropped
                to_stored = coerce if ndim == 1 else coerce_several
                arrays[name] = to_stored(value, name, None, None)
        if not arrays:
            return normalise(document)
        rest = {name: value for name, value in document.items() if name not in arrays}
        return {**normalise(rest), **arrays}

    def changed(self, before: Document, after: Document) -> set[str]:
        """The top-level fields among those that indexes depend on whose values may differ."""
        changed: set[str] = set()
        for name in self._indexed:
            old, new = before.get(name), after.get(name)
            if old is not new and (
                type(old) is not type(new) or type(old) not in SCALAR_ENCODERS or old != new
            ):
                changed.add(name)
        return changed

    def plan_of(self, changed: set[str]) -> EntryPlan:
        """The indexes that depend on one of these fields."""
        fields = frozenset(changed)
        plan = self._plans.get(fields)
        if plan is None:
            if len(self._plans) == _PLANS_MAX:
                self._plans.clear()
            plan = self._plans[fields] = EntryPlan(
                tuple(index for index in self.indexes if not fields.isdisjoint(index.roots))
            )
        return plan

    def is_another_row(self, before: Document, after: Document) -> bool:
        """Whether a document that is changed so gets another rowid."""
        return not self.row_roots.isdisjoint(self.changed(before, after)) and (
            self.row_contents(before) != self.row_contents(after)
        )

    def row_contents(self, document: Document) -> list[object]:
        """The document's content for each search index, and its vectors that none indexes. Two
        documents with equal lists are the same to all of them, and have the same vectors."""
        contents = [index.content(document) for index in self.row_indexes]
        for name in self.unindexed_vectors:
            value = document.get(name)
            contents.append(None if value is None else getattr(value, "tobytes", bytes)())
        return contents

    def row_keys(self, contents: list[object], rowid: int) -> list[bytes]:
        """The keys of the entries in the search indexes of a document with these contents."""
        return [
            index.key(rowid)
            for index, content in zip(self.row_indexes, contents, strict=False)
            if content is not None
        ]

    def add_entries(
        self,
        entries: Effects,
        plan: EntryPlan,
        document: Document,
        id_bytes: bytes,
        rowid: int,
        expires_us: int,
    ) -> None:
        """Adds to `entries` those of a document in the indexes of a plan and the expiry index."""
        if expires_us != NEVER:
            entries[self.expiry_key(expires_us, rowid)] = id_bytes
        plan.add(entries, document, id_bytes, rowid)

    def expiry_key(self, expires_us: int, rowid: int) -> bytes:
        """The key of a document's entry in the expiry index."""
        return self.expiry_prefix + _EXPIRY.pack(expires_us + TIME_ZERO, rowid)

    def expiry_bound(self, expires_us: int) -> bytes:
        """The end of the range of expiry keys of the documents that expire by this time."""
        return self.expiry_prefix + _EXPIRY.pack(expires_us + TIME_ZERO + 1, 0)

    def _check_required(self, document: Document) -> None:
        for name, kinds, word in self._required:
            value = document.get(name)
            if value is None:
                raise InvalidDocumentError(
                    f"collection {self.name!r} requires the field {name!r}", field=name
                )
            if kinds is not None and type(value) not in kinds:
                raise InvalidDocumentError(
                    f"collection {self.name!r} requires {name!r} to be {word}, "
                    f"not {type(value).__name__}",
                    field=name,
                )

    def _expires_us(self, document: Document) -> int:
        assert self.expires_at is not None
        value = document.get(self.expires_at)
        if value is None:
            return NEVER
        if type(value) is datetime:
            return microseconds(value)
        if type(value) in (int, float) and -1e12 < cast(float, value) < 9e12:
            return int(cast(float, value) * 1_000_000)
        raise InvalidDocumentError(
            f"{self.expires_at!r} is an aware datetime, epoch seconds, or None (permanent), "
            f"not {value!r}",
            field=self.expires_at,
        )
