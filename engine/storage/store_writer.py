"""The store writer: one write transaction of LMDB, each pair written to the tree of its keyspace.

Invariants:
- A keyspace without a key gets a tree of its own at its first pair, as long as TREES_MAX has room.
- Pairs that go past the end of a tree are appended, which fills its pages.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import final

import lmdb

from amberdb.engine.schema.keyspace import FIRST_PREFIX
from amberdb.engine.schema.vector_block import StoredVector, row_in
from amberdb.engine.storage.trees import (
    TREES_MAX,
    LmdbTransaction,
    Pair,
    Tree,
    Trees,
    begins,
    name_of,
    scan,
)
from amberdb.index.ordered.keys import KEYSPACE_BYTES


@final
class StoreWriter:
    """A write transaction of a checkpoint or an index build, committed when the block ends without
    an exception. Its attributes are deleted then: a traceback would keep the environment open."""

    __slots__ = ("_env", "_made", "_open", "_trees", "_txn", "get")

    def __init__(self, env: lmdb.Environment, txn: LmdbTransaction, trees: Trees) -> None:
        self._env = env
        self._txn = txn
        self._open = trees
        self._trees = trees.all()
        self._made: dict[bytes, Tree] = {}
        value_of, tree_of = txn.get, self._trees.get

        def get(key: bytes, /) -> bytes | None:
            return value_of(key, None, tree_of(key[:KEYSPACE_BYTES]))

        self.get = get

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._commit()
            else:
                self._txn.abort()
        finally:
            for name in self.__slots__:
                delattr(self, name)

    def _commit(self) -> None:
        made = self._made
        if made:
            self._open.publish(made, self._txn.id())
        try:
            self._txn.commit()
        except BaseException:
            if made:
                self._open.retract(made)
            raise

    def vectors_at(self, place: StoredVector) -> bytes | None:
        """The vectors at a place; None when they are not there. Raises CorruptionError."""
        return row_in(place, self.get(place.key))

    def put(self, key: bytes, value: bytes) -> None:
        """Stores a pair."""
        self._txn.put(key, value, db=self._tree_of(key[:KEYSPACE_BYTES]))

    def delete(self, key: bytes) -> None:
        """Deletes a pair, if it is there."""
        self._txn.delete(key, db=self._trees.get(key[:KEYSPACE_BYTES]))

    def put_sorted(self, pairs: Sequence[Pair]) -> None:
        """Stores pairs in ascending order of their keys."""
        if not pairs:
            return
        prefix = pairs[0][0][:KEYSPACE_BYTES]
        if pairs[-1][0].startswith(prefix):
            self._put_run(prefix, pairs)
            return
        for prefix, run in groupby(pairs, _prefix_of):
            self._put_run(prefix, list(run))

    def _put_run(self, prefix: bytes, pairs: Sequence[Pair]) -> None:
        """Stores pairs of one keyspace."""
        tree = self._tree_of(prefix)
        cursor = self._txn.cursor(tree)
        if tree is not None:
            last = cursor.key() if cursor.last() else b""
            if pairs[-1][0] > last:
                inside = bisect_right(pairs, last, key=_key_of)
                if inside:
                    cursor.putmulti(pairs[:inside])
                    pairs = pairs[inside:]
                _, added = cursor.putmulti(pairs, append=True)
                if added == len(pairs):
                    return  # else they do not ascend, and LMDB has passed over some
        cursor.putmulti(pairs)

    def items(self, low: bytes) -> Iterable[Pair]:
        """Pairs of the keyspace of `low`, from there on, ascending."""
        cursor = self._cursor(low)
        return cursor.iternext() if cursor.set_range(low) else ()

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """Pairs of one keyspace with low <= key < high, ascending."""
        return scan(self._cursor(low), low, high)

    def last_before(self, key: bytes) -> bytes | None:
        """The last key below `key`, of its keyspace or one before."""
        cursor = self._cursor(key)
        has_key = cursor.prev() if cursor.set_range(key) else cursor.last()
        return cursor.key() if has_key else None

    def keyspaces(self) -> list[bytes]:
        """The prefixes of all keyspaces that have a key, ascending."""
        return self._open.keyspaces(self._txn)

    def delete_range(self, low: bytes, high: bytes, limit: int) -> int:
        """Deletes up to `limit` keys of one keyspace with low <= key < high, and returns their
        number."""
        cursor = self._cursor(low)
        count = 0
        cursor.set_range(low)
        while count < limit and low <= cursor.key() < high:  # past the last key that is b""
            cursor.delete()
            count += 1
        return count

    def _cursor(self, key: bytes) -> "lmdb.Cursor[bytes]":
        return self._txn.cursor(self._trees.get(key[:KEYSPACE_BYTES]))

    def _tree_of(self, prefix: bytes) -> Tree | None:
        """The tree of a keyspace, made if it has to be; None: the unnamed one."""
        tree = self._trees.get(prefix)
        may_have_one = tree is None and prefix >= FIRST_PREFIX and len(self._trees) < TREES_MAX
        if may_have_one and not begins(self._txn.cursor(), prefix):
            tree = self._env.open_db(name_of(prefix), txn=self._txn, create=True)
            self._trees[prefix] = self._made[prefix] = tree
        return tree


def _prefix_of(pair: Pair) -> bytes:
    return pair[0][:KEYSPACE_BYTES]


def _key_of(pair: Pair) -> bytes:
    return pair[0]
