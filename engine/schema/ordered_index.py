"""An Ordered or Unique index, compiled: the keys and values of its entries.

    prefix | fields | rowid                      ->  id
    prefix | CUT_BYTES of fields | digest | rowid ->  id size u16 | id | the rest of the fields

Invariants:
- The second form is for fields that do not fit a key of LMDB. Since the value has the rest, order
  and equality are decided by the full fields.
"""

from collections.abc import Iterable
from typing import Final

from amberdb._types import Document
from amberdb.engine.schema.definition import IndexDef
from amberdb.engine.schema.keyspace import META, prefix_of
from amberdb.index.ordered.key_encoder import FieldSpec, KeyEncoder
from amberdb.index.ordered.keys import FIELD_KEY_BYTES_MAX, ROWID_BYTES
from amberdb.index.paths import Path

CUT_ENTRY_SIZE = FIELD_KEY_BYTES_MAX + ROWID_BYTES
"""The size of an entry whose fields are cut, without the prefix."""
MULTI = META + b"m"
"""+ keyspace: a document has, or once had, more than one entry in this index."""
LOSSY = META + b"l"
"""+ keyspace: a document has, or once had, a value in this index that does not follow from its key:
a list, or a float that is a whole number. Only indexes whose identity is MARKED keep this mark."""
MARKED: Final = "marks=2"
"""The identity of indexes that keep both marks; the first ones have none."""


class CompiledIndex:
    """An index that is ready to make entries."""

    __slots__ = (
        "complete_from",
        "descends",
        "encoder",
        "entries",
        "is_marked",
        "is_unique",
        "name",
        "number",
        "prefix",
        "roots",
        "spec",
    )

    def __init__(self, index: IndexDef, spec: FieldSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.number = index.keyspace
        self.complete_from = index.complete_from
        self.prefix = prefix_of(index.keyspace)
        self.encoder = KeyEncoder(spec)
        self.roots = roots_of(spec.paths)
        self.entries = self.encoder.entries
        self.descends = self.encoder.descending[-1]
        self.is_unique = spec.kind == "unique"
        self.is_marked = index.identity == MARKED


def roots_of(paths: Iterable[str]) -> frozenset[str]:
    """The top-level fields that lead to the values at the paths."""
    return frozenset(Path.of(path).segments[0] for path in paths)


def entry_pairs(
    index: CompiledIndex, document: Document, id_bytes: bytes, rowid: int
) -> dict[bytes, bytes]:
    """The entries of a document in one index, and the marks that it leaves."""
    entries = index.entries(document, rowid)
    pairs = {
        index.prefix + entry: (
            id_bytes if len(entry) < CUT_ENTRY_SIZE else pack_cut(id_bytes, remainder)
        )
        for entry, remainder in entries
    }
    if len(entries) > 1:
        pairs[MULTI + index.prefix] = b"1"
    if index.is_marked and index.encoder.is_lossy(document):
        pairs[LOSSY + index.prefix] = b"1"
    return pairs


def pack_cut(id_bytes: bytes, remainder: bytes) -> bytes:
    """The value of an entry whose fields are cut."""
    return len(id_bytes).to_bytes(2) + id_bytes + remainder


def unpack_cut(value: bytes) -> tuple[bytes, bytes]:
    """(id, the rest of the fields) from the value of an entry whose fields are cut."""
    size = int.from_bytes(value[:2])
    return value[2 : 2 + size], value[2 + size :]
