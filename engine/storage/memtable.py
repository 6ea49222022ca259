"""The memtable: what was committed and is not yet in LMDB, with all its versions.

Invariants:
- One writer at a time publishes; any number of threads read without a lock of the writer's.
- A key's versions are linked newest first; a reader at Lsn L takes the first one <= L. A version
  whose value is None says that the key was deleted.
- Nothing is ever taken out: after its checkpoint a memtable is dropped whole.
- A row event is a change of a search index's entry; they are kept in the order of their commits, so
  that what a search made of them goes on where it was.
- Keys are sorted only when somebody scans: a write appends to a list, and the next scan settles
  it. (Sorting at once cost a put a tenth of its time; most puts are never followed by a scan.)
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import TypeAlias

from sortedcontainers import SortedList

from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, Effects
from amberdb.index.ordered.keys import KEYSPACE_BYTES, ROWID_BYTES

Version: TypeAlias = "tuple[int, bytes | None, Version | None]"
"""(lsn, value or None when deleted, the older version)"""

RowEvent: TypeAlias = tuple[int, bytes, bytes | None]
"""(lsn, key, value or None when the row died) of an entry of a search index."""

ENTRY_BYTES = 260
"""What one version takes in Python beside its key and value: objects, dict slot, list slots."""

UNIQUE_BYTES = 140
"""What one value of a Unique index takes beside its bytes: two objects and a dict slot."""

_BLOCK = 128
_numbers = count(1)
_RUN = 8192


class SortedKeys:
    """Keys that become sorted, tree by tree, when a range of them is read."""

    __slots__ = ("_mutex", "_sorted", "_unsorted", "add", "added")

    def __init__(self) -> None:
        self.added: list[bytes] = []
        self.add = self.added.append
        self._unsorted: dict[bytes, list[bytes]] = {}
        self._sorted: dict[bytes, SortedList[bytes]] = {}
        self._mutex = threading.Lock()

    def range(self, low: bytes, high: bytes, reverse: bool) -> Iterator[bytes]:
        """Keys of one tree with low <= key < high, copied in blocks so that no lock is held
        between them; keys added behind the iterator's place are not seen."""
        while True:
            with self._mutex:
                keys = self._settled(low[:KEYSPACE_BYTES])
                if keys is None:
                    return
                found = keys.irange(low, high, (True, False), reverse)
                block = list(islice(found, _BLOCK))
            yield from block
            if len(block) < _BLOCK:
                return
            if reverse:
                high = block[-1]
            else:
                low = block[-1] + b"\0"

    def _settled(self, keyspace: bytes) -> "SortedList[bytes] | None":
        """The sorted keys of one tree; those of others are only put in their places."""
        if self.added:
            count = len(self.added)
            unsorted = self._unsorted
            for key in self.added[:count]:
                place = key[:KEYSPACE_BYTES]
                if place in unsorted:
                    unsorted[place].append(key)
                else:
                    unsorted[place] = [key]
            del self.added[:count]  # what the writer appended meanwhile stays
        keys = self._sorted.get(keyspace)
        fresh = self._unsorted.pop(keyspace, None)
        if fresh is not None:
            if keys is None:
                keys = self._sorted[keyspace] = SortedList(fresh)
            else:
                keys.update(fresh)
        return keys


class Memtable:
    """Versions of keys, from one freeze to the next."""

    __slots__ = (
        "entries",
        "keys",
        "last_lsn",
        "last_us",
        "number",
        "rows",
        "size_bytes",
        "unique_rowids",
    )

    def __init__(self) -> None:
        self.entries: dict[bytes, Version] = {}
        self.keys = SortedKeys()
        self.size_bytes = 0
        self.last_lsn = 0
        self.last_us = 0
        """Commit time of the last commit in here; 0 when there is none."""
        self.number = next(_numbers)
        """Of this process's memtables, this one: what a cache may remember instead of it."""
        self.rows: dict[bytes, list[RowEvent]] = {}
        """By the tree of a search index."""
        self.unique_rowids: dict[bytes, bytes] = {}
        """By value of a Unique index (prefix and fields, uncut): the encoded rowids, 8 bytes each,
        of all entries in here that have it. Deleted entries may be among them."""

    def publish(self, lsn: int, effects: Effects, size: int, time_us: int) -> None:
        """Adds the effects of one commit, `size` bytes of keys and values; readers below `lsn`
        do not see them."""
        entries = self.entries
        get = entries.get
        add = self.keys.add
        for key, value in effects.items():
            older = get(key)
            entries[key] = (lsn, value, older)
            if older is None:
                add(key)
        self.size_bytes += size + ENTRY_BYTES * len(effects)
        self.last_lsn = lsn
        self.last_us = time_us

    def note_rows(self, lsn: int, keys: Iterable[bytes], effects: Effects) -> None:
        """Adds the row events of one commit: `keys` are entries of search indexes."""
        rows = self.rows
        for key in keys:
            keyspace = key[:KEYSPACE_BYTES]
            event = (lsn, key, effects[key])
            if keyspace in rows:
                rows[keyspace].append(event)
            else:
                rows[keyspace] = [event]

    def find_rows(self, prefixes: frozenset[bytes]) -> None:
        """Adds the row events of everything that was replayed, whose entries begin so."""
        if not prefixes:  # so most openings look at no entry
            return
        found: list[RowEvent] = []
        for key, version in self.entries.items():
            if key[:ENTRY_PREFIX_SIZE] in prefixes:
                newer: Version | None = version
                while newer is not None:
                    found.append((newer[0], key, newer[1]))
                    newer = newer[2]
        found.sort(key=_lsn_of)
        for event in found:
            self.rows.setdefault(event[1][:KEYSPACE_BYTES], []).append(event)

    def note_unique(self, rowids: Mapping[bytes, bytes]) -> None:
        """Adds the values that one commit wrote into Unique indexes, each with the rowids of all
        documents that have it as of this commit."""
        known = self.unique_rowids
        for value, tails in rowids.items():
            if value not in known:
                self.size_bytes += len(value) + UNIQUE_BYTES
            known[value] = tails

    def find_unique(self, prefixes: frozenset[bytes]) -> None:
        """Adds the values of everything that was replayed into Unique indexes."""
        if not prefixes:  # so most openings look at no entry
            return
        rowids: dict[bytes, bytes] = {}
        for key, version in self.entries.items():
            if version[1] is not None and key[:KEYSPACE_BYTES] in prefixes:
                value = key[:-ROWID_BYTES]
                rowids[value] = rowids.get(value, b"") + key[-ROWID_BYTES:]
        self.note_unique(rowids)

    def behind(self, lsn: int) -> "Memtable":
        """Another one, of the commits behind `lsn` alone."""
        after = Memtable()
        for key, version in self.entries.items():
            newer: list[Version] = []
            older: Version | None = version
            while older is not None and older[0] > lsn:
                newer.append(older)
                older = older[2]
            kept: Version | None = None
            for at, value, _ in reversed(newer):
                kept = (at, value, kept)
                after.size_bytes += len(key) + len(value or b"") + ENTRY_BYTES
            if kept is not None:
                after.entries[key] = kept
                after.keys.add(key)
        for keyspace, events in self.rows.items():
            later = [event for event in events if event[0] > lsn]
            if later:
                after.rows[keyspace] = later
        if after.entries:
            after.last_lsn = self.last_lsn
            after.last_us = self.last_us
        return after

    def sorted_keyspaces(self) -> Iterator[list[bytes]]:
        """All keys, a sorted list per tree, trees ascending. Only of a frozen memtable."""
        by_keyspace: dict[bytes, list[bytes]] = {}
        for key in self.entries:
            keyspace = key[:KEYSPACE_BYTES]
            keys = by_keyspace.get(keyspace)
            if keys is None:
                by_keyspace[keyspace] = [key]
            else:
                keys.append(key)
        for keyspace in sorted(by_keyspace):
            yield _sorted_gently(by_keyspace.pop(keyspace))


def _lsn_of(event: RowEvent) -> int:
    return event[0]


def _sorted_gently(keys: list[bytes]) -> list[bytes]:
    """Sorted in short runs that are merged at last: one sort() of a large list would hold the
    interpreter, and with it every writer, for its whole length."""
    if len(keys) <= _RUN:
        keys.sort()
        return keys
    merged: list[bytes] = []
    for start in range(0, len(keys), _RUN):
        merged.extend(sorted(keys[start : start + _RUN]))
    merged.sort()  # finds the runs and merges them: a few compares per key
    return merged
