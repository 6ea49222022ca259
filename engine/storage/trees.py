"""Trees: each keyspace has a B+tree of its own in the LMDB file, a database in LMDB's terms.

    unnamed tree         META and LOCAL; a keyspace that a file of format 1 has there, and those for
                         which TREES_MAX leaves no room
    tree "%08x"          the keyspace with that number; its keys have their prefix all the same

In one tree for all, a look-up descends through the pages of all, and a page at the border of two
keyspaces is split in half again and again, as keys are added to the end of the first: half empty
pages are left. A tree that ends there takes such keys page by page.

Invariants:
- A keyspace is in one place, and never moves while a process has the file open. compact() writes
  another file.
- A transaction that is older than a tree has nothing in it, and LMDB refuses it the tree.
- LMDB lets readers see a commit a moment before they may use the trees that it has made. So a tree
  is known before its commit, and a read transaction that has the commit and may not use the tree is
  begun again: it would find nothing.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias, final

import lmdb

from amberdb._call_lock import CallLock
from amberdb.engine.schema.keyspace import FIRST_PREFIX, KEYS_END, end_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

TREES_MAX: Final = 1024
"""Each open tree adds about a nanosecond to every transaction."""
NAMES: Final = KEYS_END + b"0000"
"""The first name that a tree may have."""

NewerTreeError: Final = lmdb.InvalidParameterError
"""What LMDB raises when a transaction is older than the tree."""

Tree: TypeAlias = lmdb._Database  # pyright: ignore[reportPrivateUsage]
LmdbTransaction: TypeAlias = "lmdb.Transaction[bytes]"
LmdbCursor: TypeAlias = "lmdb.Cursor[bytes]"
Pair: TypeAlias = tuple[bytes, bytes]

_ANY: Final = -1


def name_of(prefix: bytes) -> bytes:
    """The name of the tree of a keyspace. LMDB's names have no NUL."""
    return prefix.hex().encode()


def prefix_in(name: bytes) -> bytes | None:
    """The prefix of the keyspace whose tree has this name; None for any other name."""
    try:
        prefix = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return prefix if name_of(prefix) == name and prefix >= FIRST_PREFIX else None


def stored_names(txn: LmdbTransaction) -> list[bytes]:
    """The names of all trees in a file, ascending."""
    cursor = txn.cursor()
    return list(cursor.iternext(values=False)) if cursor.set_range(NAMES) else []


class Reads(Protocol):
    """What a read transaction of LMDB, and what stands for one, can do."""

    def get(self, key: bytes, default: None = None, db: Tree | None = None, /) -> bytes | None: ...

    def cursor(self, db: Tree | None = None, /) -> LmdbCursor: ...

    def id(self) -> int: ...

    def abort(self) -> None: ...


@final
class Trees:
    """The open trees of one environment. All stores on it share them."""

    __slots__ = ("_as_of", "_env", "_last", "_mutex", "_open", "of")

    def __init__(self, env: lmdb.Environment) -> None:
        self._open: dict[bytes, Tree] = {}
        self.of = self._open.get
        """The tree of a keyspace, by its prefix; None: the unnamed one."""
        self._env = weakref.ref(env)
        self._as_of = -1
        """The LMDB commit as of which all trees are known to be open."""
        self._last: tuple[int, Tree] | None = None
        """The tree that was opened last, and the commit that has made it; _ANY: of another
        process."""
        self._mutex = CallLock()

    def open(self, txn: LmdbTransaction, owner: "LmdbTransaction | None" = None) -> bool:
        """Opens the trees that a transaction has and that are not open yet, in the write
        transaction `owner` or each in one of its own; whether there were any."""
        named = {prefix_in(name): name for name in stored_names(txn)}
        missing = {prefix: name for prefix, name in named.items() if prefix not in self._open}
        missing.pop(None, None)
        env = self._env()
        assert env is not None
        with self._mutex:  # LMDB opens one at a time
            for prefix, name in missing.items():
                if prefix is not None:
                    tree = env.open_db(name, txn=owner, create=False)
                    if owner is None:
                        self._last = _ANY, tree
                    self._open[prefix] = tree
        if not missing:
            self._as_of = txn.id()
        return bool(missing)

    def lacks(self, txn: LmdbTransaction) -> bool:
        """Whether a transaction has trees of another process that are not open; they are from now
        on, for later transactions."""
        return txn.id() != self._as_of and self.open(txn)

    def are_usable(self, txn: LmdbTransaction) -> bool:
        """Whether a transaction may use the trees that it has."""
        if self._last is not None and self._last[0] in (txn.id(), _ANY):
            try:
                txn.stat(self._last[1])
            except NewerTreeError:
                return False
        return True

    def publish(self, made: Mapping[bytes, Tree], commit: int) -> None:
        """Makes trees known that the commit with this number is about to make."""
        for tree in made.values():
            self._last = commit, tree
        self._open.update(made)

    def retract(self, made: Mapping[bytes, Tree]) -> None:
        """The trees were not made: the commit has failed."""
        for prefix in made:
            self._open.pop(prefix, None)
        self._last = None

    def all(self) -> dict[bytes, Tree]:
        """By the prefix of their keyspace."""
        return self._open.copy()

    def get(self, txn: Reads, key: bytes) -> bytes | None:
        """The value of a key in a transaction."""
        try:
            return txn.get(key, None, self.of(key[:KEYSPACE_BYTES]))
        except NewerTreeError:
            return txn.get(key)

    def getter_of(self, txn: Reads, prefix: bytes) -> Callable[[bytes], bytes | None]:
        """get() for the keys of one keyspace: saves a look-up and a call for each."""
        value_of, tree = txn.get, self.of(prefix)

        def get(key: bytes, /) -> bytes | None:
            try:
                return value_of(key, None, tree)
            except NewerTreeError:
                return value_of(key)

        return get

    def cursor(self, txn: Reads, key: bytes) -> LmdbCursor:
        """A cursor of a transaction over the tree of a key."""
        try:
            return txn.cursor(self.of(key[:KEYSPACE_BYTES]))
        except NewerTreeError:
            return txn.cursor()

    def keyspaces(self, txn: Reads) -> list[bytes]:
        """The prefixes of all keyspaces that have a key in a transaction, ascending."""
        found = {prefix for prefix in self.all() if begins(self.cursor(txn, prefix), prefix)}
        cursor = txn.cursor()
        low = b"\0"
        while cursor.set_range(low) and (key := cursor.key()) < NAMES:
            found.add(key[:KEYSPACE_BYTES])
            low = end_of(key[:KEYSPACE_BYTES])
        return sorted(found)

    def has_unnamed(self, txn: Reads) -> bool:
        """Whether a keyspace is in the unnamed tree that could have a tree of its own."""
        cursor = txn.cursor()
        is_there = cursor.set_range(FIRST_PREFIX) and cursor.key() < NAMES
        return is_there and len(self._open) < TREES_MAX

    def stats(self, txn: LmdbTransaction) -> list[Mapping[str, Any]]:
        """LMDB's figures of each tree, the unnamed one first."""
        return [txn.stat(), *self.named_stats(txn).values()]

    def named_stats(self, txn: LmdbTransaction) -> dict[bytes, Mapping[str, Any]]:
        """LMDB's figures of each named tree, by the prefix of its keyspace."""
        stats: dict[bytes, Mapping[str, Any]] = {}
        for prefix, tree in self.all().items():
            with suppress(NewerTreeError):
                stats[prefix] = txn.stat(tree)
        return stats


def begins(cursor: LmdbCursor, prefix: bytes) -> bool:
    """Whether a tree has a key of a keyspace; the cursor is moved to the first one."""
    return cursor.set_range(prefix) and cursor.key().startswith(prefix)


def scan(cursor: LmdbCursor, low: bytes, high: bytes) -> Iterator[Pair]:
    """The pairs of one tree with low <= key < high, ascending."""
    if cursor.set_range(low):
        for pair in cursor.iternext():
            if pair[0] >= high:
                return
            yield pair


def scan_back(cursor: LmdbCursor, low: bytes, high: bytes) -> Iterator[Pair]:
    """scan(), descending."""
    if cursor.prev() if cursor.set_range(high) else cursor.last():
        for pair in cursor.iterprev():
            if pair[0] < low:
                return
            yield pair
