"""The overlay (memtable): what was committed and is not yet in LMDB, with all its versions.

Invariants:
- One writer at a time publishes; any number of threads read without a lock of the writer's.
- A key's versions are linked newest first; a reader at Lsn L takes the first one <= L. A version
  whose value is None says that the key was deleted.
- Nothing is ever taken out: after its checkpoint an overlay is dropped whole.
- Keys are sorted only when somebody scans: a write appends to a list, and the next scan settles
  it. (Sorting at once cost a put a tenth of its time; most puts are never followed by a scan.)
"""

import threading
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from sortedcontainers import SortedList

from amberdb.engine.trees import TREE_SIZE

Effects: TypeAlias = dict[bytes, bytes | None]
"""What a commit leaves behind: keys and their new values, None for those that are gone."""
Version: TypeAlias = "tuple[int, bytes | None, Version | None]"
"""(lsn, value or None when deleted, the older version)"""

ENTRY_BYTES = 260
"""What one version takes in Python beside its key and value: objects, dict slot, list slots."""

_BLOCK = 128
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
                keys = self._settled(low[:TREE_SIZE])
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

    def _settled(self, tree: bytes) -> "SortedList[bytes] | None":
        """The sorted keys of one tree; those of others are only put in their places."""
        if self.added:
            count = len(self.added)
            unsorted = self._unsorted
            for key in self.added[:count]:
                place = key[:TREE_SIZE]
                if place in unsorted:
                    unsorted[place].append(key)
                else:
                    unsorted[place] = [key]
            del self.added[:count]  # what the writer appended meanwhile stays
        keys = self._sorted.get(tree)
        fresh = self._unsorted.pop(tree, None)
        if fresh is not None:
            if keys is None:
                keys = self._sorted[tree] = SortedList(fresh)
            else:
                keys.update(fresh)
        return keys


class Overlay:
    """Versions of keys, from one freeze to the next."""

    __slots__ = ("entries", "keys", "last_lsn", "last_us", "size_bytes")

    def __init__(self) -> None:
        self.entries: dict[bytes, Version] = {}
        self.keys = SortedKeys()
        self.size_bytes = 0
        self.last_lsn = 0
        self.last_us = 0
        """Commit time of the last commit in here; 0 when there is none."""

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

    def sorted_trees(self) -> Iterator[list[bytes]]:
        """All keys, a sorted list per tree, trees ascending. Only of a frozen overlay."""
        by_tree: dict[bytes, list[bytes]] = {}
        for key in self.entries:
            tree = key[:TREE_SIZE]
            keys = by_tree.get(tree)
            if keys is None:
                by_tree[tree] = [key]
            else:
                keys.append(key)
        for tree in sorted(by_tree):
            yield _sorted_gently(by_tree.pop(tree))


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
