"""A view: one Lsn over the memtables and one LMDB read transaction. All reads go through it.

Invariants:
- The LMDB transaction holds no commit after `lsn`, and the memtables hold every commit between it
  and `lsn`. So a key's value is its first version <= lsn in the memtables, newest first, or else
  LMDB's value.
- A view has the catalog as of its Lsn, so it finds what its own catalog names.
- A writer's view has the pending effects of its transaction on top, and reads the newest versions.
- Scans return keys in byte order, ascending or descending, each key once.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from heapq import merge
from itertools import islice
from typing import Any, Final, NoReturn, TypeAlias

from amberdb._errors import AmberError, ClosedError
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import APPLIED, BUILT, Effects, end_of
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.vector_block import StoredVector, row_in
from amberdb.engine.storage.memtable import Memtable, SortedKeys
from amberdb.engine.storage.source import Get
from amberdb.engine.storage.store import EngineError, MappedTransaction, Store, raise_typed
from amberdb.engine.storage.trees import LmdbCursor, Reads, Tree, scan, scan_back
from amberdb.index.ordered.keys import KEYSPACE_BYTES, ROWID_BYTES

NEWEST: Final = (1 << 64) - 1
"""As the Lsn of a view: every version that was published, durable or not."""

_BEFORE_ALL_TIME: Final = -(1 << 62)
"""As the `now_us` of a view: nothing has expired."""

_ABSENT: Final[Any] = object()
_KEYS_BLOCK: Final = 64
_KEYS_BLOCK_MAX: Final = 1024


class _Closed:
    """In place of the transaction of a closed view."""

    def abort(self) -> None: ...

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError("this read has ended: its view is closed")


_CLOSED: Final[Any] = _Closed()


def _closed_get(key: bytes, /) -> NoReturn:
    _CLOSED.get(key)
    raise AssertionError("unreachable")


def _closed_begin() -> NoReturn:
    _CLOSED.begin()
    raise AssertionError("unreachable")


class LazyTransaction:
    """A writer's LMDB transaction that begins at the first read that needs it. Most writes need
    none: the document that they replace is in a memtable, or was read before the lock was taken, as
    the `value` of `key`."""

    __slots__ = ("_key", "_store", "_txn", "_value")

    def __init__(self, store: Store, key: bytes | None, value: bytes | None) -> None:
        self._store = store
        self._key = key
        self._value = value
        self._txn: Reads | None = None

    def get(self, key: bytes, default: None = None, db: Tree | None = None, /) -> bytes | None:
        return self._value if key == self._key else self._begun().get(key, default, db)

    def cursor(self, db: Tree | None = None, /) -> LmdbCursor:
        return self._begun().cursor(db)

    def id(self) -> int:
        return self._begun().id()

    def abort(self) -> None:
        if self._txn is not None:
            self._txn.abort()

    def _begun(self) -> Reads:
        if self._txn is None:
            self._txn = self._store.begin()
        return self._txn


OlderCatalogs: TypeAlias = tuple[tuple[int, Catalog], ...]
"""Newest first, each with the Lsn of the commit that replaced it."""


class State:
    """The committed state as one immutable value, which is replaced as a whole: a reader has all of
    a change or nothing of it."""

    __slots__ = ("active", "built", "catalog", "frozen", "older")

    def __init__(
        self,
        active: Memtable,
        frozen: Memtable | None,
        built: frozenset[int],
        catalog: Catalog,
        older: OlderCatalogs = (),
    ) -> None:
        self.active = active
        self.frozen = frozen
        self.built = built
        """Keyspaces of the indexes whose entries are complete in LMDB."""
        self.catalog = catalog
        """The newest that was published: the one that writers go by."""
        self.older = older
        """The catalogs before it that views may still need."""

    def with_catalog(self, catalog: Catalog, lsn: int, visible: int) -> "State":
        """The state after a commit that changes the catalog; views are at `visible` or later."""
        needed = tuple(pair for pair in self.older if pair[0] > visible)
        older = ((lsn, self.catalog), *needed)
        return State(self.active, self.frozen, self.built, catalog, older)

    def catalog_at(self, lsn: int) -> Catalog:
        """The catalog as of an Lsn that views can have."""
        catalog = self.catalog
        for end, before in self.older:
            if lsn >= end:
                break
            catalog = before
        return catalog

    def knows(self, key: bytes) -> bool:
        """Whether a memtable has a version of the key."""
        return key in self.active.entries or (
            self.frozen is not None and key in self.frozen.entries
        )

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """Newest first."""
        return (self.active,) if self.frozen is None else (self.active, self.frozen)


class ClosedState(State):
    """The state of a closed database: every use of it raises, so hot paths need no check."""

    __slots__ = ("_error",)

    def __init__(self, error: AmberError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:  # the slots of State were never set
        raise self._error


class Pending:
    """The effects of an open transaction: the newest value per key."""

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
        """The keys of the effects; made at the first scan, since single operations have none."""
        if self.keys is None:
            self.keys = SortedKeys(self.effects)
            self.keys.added.extend(self.effects)
        return self.keys


class View:
    """Reads at one Lsn. Close it soon: while it is open, LMDB reuses no page that it may read."""

    __slots__ = (
        "_begin_mapped",
        "_is_plain",
        "_mapped",
        "_memtables",
        "_path",
        "_trees",
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
        txn: Reads,
        now_us: int,
        store: Store,
        pending: Pending | None = None,
    ) -> None:
        self.lsn = lsn
        self.built = state.built
        self.catalog = state.catalog_at(lsn) if state.older else state.catalog
        self.now_us = now_us
        """The time at which this view judges expiry, in microseconds since 1970."""
        self._memtables = state.memtables
        self._path = store.path
        self._trees = store.trees
        self._begin_mapped: Callable[[], MappedTransaction] = store.begin_mapped
        self._mapped: MappedTransaction | None = None
        """Of a state of the file at or after this view's own: see vectors_at()."""
        self._txn = txn
        self.pending = pending
        self._is_plain = pending is None and not any(table.entries for table in self._memtables)
        # Without a method of this object, where it can be: they would refer to each other, and
        # keep LMDB's environment open until the next garbage collection.
        self.get: Get = partial(store.trees.get, txn) if self._is_plain else self._layered_get
        """The value of a key, or None. Read from LMDB alone where the memtables are empty: later
        commits have a higher Lsn."""

    def __enter__(self) -> "View":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is not None:
            self.raise_typed(error)

    def raise_typed(self, error: BaseException) -> None:
        """Raises the typed form, with the file's path, of an error of a read. Called where a view
        is left, so single reads do not pay for it."""
        raise_typed(self._path, error)

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """Newest first."""
        return self._memtables

    @property
    def store_id(self) -> tuple[str, int]:
        """Identifies the LMDB commit that this view reads, by file and number: views with equal ids
        read equal contents. The file, since each file numbers its commits from 1."""
        return self._path, self._txn.id()

    @property
    def applied_lsn(self) -> int:
        """The Lsn of the last commit in the LMDB transaction of this view."""
        return int.from_bytes(self._txn.get(APPLIED) or b"")

    @contextmanager
    def including_expired(self) -> Generator["View"]:
        """For one block, this view with the documents that have expired and are still stored."""
        now_us, self.now_us = self.now_us, _BEFORE_ALL_TIME
        try:
            yield self
        finally:
            self.now_us = now_us

    def close(self) -> None:
        # The reference is dropped too: the traceback of an error that passed through a view keeps
        # it, and its transaction would keep LMDB's environment open after the database is closed.
        txn, self._txn = self._txn, _CLOSED
        mapped, self._mapped = self._mapped, None
        self.get = _closed_get
        self._begin_mapped = _closed_begin
        if mapped is not None:
            mapped.abort()
        txn.abort()

    def is_built(self, index: AnyIndex) -> bool:
        """Whether the index holds all entries as of this view."""
        return index.number in self.built or 0 < index.complete_from <= self.lsn

    def getter_of(self, prefix: bytes) -> Get:
        """get() for the keys of one keyspace, faster."""
        return self._trees.getter_of(self._txn, prefix) if self._is_plain else self.get

    def _layered_get(self, key: bytes, /) -> bytes | None:
        value: bytes | None = self._memory_value(key)
        return self.get_stored(key) if value is _ABSENT else value

    def _memory_value(self, key: bytes) -> Any:
        """The value in the transaction or the memtables, None for a tombstone; _ABSENT when LMDB's
        value counts."""
        if self.pending is not None:
            value = self.pending.effects.get(key, _ABSENT)
            if value is not _ABSENT:
                return value
        lsn = self.lsn
        for memtable in self._memtables:
            version = memtable.entries.get(key)
            while version is not None:
                if version[0] <= lsn:
                    return version[1]
                version = version[2]
        return _ABSENT

    def get_committed(self, key: bytes) -> bytes | None:
        """The value of a key without the effects of the open transaction."""
        pending, self.pending = self.pending, None
        try:
            return self._layered_get(key)
        finally:
            self.pending = pending

    def vectors_at(self, place: StoredVector, /) -> bytes | None:
        """The vectors at a place that a document of this view names; None when they are not there.
        Vectors at a place never change, so they may come from the newest state of the file, which
        needs no copy of their block. Raises CorruptionError."""
        key = place.key
        try:
            mapped = self._mapped
            if mapped is None:
                mapped = self._mapped = self._begin_mapped()
            found = row_in(place, mapped.get(key, None, self._trees.of(key[:KEYSPACE_BYTES])))
        except (ClosedError, EngineError):  # the file was replaced, or has no slot for a reader
            found = None
        return row_in(place, self.get_stored(key)) if found is None else found

    def points(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        get = self.get
        for key in keys:
            if (value := get(key)) is not None:
                yield key, value

    def expect_vectors(self, places: Iterable[StoredVector]) -> None:
        """Does nothing: each is as near as the next."""

    def get_stored(self, key: bytes, /) -> bytes | None:
        """The value in LMDB, without the memtables."""
        return self._trees.get(self._txn, key)

    def scan_stored(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of one keyspace in LMDB with low <= key < high, without the memtables."""
        return self._scan_store(low, high, False)

    def all_stored(self) -> Iterator[tuple[bytes, bytes]]:
        """All pairs in LMDB, by key."""
        for prefix in self.stored_keyspaces():
            yield from self.scan_stored(prefix, end_of(prefix))

    def stored_keyspaces(self) -> list[bytes]:
        """The prefixes of all keyspaces that have a key in LMDB, ascending."""
        return self._trees.keyspaces(self._txn)

    def scan(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of one keyspace with low <= key < high."""
        pairs = self._scan_store(low, high, reverse)
        if self._is_plain:
            return pairs
        keys = self._memory_keys(low, high, reverse)
        return pairs if keys is None else self._merged(keys, pairs, reverse)

    def keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """At most `limit` keys of scan(), several times faster: read and merged in blocks."""
        keys: list[bytes] = []
        size = _KEYS_BLOCK
        while (wanted := min(size, limit - len(keys))) > 0:
            stored = self._stored_keys(low, high, wanted)
            end = stored[-1] + b"\0" if len(stored) == wanted else high
            memory = self._memory_keys(low, end, False)
            if memory is not None:
                fresh = list(islice(memory, wanted))
                if len(fresh) == wanted:
                    end = fresh[-1] + b"\0"
                stored = self._merged_keys(stored, fresh, end)
            keys += stored
            if end == high:
                break
            low = end
            size = min(2 * size, _KEYS_BLOCK_MAX)
        return keys[:limit]

    def stored_keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """At most `limit` keys of one keyspace in LMDB, without the memtables, ascending."""
        keys: list[bytes] = []
        size = _KEYS_BLOCK
        while (wanted := min(size, limit - len(keys))) > 0:
            block = self._stored_keys(low, high, wanted)
            keys += block
            if len(block) < wanted:
                break
            low = block[-1] + b"\0"
            size = min(2 * size, _KEYS_BLOCK_MAX)
        return keys

    def memory_keys(self, low: bytes, high: bytes) -> tuple[list[bytes], list[bytes]]:
        """The keys of one keyspace that the memtables or the transaction have, and those that they
        delete: keys of both kinds may be in LMDB."""
        present: set[bytes] = set()
        deleted: set[bytes] = set()
        if not self._is_plain:
            for key in self._memory_keys(low, high, False) or ():
                value = self._memory_value(key)
                if value is not _ABSENT:
                    (deleted if value is None else present).add(key)
        return list(present), list(deleted)

    def _stored_keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        """At most `limit` keys in LMDB."""
        cursor = self._trees.cursor(self._txn, low)
        if not cursor.set_range(low):
            return []
        keys = list(islice(cursor.iternext(values=False), limit))
        return keys if keys[-1] < high else keys[: bisect_left(keys, high)]

    def _merged_keys(self, stored: list[bytes], fresh: list[bytes], end: bytes) -> list[bytes]:
        """The keys of LMDB and of the memory below the end to which both have been read."""
        keys = set(stored)
        value_of = self._memory_value
        for key in fresh:
            value = value_of(key)
            if value is None:
                keys.discard(key)
            elif value is not _ABSENT:
                keys.add(key)
        merged = sorted(keys)
        return merged[: bisect_left(merged, end)]

    def keys_beside(
        self, key: bytes, low: bytes, high: bytes, count: int
    ) -> tuple[list[bytes], list[bytes]] | None:
        """At most `count` keys of scan() before a key, and after it, the nearest first. None where
        a memtable has some."""
        if self._memory_keys(low, high, False) is not None:
            return None
        cursor = self._trees.cursor(self._txn, key)
        if not cursor.set_range(key):
            return None
        before = [each for each in islice(cursor.iterprev(values=False), count + 1) if each < key]
        cursor.set_range(key)
        after = [each for each in islice(cursor.iternext(values=False), count + 1) if each > key]
        return [each for each in before if each >= low], [each for each in after if each < high]

    def unique_entries(self, value: bytes) -> set[bytes]:
        """The committed entries of a Unique index with a value (prefix and full fields, short
        enough for a key); deleted ones may be among them. Point look-ups, where a scan would have
        to sort the keys of the memtables."""
        entries: set[bytes] = set()
        for memtable in self._memtables:
            rowids = memtable.unique_rowids.get(value, b"")
            for start in range(0, len(rowids), ROWID_BYTES):
                entries.add(value + rowids[start : start + ROWID_BYTES])
        cursor = self._trees.cursor(self._txn, value)
        has_key = cursor.set_range(value)
        while has_key and (key := cursor.key()).startswith(value):
            entries.add(key)
            has_key = cursor.next()
        return entries

    def _scan_store(self, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._trees.cursor(self._txn, low)
        return scan_back(cursor, low, high) if reverse else scan(cursor, low, high)

    def _memory_keys(self, low: bytes, high: bytes, reverse: bool) -> Iterator[bytes] | None:
        """The keys in range that the memtables or the transaction have, perhaps repeated; None when
        there are none, so LMDB alone is read."""
        sources = [memtable.keys for memtable in self._memtables if memtable.entries]
        if self.pending is not None and self.pending.effects:
            sources.append(self.pending.sorted_keys())
        ranges: list[Iterator[bytes]] = []
        for source in sources:
            keys = source.range(low, high, reverse)
            first = next(keys, None)
            if first is not None:
                ranges.append(_chain(first, keys))
        if not ranges:
            return None
        return ranges[0] if len(ranges) == 1 else merge(*ranges, reverse=reverse)

    def _merged(
        self, keys: Iterator[bytes], pairs: Iterator[tuple[bytes, bytes]], reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of LMDB and those of the memory's keys, which replace or delete them."""
        pair = next(pairs, None)
        last: bytes | None = None
        for key in keys:
            if key == last:
                continue
            last = key
            value = self._memory_value(key)
            if value is _ABSENT:
                continue
            while pair is not None and (pair[0] > key if reverse else pair[0] < key):
                yield pair
                pair = next(pairs, None)
            if pair is not None and pair[0] == key:
                pair = next(pairs, None)
            if value is not None:
                yield key, value
        if pair is not None:
            yield pair
            yield from pairs


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def built_keyspaces(view: View) -> frozenset[int]:
    """The keyspaces of the indexes that are marked as built."""
    marks = view.scan(BUILT, end_of(BUILT))
    return frozenset(int.from_bytes(key[len(BUILT) :]) for key, _ in marks)


def stored_view(store: Store, memtable: Memtable, lsn: int, options: Options) -> View:
    """A view of a store and a memtable of replayed records, with the catalog that they hold and the
    row events of its search indexes. Its `now_us` is 0: nothing has expired."""
    bootstrap = State(memtable, None, frozenset(), Catalog({}))
    view = View(lsn, bootstrap, store.begin(), 0, store)
    try:
        view.catalog = Catalog.load(view, options)
        view.built = built_keyspaces(view)
        memtable.find_rows(view.catalog.row_prefixes)
    except BaseException as error:
        view.__exit__(None, error, None)
        raise
    return view


def schema_of(view: View, name: str) -> Schema:
    """The schema of a collection. Raises CollectionMissingError."""
    return view.catalog.schema(name)


def live(view: View, schema: Schema, id: str) -> StoredDocument | None:
    """A document, unless it is missing or has expired. Raises InvalidDocumentError for an id that
    cannot be one, CorruptionError."""
    key = schema.key(id)
    value = view.get(key)
    stored = None if value is None else unpack(key, value)
    return None if stored is None or stored.expires_us <= view.now_us else stored
