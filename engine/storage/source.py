"""The source protocol: what a query reads from. A View is a source.

Access, planner, filter, shape, order, page and query import this module and nothing else of
storage, so that they can serve other storage, such as a database on a server.

Invariants:
- All calls on one source answer as of one Lsn, and expiry is judged by one `now_us`.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from amberdb.engine.schema.schema import AnyIndex
from amberdb.engine.schema.vector_block import StoredVector

Range = tuple[bytes, bytes]
"""low <= key < high, prefix of the keyspace included."""

Place = bytes
"""The position of an entry in an index: prefix, full fields (not cut) and rowid; in a scan of
documents the document's key. Places sort as the entries do, since no fields are a prefix of
others."""


class Source(Protocol):
    """Reads of keys and values at one Lsn."""

    @property
    def now_us(self) -> int:
        """Microseconds since 1970; a document that expires at or before it is not visible."""
        ...

    @property
    def get(self) -> "Get":
        """Reads one value."""
        ...

    def getter_of(self, prefix: bytes) -> "Get":
        """get() for the keys of one keyspace: faster, where there are many."""
        ...

    def vectors_at(self, place: StoredVector, /) -> bytes | None:
        """The vectors at a place that a document names; None when they are not there. Raises
        CorruptionError."""
        ...

    def expect_vectors(self, places: Iterable[StoredVector]) -> None:
        """Takes in that vectors_at() will be asked for these next."""
        ...

    def points(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of those of these keys of documents that there are, in their order."""
        ...

    def scan(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of one keyspace with low <= key < high, in byte order."""
        ...

    def keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """At most `limit` keys of scan(), ascending: several times faster."""
        ...

    def is_built(self, index: AnyIndex) -> bool:
        """Whether the index holds all entries as of this Lsn."""
        ...


class Get(Protocol):
    """The type of Source.get."""

    def __call__(self, key: bytes, /) -> bytes | None:
        """The value of a key; None when it is missing."""
        ...
