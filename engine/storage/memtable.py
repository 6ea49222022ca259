"""The memtable: the commits that are not yet in LMDB, with all versions of their keys.

Invariants:
- One writer at a time publishes; any number of threads read without the writer's lock.
- A key's versions are linked newest first; a reader at Lsn L takes the first one <= L. A version
  whose value is None is a tombstone.
- Nothing is ever removed: after its checkpoint a memtable is dropped as a whole.
- Row events, the changes of entries in search indexes, are kept in the order of their commits, so
  a search index in memory catches up from the last event that it has.
- Keys are sorted only for a scan: a write appends its keys to a list, and the next scan sorts them
  in. (Sorting at once cost a put a tenth of its time; most puts are never followed by a scan.)
- Only the writer reads `unique_rowids`, so they have no versions.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Protocol, TypeAlias

from sortedcontainers import SortedList

from amberdb._call_lock import CallLock
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.keyspace import ENTRY_PREFIX_SIZE, Effects
from amberdb.index.ordered.keys import KEYSPACE_BYTES, ROWID_BYTES

Version: TypeAlias = "tuple[int, bytes | None, Version | None]"
"""(lsn, value or None when deleted, the older version)"""

RowEvent: TypeAlias = tuple[int, bytes, bytes | None]
"""(lsn, key, value or None when it was deleted) of an entry of a search index."""

ENTRY_BYTES = 260
"""The memory of one version besides its key and value: objects, dict slot, list slots."""

UNIQUE_BYTES = 140
"""The memory of one value of a Unique index besides its bytes: two objects and a dict slot."""

_BLOCK = 128
"""Keys that one step of a scan copies."""
_RUN = 1024
"""Keys that one call of sort() takes."""
_SAMPLE = 16
"""The distance of the keys of a run that may be a bound."""
_SAMPLES = 16
"""The distance of the bounds among those: about 256 keys are between two."""
_PART = 100
"""Keys that one step of a checkpoint takes: some 0.2 ms."""
_numbers = count(1)


class SortedKeys:
    """Keys of a dict that are sorted, one keyspace at a time, when a range of them is read."""

    __slots__ = ("_half_sorted", "_mutex", "_of", "_sorted", "_unsorted", "add", "added")

    def __init__(self, of: Mapping[bytes, object]) -> None:
        """`of` is the dict; whoever adds a key to it passes it to add() before."""
        self.added: list[bytes] = []
        self.add = self.added.append
        self._of = of
        self._unsorted: dict[bytes, list[bytes]] = {}
        self._sorted: dict[bytes, SortedList[bytes]] = {}
        self._half_sorted: set[bytes] = set()
        """Keyspaces whose sorting was interrupted."""
        self._mutex = CallLock()

    def range(self, low: bytes, high: bytes, reverse: bool) -> Iterator[bytes]:
        """The keys of one keyspace with low <= key < high. They are copied in blocks, and the lock
        is released between blocks: keys that are added meanwhile may appear."""
        while True:
            block = self._block(low, high, reverse)
            yield from block
            if len(block) < _BLOCK:
                return
            if reverse:
                high = block[-1]
            else:
                low = block[-1] + b"\0"

    def _block(self, low: bytes, high: bytes, reverse: bool) -> list[bytes]:
        with self._mutex:
            keys = self._sorted_keys(low[:KEYSPACE_BYTES])
            if keys is None:
                return []
            return list(islice(keys.irange(low, high, (True, False), reverse), _BLOCK))

    def group(self) -> None:
        """Groups the new keys by keyspace, as the next scan does. The caller is the only thread
        that has this object, or holds its lock."""
        count = len(self.added)
        unsorted = self._unsorted
        for key in self.added[:count]:
            prefix = key[:KEYSPACE_BYTES]
            if prefix in unsorted:
                unsorted[prefix].append(key)
            else:
                unsorted[prefix] = [key]
        del self.added[:count]  # not the keys that the writer has appended meanwhile

    def _sorted_keys(self, keyspace: bytes) -> "SortedList[bytes] | None":
        """The sorted keys of one keyspace; those of others are only grouped. A key may be repeated
        after an interruption."""
        if self.added:
            self.group()
        keys = self._sorted.get(keyspace)
        fresh = self._unsorted.get(keyspace)
        if fresh is not None:
            is_whole = keyspace not in self._half_sorted
            self._half_sorted.add(keyspace)
            if keys is None or not is_whole:
                of_keyspace = (key for key in list(self._of) if key.startswith(keyspace))
                keys = self._sorted[keyspace] = SortedList(fresh if is_whole else of_keyspace)
            else:
                keys.update(fresh)
            del self._unsorted[keyspace]
            self._half_sorted.discard(keyspace)
        return keys


class Derived(Protocol):
    """What a search index has made of the rows in a memtable."""

    @property
    def size_bytes(self) -> int:
        """Estimated memory."""
        ...


class Memtable:
    """The versions of the commits between two freezes."""

    __slots__ = (
        "catalog",
        "derived",
        "entries",
        "keys",
        "last_lsn",
        "last_us",
        "log_offset",
        "number",
        "rows",
        "unique_rowids",
        "written_bytes",
    )

    def __init__(self) -> None:
        self.entries: dict[bytes, Version] = {}
        self.keys = SortedKeys(self.entries)
        self.written_bytes = 0
        """Estimated memory of what commits have added."""
        self.last_lsn = 0
        self.last_us = 0
        """The time of the last commit in here; 0 when there is none."""
        self.log_offset: int | None = None
        """Of the record `last_lsn` in its segment, from the freeze on; None when not known."""
        self.catalog: Catalog | None = None
        """The catalog as of `last_lsn`, from the freeze on: the checkpoint goes by it."""
        self.number = next(_numbers)
        """Identifies this memtable in this process: a cache keeps the number, not the memtable."""
        self.rows: dict[bytes, list[RowEvent]] = {}
        """Row events by the keyspace of their search index."""
        self.derived: dict[bytes, Derived] = {}
        """By the keyspace of a search index what engine/search has made of the row events: it is of
        use as long as they are."""
        self.unique_rowids: dict[bytes, bytes] = {}
        """By value of a Unique index (prefix and full fields) the encoded rowids, 8 bytes each, of
        all entries in here that have it; deleted entries may be among them."""

    @property
    def size_bytes(self) -> int:
        """Estimated memory of everything in here."""
        if not self.derived:
            return self.written_bytes
        derived = list(self.derived.values())  # one step: others may add
        return self.written_bytes + sum(each.size_bytes for each in derived)

    def publish(self, lsn: int, effects: Effects, size: int, time_us: int) -> None:
        """Adds the effects of one commit, `size` bytes of keys and values. Readers at an older Lsn
        do not see them. After an interruption it may be called again with the same commit."""
        entries = self.entries
        get = entries.get
        add = self.keys.add
        for key, value in effects.items():
            older = get(key)
            if older is None:
                add(key)
                entries[key] = (lsn, value, None)
            elif older[0] != lsn:
                entries[key] = (lsn, value, older)
        self.written_bytes += size + ENTRY_BYTES * len(effects)
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

    def forget_rows(self, lsn: int) -> None:
        """Removes the row events of the newest commit, which was interrupted: they are added
        again."""
        for events in self.rows.values():
            while events and events[-1][0] == lsn:
                events.pop()

    def find_rows(self, prefixes: frozenset[bytes]) -> None:
        """Adds the row events of all versions whose keys start with one of the prefixes: after a
        replay, which does not know search indexes."""
        if not prefixes:  # most databases have no search index: their open reads no entry
            return
        events: list[RowEvent] = []
        for key, version in self.entries.items():
            if key[:ENTRY_PREFIX_SIZE] in prefixes:
                newer: Version | None = version
                while newer is not None:
                    events.append((newer[0], key, newer[1]))
                    newer = newer[2]
        events.sort(key=_lsn_of)
        for event in events:
            self.rows.setdefault(event[1][:KEYSPACE_BYTES], []).append(event)

    def note_unique(self, rowids: Mapping[bytes, bytes]) -> None:
        """Adds the values that one commit wrote into Unique indexes, each with the rowids of all
        entries that have it as of this commit."""
        for value in rowids:
            if value not in self.unique_rowids:
                self.written_bytes += len(value) + UNIQUE_BYTES
        self.unique_rowids.update(rowids)

    def find_unique(self, prefixes: frozenset[bytes]) -> None:
        """Adds the values of all entries of Unique indexes, which have these prefixes: after a
        replay."""
        if not prefixes:
            return
        rowids: dict[bytes, bytes] = {}
        for key, version in self.entries.items():
            if version[1] is not None and key[:KEYSPACE_BYTES] in prefixes:
                value = key[:-ROWID_BYTES]
                rowids[value] = rowids.get(value, b"") + key[-ROWID_BYTES:]
        self.note_unique(rowids)

    def after(self, lsn: int) -> "Memtable":
        """A new memtable of the commits after `lsn`; without unique_rowids."""
        after = Memtable()
        for key, version in self.entries.items():
            newer: list[Version] = []
            older: Version | None = version
            while older is not None and older[0] > lsn:
                newer.append(older)
                older = older[2]
            chain: Version | None = None
            for version_lsn, value, _ in reversed(newer):
                chain = (version_lsn, value, chain)
                after.written_bytes += len(key) + len(value or b"") + ENTRY_BYTES
            if chain is not None:
                after.keys.add(key)
                after.entries[key] = chain
        for keyspace, events in self.rows.items():
            later = [event for event in events if event[0] > lsn]
            if later:
                after.rows[keyspace] = later
        if after.entries:
            after.last_lsn = self.last_lsn
            after.last_us = self.last_us
        return after

    def sorted_keyspaces(
        self, offer: Callable[[], None]
    ) -> Iterator[tuple[bytes, Iterator[list[bytes]]]]:
        """All keyspaces ascending, each with its keys: ascending, a few at a time. For frozen
        memtables. `offer` is called often, and may let other threads run."""
        by_keyspace: dict[bytes, list[bytes]] = {}
        for number, key in enumerate(list(self.entries)):
            if not number % _RUN:
                offer()
            keyspace = key[:KEYSPACE_BYTES]
            keys = by_keyspace.get(keyspace)
            if keys is None:
                by_keyspace[keyspace] = [key]
            else:
                keys.append(key)
        for keyspace in sorted(by_keyspace):
            yield keyspace, _sorted_parts(by_keyspace.pop(keyspace), offer)


def _lsn_of(event: RowEvent) -> int:
    return event[0]


def _sorted_parts(keys: list[bytes], offer: Callable[[], None]) -> Iterator[list[bytes]]:
    """The keys ascending, a few at a time: one sort() of a large list would hold the interpreter
    lock, and so stop every writer, until it has ended. Short runs are sorted, and merged between
    bounds that divide them all evenly."""
    runs: list[list[bytes]] = []
    for start in range(0, len(keys), _RUN):
        runs.append(sorted(keys[start : start + _RUN]))
        offer()
    samples = sorted(key for run in runs for key in run[_SAMPLE::_SAMPLE])
    places = [0] * len(runs)
    for bound in (*samples[_SAMPLES::_SAMPLES], None):
        part: list[bytes] = []
        for number, run in enumerate(runs):
            place = places[number]
            end = places[number] = len(run) if bound is None else bisect_left(run, bound, place)
            part += run[place:end]
        part.sort()
        for start in range(0, len(part), _PART):
            yield part[start : start + _PART]
            offer()
