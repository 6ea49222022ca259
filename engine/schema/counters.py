"""The counters of a collection.

    documents u64 | next rowid u64        little-endian, 16 bytes

Invariants:
- A rowid is given once: it is not used again when its document is deleted.
"""

from dataclasses import dataclass
from struct import Struct

from amberdb._errors import CorruptionError

_COUNTERS = Struct("<QQ")
assert _COUNTERS.size == 16


@dataclass(slots=True)
class CollectionCounters:
    """The number of documents of a collection, expired ones too, and its next rowid."""

    documents: int
    next_rowid: int

    def pack(self) -> bytes:
        return _COUNTERS.pack(self.documents, self.next_rowid)

    @classmethod
    def unpack(cls, value: bytes | None) -> "CollectionCounters":
        """The stored counters, or those of a new collection for None. Raises CorruptionError."""
        if value is None:
            return cls(0, 1)
        if len(value) != _COUNTERS.size:
            raise CorruptionError("the counters of a collection are damaged: restore a backup")
        return cls(*_COUNTERS.unpack(value))
