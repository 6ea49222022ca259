"""An Ordered or Unique index, compiled: keys and values of its entries.

    prefix | fields | rowid  ->  id

Invariants:
- A key that LMDB's limit cuts has the rest of its fields in the value, so order and equality are
  still decided by the full fields.
"""

from amberdb._types import Document
from amberdb.engine.schema.definition import IndexDef
from amberdb.engine.schema.keyspace import META, prefix_of
from amberdb.index.ordered.key_encoder import FieldSpec, KeyEncoder
from amberdb.index.ordered.keys import FIELD_KEY_BYTES_MAX, ROWID_BYTES

CUT_ENTRY_SIZE = FIELD_KEY_BYTES_MAX + ROWID_BYTES
MULTI = META + b"m"
"""+ keyspace: some document has more than one entry in this index."""


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
