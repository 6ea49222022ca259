"""What a collection is: its declaration as the catalog stores it, and compiled for speed.

Invariants:
- Numbers of collections and trees are given once; a name may come and go.
- An index entry is tree + fields + rowid -> id. A key cut at LMDB's limit has the rest of its
  fields in the value, so order and equality are still decided by the full fields.
- The expiry index is an entry expires_us + rowid -> id for every document that will expire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from struct import Struct
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias, cast

from amberdb._errors import (
    CollectionError,
    CorruptionError,
    DocumentTooLargeError,
    FormatError,
    InvalidDocumentError,
    QueryError,
)
from amberdb._time import microseconds
from amberdb._types import Document
from amberdb.engine.query.filter import Filter
from amberdb.engine.query.order import OrderField
from amberdb.engine.schema.codec import decode_document, encode
from amberdb.engine.schema.document_format import NEVER, StoredDocument
from amberdb.engine.schema.documents import encode_id, is_map, new_id, normalise, surrogate_error
from amberdb.engine.schema.keyspace import HEADS, META, prefix_of
from amberdb.engine.schema.migration import Migration, MigrationStep, Upgrades
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.memtable import Effects
from amberdb.index.ordered.key_encoder import FieldSpec, KeyEncoder
from amberdb.index.ordered.keys import FIELD_KEY_BYTES_MAX, ROWID_BYTES, encode_rowid
from amberdb.index.paths import path_problem
from amberdb.index.registry import IndexSpec, spec_from_map
from amberdb.index.text.text import Text
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from amberdb.index.vector.vector import Vector, coerce

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
CUT_ENTRY_SIZE = FIELD_KEY_BYTES_MAX + ROWID_BYTES
MULTI = META + b"m"
"""+ tree: some document has more than one entry in this index."""

_HEAD = Struct("<QQ")
_EXPIRY = Struct(">QQ")
_SIGN = 1 << 63


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


@dataclass(slots=True)
class CollectionCounters:
    """How many documents a collection has (expired ones too), and its next rowid."""

    documents: int
    next_rowid: int

    def pack(self) -> bytes:
        return _HEAD.pack(self.documents, self.next_rowid)

    @classmethod
    def unpack(cls, value: bytes | None) -> "CollectionCounters":
        if value is None:
            return cls(0, 1)
        if len(value) != _HEAD.size:
            raise CorruptionError("the head of a collection is damaged: restore a backup")
        return cls(*_HEAD.unpack(value))


class Prepared(NamedTuple):
    """A document that passed every check which needs no lock."""

    id: str
    id_bytes: bytes
    key: bytes
    document: Document
    body: bytes
    expires_us: int
    fresh: bool
    """The id was made just now, so nothing can be stored under it."""


class CompiledIndex:
    """An index ready to make entries."""

    __slots__ = (
        "complete_from",
        "descends",
        "encoder",
        "entries",
        "is_unique",
        "number",
        "prefix",
        "single",
        "spec",
    )

    def __init__(self, index: IndexDef, spec: FieldSpec) -> None:
        self.spec = spec
        self.number = index.keyspace
        self.complete_from = index.complete_from
        self.prefix = prefix_of(index.keyspace)
        self.encoder = KeyEncoder(spec)
        self.entries = self.encoder.entries
        self.single = self.encoder.single
        self.descends = self.encoder.descending[-1]
        self.is_unique = spec.kind == "unique"


AnyIndex: TypeAlias = CompiledIndex | RowIndex


class Schema:
    """A collection, compiled: makes keys, values and index entries of its documents."""

    __slots__ = (
        "_document_bytes_max",
        "_required",
        "all_indexes",
        "definition",
        "expires_at",
        "expiry_prefix",
        "has_unique",
        "head_key",
        "indexes",
        "migration",
        "name",
        "prefix",
        "queues",
        "row_indexes",
        "row_prefixes",
        "vectors",
    )

    def __init__(
        self,
        definition: CollectionDef,
        document_bytes_max: int,
        upgrades: Upgrades = MappingProxyType({}),
    ) -> None:
        self.definition = definition
        self.migration = Migration(definition.steps, upgrades) if definition.steps else None
        """While there may be documents of an older version."""
        self.name = definition.name
        self.prefix = prefix_of(definition.keyspace)
        self.expiry_prefix = prefix_of(definition.expiry_keyspace)
        self.head_key = HEADS + definition.number.to_bytes(4)
        self.indexes = tuple(
            CompiledIndex(index, index.spec)
            for index in definition.indexes
            if isinstance(index.spec, FieldSpec)
        )
        """Those with sorted entries."""
        self.queues = tuple(
            index for index in self.indexes if isinstance(index.spec, EmbeddingQueue)
        )
        """Of these, those that no filter and no order uses."""
        self.row_indexes = tuple(
            RowIndex(index, index.spec, self.prefix)
            for index in definition.indexes
            if isinstance(index.spec, Text | Vector)
        )
        """Those that search() uses."""
        self.all_indexes: tuple[AnyIndex, ...] = (*self.indexes, *self.row_indexes)
        self.row_prefixes = frozenset(index.entry_prefix for index in self.row_indexes)
        self.vectors: dict[str, Vector | None] = dict.fromkeys(definition.vectors)
        """Fields that may hold arrays, with their declaration while there is one."""
        for index in self.row_indexes:
            if isinstance(index.spec, Vector):
                self.vectors[index.spec.field] = index.spec
        self.has_unique = any(index.is_unique for index in self.indexes)
        self.expires_at = definition.expires_at
        self._required = tuple(
            (name, TYPES[kind] if kind else None, kind)
            for name, kind in definition.required.items()
        )
        self._document_bytes_max = document_bytes_max

    @property
    def upgrades(self) -> Upgrades:
        """The functions to newer versions that are still needed."""
        return {} if self.migration is None else self.migration.upgrades

    def register_upgrades(self, upgrades: Upgrades) -> None:
        """Takes these functions, in place of those that it had."""
        if self.migration is not None:
            self.migration.upgrades = {**self.migration.upgrades, **upgrades}

    def redefined(self, definition: CollectionDef) -> "Schema":
        """The same collection as it is defined from now on."""
        return Schema(definition, self._document_bytes_max, self.upgrades)

    def document(self, stored: StoredDocument) -> Document:
        """A stored document as the collection shows it: of its newest version. Raises
        MigrationError."""
        migration = self.migration
        if migration is None or stored.version > migration.since:
            return stored.document()
        return decode_document(migration.upgraded(self, stored).body)

    def key(self, id: object) -> bytes:
        """The key of a document. Raises InvalidDocumentError for what cannot be an id."""
        return self.prefix + encode_id(id)

    def prepare(self, document: Mapping[str, Any]) -> Prepared:
        """Checks and encodes a document. Raises InvalidDocumentError, DocumentTooLargeError."""
        plain = self._with_vectors(document) if self.vectors else normalise(document)
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
        if len(body) > self._document_bytes_max:
            raise DocumentTooLargeError(
                f"the document {id!r} takes {len(body)} bytes, and document_bytes_max is "
                f"{self._document_bytes_max}: split it, or raise the limit at open",
                size=len(body),
            )
        expires = NEVER if self.expires_at is None else self._expires_us(plain)
        return Prepared(id, id_bytes, self.prefix + id_bytes, plain, body, expires, fresh)

    def _with_vectors(self, document: Mapping[str, Any]) -> Document:
        """normalise(), and the arrays in vector fields as they are stored."""
        if not is_map(document):
            return normalise(document)  # refuses it
        arrays: dict[str, Any] = {}
        for name, spec in self.vectors.items():
            value = document.get(name)
            if value is not None and spec is not None:
                arrays[name] = coerce(value, name, spec.dim, spec.metric)
            elif hasattr(value, "dtype"):  # numpy's; the index was dropped
                arrays[name] = coerce(value, name, None, None)
        if not arrays:
            return normalise(document)
        rest = {name: value for name, value in document.items() if name not in arrays}
        return {**normalise(rest), **arrays}

    def refuse_vectors(self, where: Filter, order: tuple[OrderField, ...] = ()) -> None:
        """Raises QueryError for a filter or an order that compares vectors."""
        where.refuse_vectors(self.vectors)
        for path, _ in order:
            if path in self.vectors:
                raise QueryError(f"{path!r} holds vectors, which have no order")

    def row_contents(self, document: Document) -> list[object]:
        """The document's content for each search index. Two documents with equal lists are the
        same to all of them."""
        return [index.content(document) for index in self.row_indexes]

    def row_keys(self, contents: list[object], rowid: int) -> list[bytes]:
        """The keys of the entries in the search indexes of a document with these contents."""
        return [
            index.key(rowid)
            for index, content in zip(self.row_indexes, contents, strict=True)
            if content is not None
        ]

    def add_entries(
        self, found: Effects, document: Document, id_bytes: bytes, rowid: int, expires_us: int
    ) -> None:
        """Adds key and value of every index entry that the document has."""
        if expires_us != NEVER:
            found[self.expiry_key(expires_us, rowid)] = id_bytes
        tail = encode_rowid(rowid)
        for index in self.indexes:
            key = index.single(document)
            if key is None or len(key) >= FIELD_KEY_BYTES_MAX or index.descends:
                found.update(entry_pairs(index, document, id_bytes, rowid))
            else:
                found[index.prefix + key + tail] = id_bytes

    def expiry_key(self, expires_us: int, rowid: int) -> bytes:
        return self.expiry_prefix + _EXPIRY.pack(expires_us + _SIGN, rowid)

    def expiry_bound(self, expires_us: int) -> bytes:
        """The first expiry key past everything that has expired at this time."""
        return self.expiry_prefix + _EXPIRY.pack(expires_us + _SIGN + 1, 0)

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


def entry_pairs(
    index: CompiledIndex, document: Document, id_bytes: bytes, rowid: int
) -> dict[bytes, bytes]:
    """Key and value of a document's entries in one index, and the mark that there are several."""
    entries = index.entries(document, rowid)
    found = {
        index.prefix + entry: (
            id_bytes if len(entry) < CUT_ENTRY_SIZE else pack_cut(id_bytes, remainder)
        )
        for entry, remainder in entries
    }
    if len(entries) > 1:
        found[MULTI + index.prefix] = b"1"
    return found


def pack_cut(id_bytes: bytes, remainder: bytes) -> bytes:
    """The value of an entry whose key has the full cut length."""
    return len(id_bytes).to_bytes(2) + id_bytes + remainder


def unpack_cut(value: bytes) -> tuple[bytes, bytes]:
    """(id, the fields' bytes that did not fit the key)"""
    size = int.from_bytes(value[:2])
    return value[2 : 2 + size], value[2 + size :]


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
