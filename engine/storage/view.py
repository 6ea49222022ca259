"""A view: one Lsn over the memtables and one LMDB read transaction. All reads go through it.

Invariants:
- The LMDB transaction holds no commit above `lsn`, and the memtables hold every commit between
  it and `lsn`; so the first version <= lsn in the memtables, newest first, else LMDB, is right.
- A writer's view has its own unsaved effects on top, and sees the newest of everything.
- Scans give keys in byte order, ascending or descending, each key once.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Any, Final, NoReturn

from amberdb._errors import AmberError, ClosedError
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import APPLIED, BUILT, Effects, end_of
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.storage.memtable import Memtable, SortedKeys
from amberdb.engine.storage.source import Get
from amberdb.engine.storage.store import ReadTransaction, Store, raise_typed
from amberdb.index.ordered.keys import ROWID_BYTES

NEWEST: Final = (1 << 64) - 1
"""As the Lsn of a view: everything that was published, durable or not."""

_ABSENT: Final[Any] = object()


class _Closed:
    """In place of the transaction of a closed view."""

    def abort(self) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError("this read is over: nothing can be read through its view any more")


_CLOSED: Final[Any] = _Closed()


def _closed_get(key: bytes, /) -> NoReturn:
    _CLOSED.get(key)
    raise AssertionError("unreachable")


class LazyTransaction:
    """In place of a writer's LMDB transaction until the first read that needs one. Most writes
    need none: what they replace is in the memtable, or was read before the lock was taken."""

    __slots__ = ("_key", "_store", "_txn", "_value")

    def __init__(self, store: Store, key: bytes | None, value: bytes | None) -> None:
        self._store = store
        self._key = key
        self._value = value
        self._txn: ReadTransaction | None = None

    def get(self, key: bytes) -> bytes | None:
        return self._value if key == self._key else self._begun().get(key)

    def cursor(self) -> Any:
        return self._begun().cursor()

    def id(self) -> int:
        return self._begun().id()

    def abort(self) -> None:
        if self._txn is not None:
            self._txn.abort()

    def _begun(self) -> ReadTransaction:
        if self._txn is None:
            self._txn = self._store.begin()
        return self._txn


class State:
    """What is committed, as one immutable value: swapped whole, so a reader has all or none."""

    __slots__ = ("active", "built", "catalog", "frozen")

    def __init__(
        self, active: Memtable, frozen: Memtable | None, built: frozenset[int], catalog: Catalog
    ) -> None:
        self.active = active
        self.frozen = frozen
        self.built = built
        """Trees of indexes whose entries are complete in LMDB as of now."""
        self.catalog = catalog

    def knows(self, key: bytes) -> bool:
        """Whether a memtable has a version of it."""
        return key in self.active.entries or (
            self.frozen is not None and key in self.frozen.entries
        )

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        return (self.active,) if self.frozen is None else (self.active, self.frozen)


class ClosedState(State):
    """The state of a closed database: every use of it raises. So the hot paths need no check of
    their own."""

    __slots__ = ("_error",)

    def __init__(self, error: AmberError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:  # the slots of State were never set
        raise self._error


class Pending:
    """The effects of a transaction that is still open: newest value per key."""

    __slots__ = ("effects", "keys")

    def __init__(self) -> None:
        self.effects: Effects = {}
        self.keys: SortedKeys | None = None

    def update(self, effects: Mapping[bytes, bytes | None]) -> None:
        if self.keys is not None:
            for key in effects:
                if key not in self.effects:
                    self.keys.add(key)
        self.effects.update(effects)

    def sorted_keys(self) -> SortedKeys:
        """Made at the first scan: single operations never need it."""
        if self.keys is None:
            self.keys = SortedKeys()
            self.keys.added.extend(self.effects)
        return self.keys


_KEYS_BLOCK: Final = 64
_KEYS_BLOCK_MAX: Final = 1024


class View:
    """Reads at one Lsn. Close it soon: it keeps LMDB from reusing pages."""

    __slots__ = (
        "_memtables",
        "_path",
        "_txn",
        "built",
        "catalog",
        "get",
        "lsn",
        "now_us",
        "pending",
    )

    def __init__(
        self,
        lsn: int,
        state: State,
        txn: "ReadTransaction | LazyTransaction",
        now_us: int,
        path: str,
        pending: Pending | None = None,
    ) -> None:
        self.lsn = lsn
        self.built = state.built
        self.catalog = state.catalog
        self.now_us = now_us
        """What counts as expired for every read of this view."""
        self._memtables = state.memtables
        self._path = path
        self._txn = txn
        self.pending = pending
        is_plain = pending is None and not any(table.entries for table in self._memtables)
        self.get: Get = txn.get if is_plain else self._layered_get
        """The value of a key, or None. LMDB's own method while nothing is above LMDB: what is
        committed after this has a higher Lsn."""

    def __enter__(self) -> "View":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is not None:
            self.raise_typed(error)

    def raise_typed(self, error: BaseException) -> None:
        """Raises the typed error with the file's path in place of one that a read met. Done once,
        where a read is left, so that no read pays for it."""
        raise_typed(self._path, error)

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """Newest first."""
        return self._memtables

    @property
    def store_id(self) -> tuple[str, int]:
        """Of the commit of LMDB that this view reads: equal ids, equal contents. The file too:
        another one counts its commits anew."""
        return self._path, self._txn.id()

    @property
    def applied_lsn(self) -> int:
        """Up to where LMDB, as this view reads it, holds the commits."""
        return int.from_bytes(self._txn.get(APPLIED) or b"")

    def close(self) -> None:
        # Also forgotten: a view lives on in the traceback of every error that passed through it,
        # and its transaction would keep LMDB's environment open behind a closed database.
        txn, self._txn = self._txn, _CLOSED
        self.get = _closed_get
        txn.abort()

    def is_built(self, index: AnyIndex) -> bool:
        """Whether the index holds all entries as of this view."""
        return index.number in self.built or 0 < index.complete_from <= self.lsn

    def _layered_get(self, key: bytes, /) -> bytes | None:
        if self.pending is not None:
            value: bytes | None = self.pending.effects.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        lsn = self.lsn
        for memtable in self._memtables:
            version = memtable.entries.get(key)
            while version is not None:
                if version[0] <= lsn:
                    return version[1]
                version = version[2]
        return self._txn.get(key)

    def get_stored(self, key: bytes) -> bytes | None:
        """What LMDB alone has."""
        return self._txn.get(key)

    def scan_stored(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of LMDB alone with low <= key < high."""
        return self._scan_store(low, high, False)

    def scan(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of one tree with low <= key < high."""
        base = self._scan_store(low, high, reverse)
        fresh = self._fresh_keys(low, high, reverse)
        return base if fresh is None else self._merged(fresh, base, reverse)

    def keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """At most `limit` keys of scan(), in a fraction of its time while nothing is above LMDB."""
        if self._fresh_keys(low, high, False) is not None:
            return [key for key, _ in islice(self.scan(low, high), limit)]
        cursor = self._txn.cursor()
        found: list[bytes] = []
        if cursor.set_range(low):
            keys = cursor.iternext(values=False)
            size = _KEYS_BLOCK
            while len(found) < limit:
                block = list(islice(keys, min(size, limit - len(found))))
                size = min(2 * size, _KEYS_BLOCK_MAX)
                if not block or block[-1] >= high:
                    found += block[: bisect_left(block, high)]
                    break
                found += block
        return found

    def unique_entries(self, value: bytes) -> set[bytes]:
        """The committed entries of a Unique index that have a value (prefix and fields, uncut),
        and deleted ones. Point look-ups; a scan would sort all keys of the memtables."""
        found: set[bytes] = set()
        for memtable in self._memtables:
            rowids = memtable.unique_rowids.get(value, b"")
            for start in range(0, len(rowids), ROWID_BYTES):
                found.add(value + rowids[start : start + ROWID_BYTES])
        cursor = self._txn.cursor()
        more = cursor.set_range(value)
        while more and (key := cursor.key()).startswith(value):
            found.add(key)
            more = cursor.next()
        return found

    def _scan_store(self, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor()
        if reverse:
            at_end = not cursor.set_range(high)
            if not (cursor.last() if at_end else cursor.prev()):
                return
            for pair in cursor.iterprev():
                if pair[0] < low:
                    return
                yield pair
        elif cursor.set_range(low):
            for pair in cursor.iternext():
                if pair[0] >= high:
                    return
                yield pair

    def _fresh_keys(self, low: bytes, high: bytes, reverse: bool) -> Iterator[bytes] | None:
        """Keys in range that a memtable or the transaction knows; None when there are none, so
        that the plain LMDB path is taken."""
        sources = [memtable.keys for memtable in self._memtables if memtable.entries]
        if self.pending is not None and self.pending.effects:
            sources.append(self.pending.sorted_keys())
        found: list[Iterator[bytes]] = []
        for source in sources:
            keys = source.range(low, high, reverse)
            first = next(keys, None)
            if first is not None:
                found.append(_chain(first, keys))
        if not found:
            return None
        return found[0] if len(found) == 1 else merge(*found, reverse=reverse)

    def _fresh_value(self, key: bytes) -> Any:
        """The value above LMDB's, None when deleted, _ABSENT when LMDB's counts."""
        if self.pending is not None:
            value = self.pending.effects.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        for memtable in self._memtables:
            version = memtable.entries.get(key)
            while version is not None:
                if version[0] <= self.lsn:
                    return version[1]
                version = version[2]
        return _ABSENT

    def _merged(
        self, fresh: Iterator[bytes], base: Iterator[tuple[bytes, bytes]], reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        pair = next(base, None)
        last: bytes | None = None
        for key in fresh:
            if key == last:
                continue
            last = key
            value = self._fresh_value(key)
            if value is _ABSENT:
                continue
            while pair is not None and (pair[0] > key if reverse else pair[0] < key):
                yield pair
                pair = next(base, None)
            if pair is not None and pair[0] == key:
                pair = next(base, None)
            if value is not None:
                yield key, value
        if pair is not None:
            yield pair
            yield from base


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def built_keyspaces(view: View) -> frozenset[int]:
    """The marks, as LMDB has them."""
    found = view.scan(BUILT, end_of(BUILT))
    return frozenset(int.from_bytes(key[len(BUILT) :]) for key, _ in found)


def stored_view(store: Store, memtable: Memtable, lsn: int, document_bytes_max: int) -> View:
    """Of a store and a memtable alone, with what they say of the catalog."""
    bootstrap = State(memtable, None, frozenset(), Catalog({}))
    view = View(lsn, bootstrap, store.begin(), 0, store.path)
    try:
        view.catalog = Catalog.load(view, document_bytes_max)
        view.built = built_keyspaces(view)
    except BaseException as error:
        view.__exit__(None, error, None)
        raise
    return view


def schema_of(view: View, name: str) -> Schema:
    """Raises CollectionMissingError."""
    return view.catalog.schema(name)


def live(view: View, schema: Schema, id: str) -> StoredDocument | None:
    """A document that the view shows. Raises CorruptionError."""
    key = schema.key(id)
    value = view.get(key)
    stored = None if value is None else unpack(key, value)
    return None if stored is None or stored.expires_us <= view.now_us else stored
