"""From rows to documents, for one search: what it scored becomes what it returns.

Invariants:
- One view; a document is read and decoded once, however often it is asked for.
- A row that is alive has an entry, and the entry a document with that rowid; anything else is
  damage, and raises.
"""

from typing import TYPE_CHECKING, final
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.schema.codec import decode_unchecked
from amberdb.engine.schema.document_format import BODY, damaged, rowid_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.storage.view import View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@final
class RowReader:
    """Rows of one collection at one view. `index` is the search index that the rows came from:
    a row has an entry only in those that have content of it."""

    def __init__(self, view: View, schema: Schema) -> None:
        self._get = view.get
        self._schema = schema
        self._documents: dict[int, Document] = {}

    def document(self, rowid: int, index: RowIndex) -> Document:
        """Raises CorruptionError."""
        document = self._documents.get(rowid)
        if document is None:
            document = self._documents[rowid] = self.read(rowid, index)
        return document

    def read(self, rowid: int, index: RowIndex) -> Document:
        """document(), not kept."""
        id_bytes = self._get(index.key(rowid))
        if id_bytes is not None:
            key = index.documents + id_bytes
            value = self._get(key)
            if value is not None:
                if crc32(value, crc32(key)) != CRC_RESIDUE:
                    raise damaged(key)
                if rowid_of(value) == rowid:
                    document: Document = decode_unchecked(value[BODY])
                    return document
        raise CorruptionError(
            f"{index.spec.name} of {self._schema.name!r} names row {rowid}, whose document is not "
            "there: run check(), then declare the index anew",
            collection=self._schema.name,
            index=index.spec.name,
        )

    def vectors(
        self, rowids: "NDArray[np.int64]", index: RowIndex
    ) -> "tuple[NDArray[np.float32], NDArray[np.bool_]]":
        """float32[n, dim] of a vector index, and which rows have one (all that are alive)."""
        import numpy as np

        spec = index.vector
        found = np.zeros((len(rowids), spec.dim), np.float32)
        has = np.zeros(len(rowids), np.bool_)
        for at, rowid in enumerate(rowids.tolist()):
            vector = spec.vector(self.read(rowid, index))
            if vector is not None:
                found[at] = vector
                has[at] = True
        return found, has
