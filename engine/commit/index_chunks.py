"""Builds the entries of one index over the documents that LMDB holds, a chunk at a time: for an
index that is declared over documents, and for one that a restore makes anew.

Invariants:
- The entries of a chunk and the position after it are written in the caller's LMDB transaction, so
  an interrupted build continues where it stopped.
- Entries that commits have written since the declaration are written again as they are, and rows
  that a checkpoint has flushed are skipped.
"""

from collections.abc import Iterable
from itertools import islice

from amberdb._errors import InvalidDocumentError
from amberdb._types import Document
from amberdb.engine.jobs import Turns
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import BUILDING, end_of
from amberdb.engine.schema.ordered_index import CompiledIndex, entry_pairs
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.split_document import join
from amberdb.engine.storage.store_writer import StoreWriter
from amberdb.index.ordered.keys import KEYSPACE_BYTES

CHUNK = 1000
_PART = 100
"""Entries that one call into LMDB writes."""
ROWS_CHUNK = 4000
"""For search indexes: each chunk of a text index becomes a segment, to be merged later."""


def build_chunk(store: StoreWriter, schema: Schema, index: AnyIndex) -> tuple[int, bool]:
    """Builds the entries of the next documents: (number of documents, whether more may follow)."""
    mark = BUILDING + index.prefix
    low = (store.get(mark) or schema.prefix) + b"\0"
    chunk = CHUNK if isinstance(index, CompiledIndex) else ROWS_CHUNK
    turns = Turns()
    documents = list(turns.between(islice(store.scan(low, end_of(schema.prefix)), chunk)))
    if isinstance(index, CompiledIndex):
        _build_entries(store, index, documents, turns)
    else:
        from amberdb.engine.search.flush import flush_documents  # brings numpy

        try:
            fields: Iterable[str] = () if index.is_text else schema.vectors
            rows = (_row(store, fields, pair) for pair in turns.between(documents))
            flush_documents(store, index, rows)
        except InvalidDocumentError as error:
            raise _unbuildable(index, error) from None
    if documents:
        store.put(mark, documents[-1][0])
    return len(documents), len(documents) == chunk


def _build_entries(
    store: StoreWriter,
    index: CompiledIndex,
    documents: Iterable[tuple[bytes, bytes]],
    turns: Turns,
) -> None:
    pairs: dict[bytes, bytes] = {}
    for key, value in turns.between(documents):
        stored = unpack(key, value)
        document = decode_document(stored.body)
        try:
            pairs.update(entry_pairs(index, document, key[KEYSPACE_BYTES:], stored.rowid))
        except InvalidDocumentError as error:
            raise _unbuildable(index, error.of_document(key[KEYSPACE_BYTES:].decode())) from None
    ascending = iter(sorted(pairs.items()))
    while part := list(islice(ascending, _PART)):
        store.put_sorted(part)
        turns.offer()


def _unbuildable(index: AnyIndex, error: InvalidDocumentError) -> InvalidDocumentError:
    return InvalidDocumentError(
        f"{error.message}; {index.spec.name} cannot be built: change the document, or drop the "
        "index",
        **error.facts,
    )


def _row(
    store: StoreWriter, fields: Iterable[str], pair: tuple[bytes, bytes]
) -> tuple[int, bytes, Document]:
    """(rowid, id, document) of a stored pair, with the vectors of these fields."""
    stored = unpack(*pair)
    document = join(decode_document(stored.body), fields, store.vectors_at)
    return stored.rowid, pair[0][KEYSPACE_BYTES:], document
