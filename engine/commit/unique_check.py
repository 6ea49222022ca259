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
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.ordered_index import CompiledIndex
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.engine.storage.index_scan import entries
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES

Live = Callable[[Schema, bytes], StoredDocument | None]
"""The document under a key, unless it has expired."""


@final
class UniqueCheck:
    """Of one writer."""

    __slots__ = ("_noted", "_view", "is_migrating")

    def __init__(self, view: View) -> None:
        self._view = view
        self._noted: dict[bytes, tuple[Schema, CompiledIndex]] = {}
        """By tree and fields."""
        self.is_migrating = False
        """What waits for its migration is looked at when its turn comes; and what an index that is
        not complete keeps unique, when it is built."""

    def note(self, schema: Schema, new: Prepared) -> None:
        """A document that the commit stores."""
        for index in schema.indexes:
            if index.is_unique:
                for key in index.encoder.unique_keys(new.document):
                    self._noted[index.prefix + key] = (schema, index)

    def run(self, live: Live) -> None:
        """Raises DuplicateKeyError."""
        owners: dict[Schema, dict[bytes, bytes]] = {}
        for low, (schema, index) in self._noted.items():
            if self.is_migrating and not self._view.is_built(index):
                continue
            owner = self._owner(schema, index, low, live)
            if owner is not None and schema.migration is not None and not self.is_migrating:
                owners.setdefault(schema, {})[low] = owner
        for schema, found in owners.items():
            self._check_waiting(schema, found)

    def _owner(self, schema: Schema, index: CompiledIndex, low: bytes, live: Live) -> bytes | None:
        """At most one live document has an entry with these full fields: its id."""
        owner: bytes | None = None
        for _, id_bytes in list(entries(self._view, [(low, end_of(low))])):
            stored = live(schema, schema.prefix + id_bytes)
            if stored is None or not _still_has(schema, index, stored, low):
                continue
            if owner is None:
                owner = id_bytes
            elif owner != id_bytes:
                raise _duplicate(schema, index, owner, id_bytes)
        return owner

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
        return index.encoder.unique_keys(schema.upgraded(stored).document)
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
