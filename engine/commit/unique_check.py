"""The values that one commit writes into Unique indexes, and whether another document has them.

Invariants:
- Judged by the end state, by full values, and only for what the commit has written: a value may
  pass from one document to another within it.
- A document that waits for its migration has the values that it will have, not those that its
  entries in the index still say.
"""

from collections.abc import Callable, Collection
from typing import final

from amberdb._errors import DuplicateKeyError, InvalidDocumentError, MigrationError
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import Effects, end_of
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.schema import Prepared, Schema
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
"""The document under a key, unless it has expired."""


@final
class UniqueCheck:
    """Of one writer."""

    __slots__ = ("_noted", "_view", "is_migrating", "rowids")

    def __init__(self, view: View) -> None:
        self._view = view
        self._noted: dict[bytes, tuple[Schema, CompiledIndex, set[bytes]]] = {}
        """By prefix and fields: the entries that the commit writes."""
        self.rowids: dict[bytes, bytes] = {}
        """After run(): for the memtable, the values with the rowids of all entries that have it."""
        self.is_migrating = False
        """What waits for its migration is looked at when its turn comes; and what an index that is
        not complete keeps unique, when it is built."""

    def note(self, schema: Schema, new: Prepared, rowid: int, changed: Effects) -> None:
        """A document that the commit stores; `changed` are its effects."""
        document = new.document
        for index in schema.unique_indexes:
            is_enforced = schema.migration is None and self._view.is_built(index)
            rowid_bytes = (encode_rowid_desc if index.descends else encode_rowid)(rowid)
            single = index.single(document)
            for fields in index.maker.unique_keys(document) if single is None else (single,):
                value = index.prefix + fields
                entry = value + rowid_bytes
                if is_enforced and entry not in changed and len(fields) <= CUT_BYTES:
                    continue  # it had the value before, so no other document has it
                if value in self._noted:
                    self._noted[value][2].add(entry)
                else:
                    self._noted[value] = (schema, index, {entry})

    def run(self, live: Live) -> None:
        """Raises DuplicateKeyError."""
        owners: dict[Schema, dict[bytes, bytes]] = {}
        for value, (schema, index, written) in self._noted.items():
            ids = self._ids(value, written)
            if self.is_migrating and not self._view.is_built(index):
                continue
            if len(ids) <= 1 and schema.migration is None:
                continue
            owner = _owner(schema, index, value, ids, live)
            if owner is not None and schema.migration is not None and not self.is_migrating:
                owners.setdefault(schema, {})[value] = owner
        for schema, found in owners.items():
            self._check_waiting(schema, found)

    def _ids(self, value: bytes, written: set[bytes]) -> Collection[bytes]:
        """The ids of the documents that have an entry with these full fields."""
        view = self._view
        if len(value) > KEYSPACE_BYTES + CUT_BYTES:  # entries may be cut: compared in a scan
            return {id_bytes for _, id_bytes in entries(view, [(value, end_of(value))])}
        ids: dict[bytes, bytes] = {}
        for entry in view.unique_entries(value) | written:
            id_bytes = view.get(entry)
            if id_bytes is not None:
                ids[entry] = id_bytes
        self.rowids[value] = b"".join([entry[-ROWID_BYTES:] for entry in ids])
        return set(ids.values())

    def _check_waiting(self, schema: Schema, owners: dict[bytes, bytes]) -> None:
        """Reads all documents of a collection for those that wait for their migration: slow, right,
        and over when the migration is."""
        migration = schema.migration
        assert migration is not None
        for key, value in self._view.scan(schema.prefix, end_of(schema.prefix)):
            if not migration.is_due(value):
                continue
            stored = unpack(key, value)
            if stored.expires_us <= self._view.now_us:
                continue
            for index in schema.indexes:
                for fields in _keys_to_be(schema, index, stored):
                    owner = owners.get(index.prefix + fields)
                    if owner is not None:
                        raise _duplicate(schema, index, key[KEYSPACE_BYTES:], owner)


def _owner(
    schema: Schema, index: CompiledIndex, value: bytes, ids: Collection[bytes], live: Live
) -> bytes | None:
    """The id of the one live document that has the value, if there is one. Raises
    DuplicateKeyError."""
    owner: bytes | None = None
    for id_bytes in sorted(ids):
        stored = live(schema, schema.prefix + id_bytes)
        if stored is None or not _still_has(schema, index, stored, value):
            continue
        if owner is not None:
            raise _duplicate(schema, index, owner, id_bytes)
        owner = id_bytes
    return owner


def _still_has(schema: Schema, index: CompiledIndex, stored: StoredDocument, low: bytes) -> bool:
    """Whether a document that has an entry has the value."""
    migration = schema.migration
    if migration is None or stored.version > migration.since:
        return True
    return low[KEYSPACE_BYTES:] in _keys_to_be(schema, index, stored)


def _keys_to_be(schema: Schema, index: CompiledIndex, stored: StoredDocument) -> Collection[bytes]:
    """What an older document will have in a Unique index. Nothing when it cannot be upgraded: it
    is judged once it can."""
    assert schema.migration is not None
    if not index.is_unique:
        return ()
    try:
        return index.maker.unique_keys(schema.upgraded(stored).document)
    except (MigrationError, InvalidDocumentError):
        return ()


def _duplicate(schema: Schema, index: CompiledIndex, one: bytes, other: bytes) -> DuplicateKeyError:
    return DuplicateKeyError(
        f"collection {schema.name!r}: documents {one.decode()!r} and {other.decode()!r} have the "
        f"same {', '.join(index.spec.fields)}, which {index.spec.name} keeps unique",
        collection=schema.name,
        key=other.decode(),
        index=index.spec.name,
    )
