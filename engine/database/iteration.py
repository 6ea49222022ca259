"""Iteration over a collection: its documents by id, in blocks, but none created after it began.

Invariants:
- Each block is read in its own view, and nothing is held between blocks.
- A document that was there at the beginning, and still is, comes once, in its newest version.
- It ends: ids ascend to the last one of the beginning, and new documents are passed over.
- A document is new when its rowid is: a rowid is given once, in ascending order. Where there are
  search indexes a changed text or vector gets a new rowid too. Then the transaction knows what it
  has created, and outside one the time of creation decides. A clock that stands still can hide
  that; so no more documents are taken by their time than there were at the beginning.
"""

from itertools import islice
from typing import Final, final

from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import StoredDocument, expires_us, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View

BLOCK: Final = 512
"""Documents that are read at once."""


@final
class Iteration:
    """One iteration, which begins as of the view that it is made with."""

    __slots__ = ("_created", "_doubtful", "_end", "_next", "_next_rowid", "_now_us", "_prefix")

    def __init__(self, view: View, schema: Schema) -> None:
        counters = CollectionCounters.unpack(view.get(schema.counters_key))
        self._prefix = schema.prefix
        self._next_rowid = counters.next_rowid
        self._doubtful = counters.documents
        self._now_us = view.now_us
        last = next(view.scan(schema.prefix, end_of(schema.prefix), reverse=True), None)
        self._next: bytes | None = None if last is None else schema.prefix
        self._end = b"" if last is None else last[0] + b"\0"
        self._created: frozenset[bytes] = frozenset()
        """Documents in a search index that the transaction has written before."""
        if view.pending is not None and schema.row_roots:
            effects = view.pending.effects.items()
            self._created = frozenset(
                key for key, value in effects if value is not None and key.startswith(self._prefix)
            )

    @property
    def has_ended(self) -> bool:
        return self._next is None

    def block(self, view: View, schema: Schema) -> list[tuple[bytes, StoredDocument]]:
        """The next documents, by key; perhaps none before the end. Raises CorruptionError."""
        if self._next is None or schema.prefix != self._prefix:  # dropped, and declared again
            self._next = None
            return []
        pairs = list(islice(view.scan(self._next, self._end), BLOCK))
        self._next = pairs[-1][0] + b"\0" if len(pairs) == BLOCK else None
        stored = [(key, unpack(key, value)) for key, value in pairs]
        return [
            (key, each)
            for key, each in stored
            if each.expires_us > view.now_us
            and (each.rowid < self._next_rowid or self._was_there(view, schema, key, each))
        ]

    def _was_there(self, view: View, schema: Schema, key: bytes, stored: StoredDocument) -> bool:
        """Whether a document with a new rowid was there at the beginning."""
        if not schema.row_roots:
            return False
        if view.pending is not None:
            if key in self._created:
                return True
            value = view.get_committed(key)
            return value is not None and expires_us(value) > view.now_us
        if stored.created_us > self._now_us or not self._doubtful:
            return False
        self._doubtful -= 1
        return True
