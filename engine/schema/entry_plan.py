"""The entries of a document in several ordered indexes: the key of each field is made once.

Invariants:
- The entries and marks are those of entry_pairs() for each index, in the order of the indexes (a
  property test).
- Lists, maps, values of other types and fields that do not fit a key go through entry_pairs().
"""

# What a document holds has no static type, so type(value) is unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any, Final, final

from amberdb._types import Document
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.ordered_index import LOSSY, CompiledIndex, entry_pairs
from amberdb.index.ordered.keys import (
    FIELD_KEY_BYTES_MAX,
    SCALAR_ENCODERS,
    SCALAR_ENCODERS_DESC,
    encode_rowid,
    encode_rowid_desc,
)
from amberdb.index.paths import Path
from amberdb.index.vector.embedding_queue import EmbeddingQueue

_NO_POSITIONS: Final[frozenset[int]] = frozenset()


@final
class EntryPlan:
    """Ordered indexes of one collection, ready to make the entries of a document."""

    __slots__ = ("_descends", "_fields", "_steps", "indexes")

    def __init__(self, indexes: tuple[CompiledIndex, ...]) -> None:
        self.indexes = indexes
        positions: dict[tuple[str, bool], int] = {}
        """Of each field that is to be encoded, by path and direction."""
        steps: list[tuple[CompiledIndex, bytes, tuple[int, ...], frozenset[int]]] = []
        for index in indexes:
            numbers: tuple[int, ...] = ()
            if not isinstance(index.spec, EmbeddingQueue):
                fields = zip(index.spec.paths, index.spec.descending, strict=True)
                numbers = tuple(positions.setdefault(each, len(positions)) for each in fields)
            steps.append((index, index.prefix, numbers, frozenset(numbers)))
        self._steps = tuple(steps)
        paths = [(Path.of(path), descends) for path, descends in positions]
        self._fields = tuple(
            (
                path.segments[0],
                None if path.is_plain else path.find,
                (SCALAR_ENCODERS_DESC if descends else SCALAR_ENCODERS).get,
            )
            for path, descends in paths
        )
        self._descends = any(index.descends for index in indexes)

    def add(self, entries: Effects, document: Document, id_bytes: bytes, rowid: int) -> None:
        """Adds the entries of a document. Raises InvalidDocumentError."""
        keys: list[bytes] = []
        others = missing = whole = _NO_POSITIONS
        for name, find, encoder_of in self._fields:
            value: Any = document.get(name) if find is None else find(document)
            kind = type(value)
            encoder = encoder_of(kind)
            if encoder is None:
                others |= {len(keys)}
                keys.append(b"")
                continue
            if value is None:
                missing |= {len(keys)}
            elif kind is float and value.is_integer():
                whole |= {len(keys)}
            keys.append(encoder(value))
        tail = encode_rowid(rowid)
        tail_desc = encode_rowid_desc(rowid) if self._descends else tail
        for index, prefix, numbers, fields in self._steps:
            if missing and index.spec.sparse and not missing.isdisjoint(fields):
                if whole or others:  # they leave marks
                    entries.update(entry_pairs(index, document, id_bytes, rowid))
                continue
            if len(numbers) == 2:
                first, second = numbers
                key = keys[first] + keys[second]
            else:
                key = b"".join([keys[number] for number in numbers])
            if (
                not numbers
                or (others and not others.isdisjoint(fields))
                or len(key) >= FIELD_KEY_BYTES_MAX
            ):
                entries.update(entry_pairs(index, document, id_bytes, rowid))
                continue
            entries[prefix + key + (tail_desc if index.descends else tail)] = id_bytes
            if whole and index.is_marked and not whole.isdisjoint(fields):
                entries[LOSSY + prefix] = b"1"
