"""Compares the entries of ordered and unique indexes with those that the documents make, by sums.

Invariants:
- Each entry adds a 64-bit hash of its key and value, keyed at random by the interpreter, to the sum
  of what the documents make, or to the sum of what is stored. An entry that is missing, wrong or
  too many changes one of them: no entry is looked up, and memory is constant.
- It says whether all is right, not what is wrong: check.py then looks up each entry.
"""

from itertools import islice
from typing import Final, final

from amberdb._types import Document
from amberdb.engine.schema.entry_plan import EntryPlan
from amberdb.engine.schema.keyspace import Effects, end_of
from amberdb.engine.schema.ordered_index import LOSSY, MULTI
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View

_ENTRIES: Final = 512
"""Entries that are hashed together."""


@final
class EntrySums:
    """The sums of one collection. It takes all of its documents first."""

    def __init__(self, view: View, schema: Schema) -> None:
        self._view = view
        self._indexes = tuple(index for index in schema.indexes if view.is_built(index))
        self._plan = EntryPlan(self._indexes)
        marks = (mark + index.prefix for index in self._indexes for mark in (MULTI, LOSSY))
        self._marks = dict.fromkeys(marks, False)
        """Whether a document leaves this mark."""
        self._entries: Effects = {}
        self._sum = 0
        self.count = 0
        """The number of entries that the documents make."""

    def add(self, document: Document, id_bytes: bytes, rowid: int) -> None:
        """Adds the entries of a document. Raises InvalidDocumentError for one that cannot have
        any."""
        self._plan.add(self._entries, document, id_bytes, rowid)
        if len(self._entries) >= _ENTRIES:
            self._add_up()

    def _add_up(self) -> None:
        entries = self._entries
        for mark in self._marks.keys() & entries.keys():
            self._marks[mark] = True
            del entries[mark]
        self.count += len(entries)
        self._sum += sum(map(hash, entries.items()))
        entries.clear()

    def agree(self) -> bool:
        """Whether the stored entries and marks are those of the documents. Raises EngineError when
        they cannot be read."""
        self._add_up()
        count = total = 0
        for index in self._indexes:
            stored = self._view.scan(index.prefix, end_of(index.prefix))
            while hashes := list(map(hash, islice(stored, _ENTRIES))):
                count += len(hashes)
                total += sum(hashes)
        marked = all(self._view.get(mark) for mark, is_left in self._marks.items() if is_left)
        return marked and (count, total) == (self.count, self._sum)
