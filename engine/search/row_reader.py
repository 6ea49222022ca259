"""Reads the documents of the rows that one search ranked.

Invariants:
- One view. document() reads and decodes a document once, however often it is called; its vectors
  are read by documents() alone.
- A live row has an entry, and the entry names a document with that rowid; anything else is damage,
  and raises.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.schema.codec import vector_decoder
from amberdb.engine.schema.document_format import BODY, damaged, rowid_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.schema.split_document import block_reader, join, join_all
from amberdb.engine.search.live_rows import REBUILD
from amberdb.engine.storage.index_scan import Entry
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@final
class RowReader:
    """Rows of one collection at one view. In each call `index` is the search index that ranked the
    row: a row has an entry only in the indexes of the fields that its document has."""

    def __init__(self, view: View, schema: Schema) -> None:
        self._get = view.get
        self._view = view
        self._get_document = view.getter_of(schema.prefix)
        self._schema = schema
        self._documents: dict[int, Document] = {}
        self._entries: dict[int, Entry] = {}

    def know(self, rowid: int, entry: Entry) -> None:
        """Notes the entry of an Ordered index that names the document of a row, which may have no
        entry in a search index. Its id may be b"" where the place is a key: then it is read."""
        self._entries[rowid] = entry

    def id(self, rowid: int, index: RowIndex) -> bytes:
        """The id of a row, without its document; empty where the entry is missing."""
        key, id_bytes = self._entries.get(rowid) or (index.key(rowid), b"")
        return id_bytes or self._get(key) or b""

    def known(self, rowid: int, index: RowIndex) -> Document:
        """The document of a row: from the cache if it is there, else read and not cached. Raises
        CorruptionError."""
        return self._documents.get(rowid) or self.read(rowid, index)

    def document(self, rowid: int, index: RowIndex) -> Document:
        """The document of a row, cached for this search. Raises CorruptionError."""
        document = self._documents.get(rowid)
        if document is None:
            document = self._documents[rowid] = self.read(rowid, index)
        return document

    def documents(
        self, ranked: Sequence[tuple[int, float]], origin: Mapping[int, RowIndex]
    ) -> dict[int, Document]:
        """document() of each ranked row, with its vectors; `origin` has the index that ranked it.
        Raises CorruptionError."""
        get, known, entries = self._get, self._documents, self._entries
        document_of, decode = self._get_document, self._schema.decode
        for rowid, _ in ranked:
            if rowid in known:
                continue
            index = origin[rowid]
            if rowid not in entries:
                # read(), inline: its calls take as long as the reads.
                key = index.documents + (get(index.entry_prefix + rowid.to_bytes(8)) or b"")
                value = document_of(key)
                if (
                    value is not None
                    and crc32(value, crc32(key)) == CRC_RESIDUE
                    and rowid_of(value) == rowid
                ):
                    known[rowid] = decode(value[BODY])
                    continue
            known[rowid] = self.read(rowid, index)
        if self._schema.vectors:
            join_all([known[rowid] for rowid, _ in ranked], self._schema.vectors, self._view)
        return known

    def read(self, rowid: int, index: RowIndex) -> Document:
        """The document of a row, not cached. Raises CorruptionError."""
        document: Document = self._schema.decode(self._body(rowid, index))
        return document

    def _body(self, rowid: int, index: RowIndex) -> bytes:
        """The encoded document of a row. Raises CorruptionError."""
        id_bytes = self.id(rowid, index)
        if id_bytes:
            key = index.documents + id_bytes
            value = self._get(key)
            if value is not None:
                if crc32(value, crc32(key)) != CRC_RESIDUE:  # inline, as in scan.py
                    raise damaged(key)
                if rowid_of(value) == rowid:
                    return value[BODY]
        raise CorruptionError(
            f"{index.spec.name} of {self._schema.name!r} names row {rowid}, whose document is "
            f"missing: run check(), then {REBUILD}",
            collection=self._schema.name,
            index=index.spec.name,
        )

    def vectors(
        self, rowids: "NDArray[np.int64]", index: RowIndex
    ) -> "tuple[NDArray[np.int64], NDArray[np.float32]]":
        """int64[n] and float32[n, dim]: the vectors of rows of a vector index, and the row of each.
        All live rows have one. Raises CorruptionError.

        The row has an entry, so its vectors were checked when it was put. They are not checked
        again. They are read from their blocks; from the document where a memtable has it, or LMDB
        has it whole, and then nothing else of it is decoded.
        """
        import numpy as np

        spec = index.vector
        size = 4 * spec.dim
        decoder = vector_decoder(spec.field)
        blocks = block_reader(self._schema.vector_prefix, self._schema.vectors, spec, self._get)
        found: list[bytes | memoryview] = []
        counts = np.zeros(len(rowids), np.intp)
        for position, rowid in enumerate(rowids.tolist()):
            row = None if blocks is None else blocks.row(rowid)
            if row is not None:
                found.append(row)
                counts[position] = len(row) // size
                continue
            body = self._body(rowid, index)
            vector = decoder(body)
            if vector is not None and len(vector[1]) % size == 0 and vector[0] in (0, spec.dim):
                dim, data = vector
                if dim or len(data) == size:
                    found.append(data)
                    counts[position] = len(data) // size
                    continue
            vectors = spec.vectors(
                join(self._schema.decode(body), (spec.field,), self._view.vectors_at)
            )
            if vectors is not None:
                found.append(vectors.astype("<f4", copy=False).tobytes())
                counts[position] = len(vectors)
        numbers = np.frombuffer(b"".join(found), "<f4").astype(np.float32, copy=False)
        return np.repeat(rowids, counts), numbers.reshape(-1, spec.dim)
