"""The write batch: turns operations into effects, the keys and values that a commit writes.

A batch lives while the writer lock is held: for one call, or for one transaction. Its reads see the
newest commits and its own effects.

Invariants:
- Effects are outcomes: whole values and tombstones, index entries and counters included. Replaying
  them needs no clock, no schema and no old document.
- A write makes entries only for indexes that depend on a field whose value it changes.
- An expired document does not exist: a write that meets one deletes it.
- Unique indexes are checked against the state at the end of the batch, once, in `finish`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, NoReturn, TypeAlias, get_args

from amberdb._call_lock import Holder
from amberdb._errors import (
    ConflictError,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    StorageFullError,
    TransactionTooLargeError,
)
from amberdb._types import Document
from amberdb.engine.commit.unique_check import UniqueCheck
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import KIND_COMMIT
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.document_format import (
    NEVER,
    StoredDocument,
    header_of,
    pack,
    unpack,
    version_of,
)
from amberdb.engine.schema.entry_plan import EntryPlan
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.ordered_index import LOSSY, MULTI, CompiledIndex, entry_pairs
from amberdb.engine.schema.patch import Changes
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES

OnConflict: TypeAlias = Literal["replace", "keep", "raise"]
ON_CONFLICT: Final[tuple[OnConflict, ...]] = get_args(OnConflict)
ReadDocument: TypeAlias = tuple[bytes, bytes, Document]
"""The key, the value, whose checksum was checked, and the document in it as it is stored."""
_ENTRY_BYTES = 100
"""Bytes that an index entry counts towards transaction_bytes_max; most entries are smaller."""


class WriteBatch:
    """Collects the effects of one commit."""

    __slots__ = (
        "_bytes_left",
        "_counters",
        "_effects",
        "_pending",
        "_row_keys",
        "catalog",
        "holder",
        "kind",
        "lsn",
        "next_expiry_us",
        "now_us",
        "uniques",
        "view",
    )

    holder: Holder
    """Who holds the writer lock for this batch, when it is not a call of Committer.write()."""

    def __init__(self, lsn: int, view: View, bytes_max: int) -> None:
        self.lsn = lsn
        """The Lsn that the commit will have: the version of every document that it writes."""
        self.kind = KIND_COMMIT
        self.catalog: Catalog | None = None
        """The catalog after this commit, when the commit changes it."""
        self.now_us = view.now_us
        self.next_expiry_us = NEVER
        """The earliest time of expiry among the documents stored: when the reaper has work."""
        self.view = view
        assert view.pending is not None
        self._pending = view.pending
        self._effects = view.pending.effects
        self._counters: dict[bytes, CollectionCounters] = {}
        self.uniques: UniqueCheck | None = None
        """Of the batch that stores documents of a collection with a Unique index."""
        self._row_keys: dict[bytes, None] = {}
        """The entries of search indexes among the effects, in the order of their first write."""
        self._bytes_left = bytes_max

    # -- operations --------------------------------------------------------------------------

    def has(self, schema: Schema, new: Prepared) -> bool:
        """Whether there is a document with the id of a new one."""
        return not new.fresh and self._live(schema, new.key) is not None

    def expect(self, schema: Schema, new: Sequence[Prepared]) -> None:
        """Takes in that these documents will be stored: a batch on a server reads them at once."""

    def put(self, schema: Schema, new: Prepared, *, on_conflict: OnConflict = "replace") -> None:
        """Stores a document. Where the id exists, replaces the old one, keeps it, or raises
        DuplicateKeyError."""
        old = None if new.fresh else self._live(schema, new.key)
        if old is not None and on_conflict != "replace":
            if on_conflict == "keep":
                return
            raise DuplicateKeyError(
                f"collection {schema.name!r} has a document {new.id!r} already: "
                "put() replaces it, update() changes it",
                collection=schema.name,
                key=new.id,
            )
        if old is None:
            self._insert(schema, new)
        else:
            self._replace(schema, new, old, schema.as_stored(old, self.view.vectors_at))

    def update(
        self, schema: Schema, id: str, patch: Changes, if_version: int | None = None
    ) -> None:
        """Changes a stored document. Raises MissingKeyError, ConflictError."""
        if not self.update_if_there(schema, id, patch, if_version):
            raise missing(schema.name, id)

    def update_if_there(
        self, schema: Schema, id: str, patch: Changes, if_version: int | None = None
    ) -> bool:
        """update(), or False when there is no such document."""
        old = self._live(schema, schema.key(id))
        if old is None:
            return False
        if if_version is not None and old.version != if_version:
            raise ConflictError(
                f"document {id!r} is at version {old.version}, not {if_version}: "
                "read it again and retry",
                key=id,
                version=old.version,
            )
        document = schema.document(old, self.view.vectors_at)
        new = schema.prepare_changed(patch.apply(document), patch.fields)
        if new.id != id or new.fresh:
            raise InvalidDocumentError(
                "update() cannot change an id: put a copy under the new id", field="id"
            )
        # Entries are those of the document as it is stored, not of its upgraded form.
        before = document
        if not schema.is_newest(old):
            before = schema.as_stored(old, self.view.vectors_at)
        self._replace(schema, new, old, before)
        return True

    def upgrade(self, schema: Schema, old: StoredDocument, new: Prepared) -> None:
        """Stores `new`, the upgrade of the document `old`, with the times of `old`. Does nothing
        when the document was written or deleted since `old` was read."""
        value = self.view.get(new.key)
        if value is not None and version_of(value) == old.version:
            if schema.unique_indexes:
                self._checked().is_migrating = True
            before = schema.as_stored(old, self.view.vectors_at)
            self._replace(schema, new, old, before, old.updated_us)

    def restore(self, schema: Schema, new: Prepared, created_us: int, updated_us: int) -> None:
        """Stores a document as another database had it, with these times; replaces one that is
        there."""
        old = self._live(schema, new.key)
        if old is None:
            self._insert(schema, new, (created_us, updated_us))
        else:
            before = schema.as_stored(old, self.view.vectors_at)
            self._replace(schema, new, old._replace(created_us=created_us), before, updated_us)

    def delete(self, schema: Schema, id: str) -> bool:
        """Deletes a document; False when it does not exist."""
        key = schema.key(id)
        old = self._live(schema, key)
        if old is not None:
            self._remove(schema, key, old)
        return old is not None

    def remove(self, schema: Schema, found: Iterable[ReadDocument]) -> int:
        """Deletes documents that were just read through the batch's view, each of them once, so
        none is read a second time; returns their number. They may have expired."""
        gone: Effects = {}
        row_keys: list[bytes] = []
        effects_max = self._bytes_left // _ENTRY_BYTES
        count = 0
        for key, value, document in found:
            _, _, _, expires_us, rowid = header_of(value)
            gone[key] = None
            id_bytes = key[KEYSPACE_BYTES:]
            _add_entries(gone, schema, schema.entry_plan, document, id_bytes, rowid, expires_us)
            if schema.row_indexes:
                row_keys += schema.row_keys(schema.row_contents(document), rowid)
            count += 1
            if len(gone) > effects_max:  # _add() refuses it; the rest is not read
                break
        if count:
            _drop_marks(gone, schema.indexes)
            self._add(dict.fromkeys([*gone, *row_keys]), 0, row_keys)
            self._counters_of(schema).documents -= count
        return count

    def set(self, key: bytes, value: bytes | None) -> None:
        """Adds one key and value: an entry of the catalog, or a subscriber's position."""
        self._add({key: value}, 0 if value is None else len(value))

    def finish(self) -> Effects:
        """The effects, after the checks of the end state. Raises DuplicateKeyError."""
        if self.uniques is not None:
            self.uniques.run(self._live)
        self.save_counters()
        return self._effects

    def row_keys(self) -> list[bytes]:
        """The entries of search indexes among the effects."""
        return list(self._row_keys)

    def save_counters(self) -> None:
        """Adds the counters to the effects: before a commit, and before a read in a transaction."""
        for key, counters in self._counters.items():
            self._pending.update({key: counters.pack()})

    # -- inside ------------------------------------------------------------------------------

    def _live(self, schema: Schema, key: bytes) -> StoredDocument | None:
        value = self.view.get(key)
        if value is None:
            return None
        old = unpack(key, value)
        if old.expires_us <= self.now_us:
            self._remove(schema, key, old)
            return None
        return old

    def _insert(
        self, schema: Schema, new: Prepared, times_us: tuple[int, int] | None = None
    ) -> None:
        """Stores a document under an id that has none. `times_us`: of its creation and its last
        write, if that is not now."""
        document = new.document
        id_bytes = new.id_bytes
        expires_us = new.expires_us
        counters = self._counters_of(schema)
        rowid = counters.next_rowid
        created_us, updated_us = times_us or (self.now_us, self.now_us)
        value = pack(new.key, self.lsn, created_us, updated_us, expires_us, rowid, new.body)
        effects: Effects = {new.key: value}
        schema.add_entries(effects, schema.entry_plan, document, id_bytes, rowid, expires_us)
        row_keys: list[bytes] = []
        if schema.row_indexes:
            row_keys = schema.row_keys(schema.row_contents(document), rowid)
            effects.update(dict.fromkeys(row_keys, id_bytes))
        if expires_us < self.next_expiry_us:
            self.next_expiry_us = expires_us
        self._add(effects, len(value), row_keys)
        # Only now: a document that was refused must leave no trace in a transaction.
        counters.documents += 1
        counters.next_rowid += 1
        if schema.unique_indexes:
            self._checked().note(schema, schema.indexes, document, rowid, effects)

    def _replace(
        self,
        schema: Schema,
        new: Prepared,
        old: StoredDocument,
        before: Document,
        updated_us: int | None = None,
    ) -> None:
        """Stores a document in place of `old`, which is stored as `before`."""
        document = new.document
        expires_us = new.expires_us
        rowid = old.rowid
        changed = schema.changed(before, document)
        contents = contents_before = None
        if changed and not changed.isdisjoint(schema.row_roots):
            # Once per document: a text or a vector takes time to find.
            contents = schema.row_contents(document)
            contents_before = schema.row_contents(before)
        counters = None
        plan = schema.entry_plan
        if contents != contents_before:
            counters = self._counters_of(schema)
            rowid = counters.next_rowid
        else:
            plan = schema.plan_of(changed)
        value = pack(
            new.key,
            self.lsn,
            old.created_us,
            self.now_us if updated_us is None else updated_us,
            expires_us,
            rowid,
            new.body,
        )
        effects: Effects = {new.key: value}
        if plan.indexes or expires_us != old.expires_us or rowid != old.rowid:
            schema.add_entries(effects, plan, document, new.id_bytes, rowid, expires_us)
            for key, entry in _entries_of(schema, plan, new.id_bytes, old, before).items():
                if key not in effects:
                    effects[key] = None
                elif effects[key] == entry:
                    del effects[key]
        row_keys: list[bytes] = []
        if counters is not None:
            assert contents is not None
            assert contents_before is not None
            row_keys = schema.row_keys(contents, rowid)
            effects.update(dict.fromkeys(row_keys, new.id_bytes))
            removed = schema.row_keys(contents_before, old.rowid)
            effects.update(dict.fromkeys(removed))
            row_keys += removed
        if expires_us < self.next_expiry_us:
            self.next_expiry_us = expires_us
        self._add(effects, len(value), row_keys)
        if counters is not None:  # only now: as in _insert()
            counters.next_rowid += 1
        if schema.unique_indexes:
            self._checked().note(schema, plan.indexes, document, rowid, effects)

    def _remove(self, schema: Schema, key: bytes, old: StoredDocument) -> None:
        entries: Effects = {}
        row_keys: list[bytes] = []
        if schema.all_indexes:
            document = schema.as_stored(old, self.view.vectors_at)
            entries = _entries_of(schema, schema.entry_plan, key[KEYSPACE_BYTES:], old, document)
            row_keys = schema.row_keys(schema.row_contents(document), old.rowid)
        elif old.expires_us != NEVER:  # saves decoding the document
            entries[schema.expiry_key(old.expires_us, old.rowid)] = None
        self._add(dict.fromkeys([key, *entries, *row_keys]), 0, row_keys)
        self._counters_of(schema).documents -= 1

    def _checked(self) -> UniqueCheck:
        """The check of Unique indexes that finish() runs."""
        if self.uniques is None:
            self.uniques = UniqueCheck(self.view)
        return self.uniques

    def _counters_of(self, schema: Schema) -> CollectionCounters:
        counters = self._counters.get(schema.counters_key)
        if counters is None:
            counters = CollectionCounters.unpack(self.view.get(schema.counters_key))
            self._counters[schema.counters_key] = counters
        return counters

    def _add(
        self,
        effects: Mapping[bytes, bytes | None],
        value_bytes: int,
        row_keys: Collection[bytes] = (),
    ) -> None:
        """`row_keys` are those of the effects that are entries of search indexes."""
        left = self._bytes_left - value_bytes - _ENTRY_BYTES * len(effects)
        if left < 0:
            raise TransactionTooLargeError(
                "the transaction is larger than transaction_bytes_max: split it, or raise the "
                "limit at open"
            )
        self._bytes_left = left
        self._pending.update(effects)
        if row_keys:
            self._row_keys.update(dict.fromkeys(row_keys))


class FullBatch(WriteBatch):
    """The write batch of a database that is at its limit: it deletes, and stores no document."""

    __slots__ = ()

    def _insert(
        self, schema: Schema, new: Prepared, times_us: tuple[int, int] | None = None
    ) -> NoReturn:
        _refuse()

    def _replace(
        self,
        schema: Schema,
        new: Prepared,
        old: StoredDocument,
        before: Document,
        updated_us: int | None = None,
    ) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise StorageFullError(
        "the database has reached size_bytes_max, and stores no document: delete some and "
        "call compact(), or open it with a larger size_bytes_max"
    )


def missing(collection: str, id: str) -> MissingKeyError:
    """The error of a document that does not exist."""
    return MissingKeyError(
        f"collection {collection!r} has no document {id!r}", collection=collection, key=id
    )


def _entries_of(
    schema: Schema,
    plan: EntryPlan,
    id_bytes: bytes,
    old: StoredDocument,
    document: Document,
) -> Effects:
    """The entries of a stored document in the ordered indexes of a plan and in the expiry index.
    Marks are left out: they stay when a document is deleted."""
    entries: Effects = {}
    _add_entries(entries, schema, plan, document, id_bytes, old.rowid, old.expires_us)
    _drop_marks(entries, plan.indexes)
    return entries


def _add_entries(
    entries: Effects,
    schema: Schema,
    plan: EntryPlan,
    document: Document,
    id_bytes: bytes,
    rowid: int,
    expires_us: int,
) -> None:
    """Adds the entries of a stored document to those of others, and the marks that it leaves."""
    try:
        schema.add_entries(entries, plan, document, id_bytes, rowid, expires_us)
    except InvalidDocumentError:  # an index that was declared later has no key for it
        for index in plan.indexes:
            try:
                entries.update(entry_pairs(index, document, id_bytes, rowid))
            except InvalidDocumentError:
                pass  # the document has no entry in this index


def _drop_marks(entries: Effects, indexes: Iterable[CompiledIndex]) -> None:
    for index in indexes:
        entries.pop(MULTI + index.prefix, None)
        entries.pop(LOSSY + index.prefix, None)
