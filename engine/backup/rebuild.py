"""Rebuilds indexes of a database that is being restored, from its documents.

An archive has the entries of indexes beside the documents that they were made from. Where the two
differ the documents are right, and a restore makes the entries anew.

Invariants:
- A document is never changed, and an index that does not differ is left as it is.
- A rebuilt index is complete and marked as built, also in a database that is only read.
- A text index is rebuilt by this version of its analyzer, which its definition then names.
"""

from collections.abc import Iterator
from dataclasses import replace

from amberdb.engine.commit.index_chunks import build_chunk
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import sealed_entry
from amberdb.engine.schema.document_format import NEVER, unpack
from amberdb.engine.schema.keyspace import BUILDING, BUILT, COLLECTIONS, end_of, prefix_of
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.search_index import identity_of
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import NEWEST, stored_view
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.index.text.text import Text

_CHUNK = 1000


def rebuild(store: Store, keyspaces: set[int], options: Options) -> Iterator[str]:
    """Rebuilds the indexes with these keyspaces, expiry indexes among them, and yields their names.
    Raises CorruptionError, InvalidDocumentError."""
    with stored_view(store, Memtable(), NEWEST, options) as view:
        schemas = list(view.catalog.schemas.values())
    for schema in schemas:
        for index in schema.all_indexes:
            if index.number in keyspaces:
                _rebuild_index(store, schema, index)
                yield f"{schema.name}: {index.spec.name}"
        if schema.definition.expiry_keyspace in keyspaces:
            _rebuild_expiry(store, schema)
            yield f"{schema.name}: expiry"
        _name_analyzers(store, schema, keyspaces)


def _rebuild_index(store: Store, schema: Schema, index: AnyIndex) -> None:
    clear(store, index.number)
    with store.write() as writer:
        writer.delete(BUILDING + index.prefix)
    more = True
    while more:
        with store.write() as writer:
            _, more = build_chunk(writer, schema, index)
    with store.write() as writer:
        writer.delete(BUILDING + index.prefix)
        writer.put(BUILT + index.prefix, b"1")


def _rebuild_expiry(store: Store, schema: Schema) -> None:
    clear(store, schema.definition.expiry_keyspace)
    position, more = schema.prefix, True
    while more:
        pairs: list[tuple[bytes, bytes]] = []
        with store.write() as writer:
            count = 0
            for key, value in writer.scan(position + b"\0", end_of(schema.prefix)):
                position, count = key, count + 1
                stored = unpack(key, value)
                if stored.expires_us != NEVER:
                    entry = schema.expiry_key(stored.expires_us, stored.rowid)
                    pairs.append((entry, key[KEYSPACE_BYTES:]))
                if count == _CHUNK:
                    break
            if pairs:
                writer.put_sorted(sorted(pairs))
        more = count == _CHUNK


def _name_analyzers(store: Store, schema: Schema, keyspaces: set[int]) -> None:
    """Writes into the definition which analyzer made the rebuilt indexes."""
    definition = schema.definition
    indexes = tuple(
        replace(index, identity=identity_of(index.spec))
        if isinstance(index.spec, Text) and index.keyspace in keyspaces
        else index
        for index in definition.indexes
    )
    if indexes != definition.indexes:
        key = COLLECTIONS + definition.name.encode()
        with store.write() as writer:
            writer.put(key, sealed_entry(key, replace(definition, indexes=indexes).to_map()))


def clear(store: Store, number: int) -> None:
    """Deletes every key of a keyspace, in transactions of bounded size."""
    prefix = prefix_of(number)
    removed = _CHUNK
    while removed == _CHUNK:
        with store.write() as writer:
            removed = writer.delete_range(prefix, end_of(prefix), _CHUNK)
