"""Writes documents to LMDB split: the vectors of each in blocks beside it (split_document.py).

    checkpoint  -> DocumentFlush: documents of a frozen memtable, ids ascending
    split_chunk -> documents that LMDB has whole, since they were stored before their field was
                   declared as vectors, or by an earlier version

Invariants:
- A document and its vectors are written in one LMDB transaction, the caller's; so every place that
  a document names has its row, and every row is named by one document.
- A block is read and written once in a transaction, however many of its rows change.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, final

from amberdb.engine.jobs import Turns
from amberdb.engine.schema.document_format import is_sound
from amberdb.engine.schema.keyspace import BUILDING, end_of, prefix_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import places, split
from amberdb.engine.schema.vector_block import (
    Rows,
    StoredVector,
    new_row,
    pack_block,
    unpack_block,
)
from amberdb.engine.storage.memtable import Version
from amberdb.engine.storage.store_writer import StoreWriter

CHUNK: Final = 1000
"""Documents that are split in one transaction."""


@final
class DocumentFlush:
    """Writes documents of one collection; their vectors when finish() is called."""

    def __init__(self, store: StoreWriter, schema: Schema) -> None:
        self._store = store
        self._schema = schema
        self._added: dict[bytes, dict[int, memoryview]] = {}
        """By block and slot."""
        self._removed: dict[bytes, set[int]] = {}

    def write(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Writes documents, or deletes those without a value; keys ascend."""
        store, schema = self._store, self._schema
        split_pairs: list[tuple[bytes, bytes]] = []
        for key, value in pairs:
            older = store.get(key)
            stale = set[StoredVector]()
            if older is not None and is_sound(key, older):  # else check() finds the rows it leaves
                stale = places(schema.vectors, older)
            if value is None:
                store.delete(key)
            else:
                value, vectors = split(schema.vector_prefix, schema.vectors, key, value)
                split_pairs.append((key, value))
                for place, data in vectors.items():
                    if place in stale:  # the same vector, since a rowid has one for ever
                        stale.remove(place)
                    else:
                        self._added.setdefault(place.key, {})[place.slot] = data
            for place in stale:
                self._removed.setdefault(place.key, set()).add(place.slot)
        store.put_sorted(split_pairs)

    def finish(self, offer: Callable[[], None]) -> None:
        """Writes the blocks. `offer` is called often. Raises CorruptionError for one that has no
        form."""
        store = self._store
        for key in sorted(self._added.keys() | self._removed.keys()):
            offer()
            value = store.get(key)
            rows: Rows = {} if value is None else unpack_block(key, value)
            for slot in self._removed.get(key, ()):
                rows.pop(slot, None)
            for slot, data in self._added.get(key, {}).items():
                rows[slot] = new_row(StoredVector.at(key, slot), data)
            if rows:
                store.put(key, pack_block(rows))
            elif value is not None:
                store.delete(key)


def flush_documents(
    store: StoreWriter,
    versions: "dict[bytes, Version]",
    parts: Iterable[list[bytes]],
    schema: Schema,
    offer: Callable[[], None],
) -> None:
    """Writes the documents of a frozen memtable with these keys, ascending. `offer` is called
    often, and may let other threads run. Raises CorruptionError."""
    flush = DocumentFlush(store, schema)
    for keys in parts:
        flush.write((key, versions[key][1]) for key in keys)
    flush.finish(offer)


def split_chunk(store: StoreWriter, schema: Schema) -> tuple[int, bool]:
    """Splits the next documents that LMDB has whole: (documents read, whether more may follow).
    Raises CorruptionError."""
    mark = BUILDING + prefix_of(schema.definition.vector_keyspace)
    low = (store.get(mark) or schema.prefix) + b"\0"
    turns = Turns()
    documents = list(turns.between(islice(store.scan(low, end_of(schema.prefix)), CHUNK)))
    flush = DocumentFlush(store, schema)
    prefix, fields = schema.vector_prefix, schema.vectors
    # One that is damaged stays as it is: another body would get another checksum.
    sound = (pair for pair in documents if is_sound(*pair))
    flush.write([pair for pair in sound if split(prefix, fields, *pair)[1]])
    flush.finish(turns.offer)
    if documents:
        store.put(mark, documents[-1][0])
    return len(documents), len(documents) == CHUNK
