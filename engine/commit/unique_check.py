"""The check of Unique indexes: whether another document has a value that a commit writes.

    value = prefix of the index and full fields;  entry = value and rowid  ->  id

Invariants:
- The end state of the commit counts, by full values, and only values that the commit has written
  are checked: a value may move from one document to another within one commit.
- A document that is still to be migrated has the values of its upgraded form, not those of its
  entries.
- An insert costs point look-ups: the values in the memtables are hashed, LMDB has them in order. A
  document whose value did not change is not looked up.
"""

from collections.abc import Callable, Collection, Mapping
from typing import final

from amberdb._errors import DuplicateKeyError, InvalidDocumentError, MigrationError
from amberdb._types import Document
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import Effects, end_of
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.vector_block import VectorsAt
from amberdb.engine.storage.index_scan import entries
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import (
    CUT_BYTES,
    KEYSPACE_BYTES,
    ROWID_BYTES,
    encode_rowid,
    encode_rowid_desc,
)

Live = Callable[[Schema, bytes], StoredDocument | None]
"""Returns the document under a key; None when it is missing or has expired."""


@final
class UniqueCheck:
    """Collects the values that one write batch stores, and checks them at its end."""

    __slots__ = ("_noted", "_view", "is_migrating", "rowids")

    def __init__(self, view: View) -> None:
        self._view = view
        self._noted: dict[bytes, tuple[Schema, CompiledIndex, set[bytes]]] = {}
        """By value: its index, and the entries with it that the commit writes."""
        self.rowids: dict[bytes, bytes] = {}
        """After run(), by value: the encoded rowids of all its entries, for
        Memtable.note_unique(). Without values that are too long for one key."""
        self.is_migrating = False
        """Whether the commit is the migrator's. Then a value is compared only with documents that
        are migrated already (each later one is compared in its own commit), and not at all in an
        index that is not built, since the build finds all duplicates."""

    def note(
        self,
        schema: Schema,
        indexes: Collection[CompiledIndex],
        document: Document,
        rowid: int,
        changed: Effects,
    ) -> None:
        """Takes in a document that the batch stores; `changed` are the effects of that, and
        `indexes` those that can have got another entry."""
        for index in schema.unique_indexes:
            is_enforced = schema.migration is None and self._view.is_built(index)
            if is_enforced and index not in indexes:
                continue
            rowid_bytes = (encode_rowid_desc if index.descends else encode_rowid)(rowid)
            for fields in index.encoder.unique_keys(document):
                value = index.prefix + fields
                entry = value + rowid_bytes
                if is_enforced and entry not in changed and len(fields) <= CUT_BYTES:
                    continue  # the document had the value before, so no other one has it
                if value in self._noted:
                    self._noted[value][2].add(entry)
                else:
                    self._noted[value] = (schema, index, {entry})

    def run(self, live: Live) -> None:
        """Compares the values with those of all other documents. Raises DuplicateKeyError."""
        owners: dict[Schema, dict[bytes, bytes]] = {}
        for value, (schema, index, written) in self._noted.items():
            ids = self._ids(value, written)
            if self.is_migrating and not self._view.is_built(index):
                continue
            if len(ids) <= 1 and schema.migration is None:
                continue
            owner = _owner(schema, index, value, ids, live, self._view.vectors_at)
            if owner is not None and schema.migration is not None and not self.is_migrating:
                owners.setdefault(schema, {})[value] = owner
        for schema, by_value in owners.items():
            self._check_unmigrated(schema, by_value)

    def _ids(self, value: bytes, written: set[bytes]) -> list[bytes]:
        """The ids of the documents that have an entry with this value, the newest rowid last."""
        view = self._view
        if len(value) > KEYSPACE_BYTES + CUT_BYTES:  # a scan puts entries that are cut together
            pairs = entries(view, [(value, end_of(value))])
            return list(dict.fromkeys(id_bytes for _, id_bytes in pairs))
        ids: dict[bytes, bytes] = {}
        for entry in sorted(view.unique_entries(value) | written):
            id_bytes = view.get(entry)
            if id_bytes is not None:
                ids[entry] = id_bytes
        self.rowids[value] = b"".join([entry[-ROWID_BYTES:] for entry in ids])
        return list(dict.fromkeys(ids.values()))

    def _check_unmigrated(self, schema: Schema, owners: Mapping[bytes, bytes]) -> None:
        """Compares the values, by their owners' ids, with those of the documents that are still to
        be migrated. It reads the whole collection: slow, and only until the migration has ended."""
        migration = schema.migration
        assert migration is not None
        for key, value in self._view.scan(schema.prefix, end_of(schema.prefix)):
            if not migration.is_due(value):
                continue
            stored = unpack(key, value)
            if stored.expires_us <= self._view.now_us:
                continue
            id_bytes = key[KEYSPACE_BYTES:]
            for index in schema.indexes:
                for fields in _upgraded_keys(schema, index, stored, self._view.vectors_at):
                    # It may be the owner itself: the batch's own document may be gone again.
                    if owners.get(index.prefix + fields, id_bytes) != id_bytes:
                        owner = owners[index.prefix + fields]
                        raise _duplicate(schema, index, id_bytes, owner)


def _owner(
    schema: Schema,
    index: CompiledIndex,
    value: bytes,
    ids: list[bytes],
    live: Live,
    vectors_at: VectorsAt,
) -> bytes | None:
    """The id of the one live document that has the value, if there is one. Raises
    DuplicateKeyError."""
    owner: bytes | None = None
    for id_bytes in ids:
        stored = live(schema, schema.prefix + id_bytes)
        if stored is None or not _still_has(schema, index, stored, value, vectors_at):
            continue
        if owner is not None:
            raise _duplicate(schema, index, owner, id_bytes)
        owner = id_bytes
    return owner


def _still_has(
    schema: Schema, index: CompiledIndex, stored: StoredDocument, low: bytes, vectors_at: VectorsAt
) -> bool:
    """Whether a document with an entry of the value has the value in its upgraded form too."""
    migration = schema.migration
    if migration is None or stored.version > migration.since:
        return True
    return low[KEYSPACE_BYTES:] in _upgraded_keys(schema, index, stored, vectors_at)


def _upgraded_keys(
    schema: Schema, index: CompiledIndex, stored: StoredDocument, vectors_at: VectorsAt
) -> Collection[bytes]:
    """The keys of an older document's upgraded form in a Unique index. None when it cannot be
    upgraded: then it is compared by the commit that migrates it."""
    assert schema.migration is not None
    if not index.is_unique:
        return ()
    try:
        return index.encoder.unique_keys(schema.upgraded(stored, vectors_at).document)
    except (MigrationError, InvalidDocumentError):
        return ()


def _duplicate(schema: Schema, index: CompiledIndex, one: bytes, other: bytes) -> DuplicateKeyError:
    return DuplicateKeyError(
        f"collection {schema.name!r}: documents {one.decode()!r} and {other.decode()!r} have the "
        f"same {', '.join(index.spec.fields)}, which {index.spec.name} keeps unique: change one of "
        "them",
        collection=schema.name,
        key=other.decode(),
        index=index.spec.name,
    )
