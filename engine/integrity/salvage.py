"""Salvage: copies the readable documents of a damaged data.mdb and its log into a new store.

    leaf pages of the tree -> lost pages -> records of the log -> vectors back into their documents
    -> catalog, counters and expiry index, rebuilt; the other indexes are built by the next open

Invariants:
- A document is kept only if its checksum is right for its own key; of two versions, the newer one.
- The old file is only read, page by page, and never mapped.
- Pages that no tree refers to fill only the gaps of the tree. If the list of free pages can be
  read, stale pages are excluded; otherwise each document from such a page counts as doubtful.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from zlib import crc32

from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import AmberError, CorruptionError
from amberdb._fs import FileSystem
from amberdb._types import NO_LSN, Lsn, Progress
from amberdb.engine.integrity.lmdb_pages import Gap, Pages
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog, Declaration, open_entry, sealed_entry
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.document_format import HEADER_SIZE, NEVER, StoredDocument, unpack
from amberdb.engine.schema.documents import ID_BYTES_MAX
from amberdb.engine.schema.keyspace import (
    APPLIED,
    CLOCK,
    COLLECTION_COUNTERS,
    COLLECTIONS,
    COUNTERS,
    DATABASE_ID,
    ERASURES,
    FIRST_KEYSPACE,
    FIRST_PREFIX,
    KNOWN_BACKUPS,
    LAST_TIME,
    SUBSCRIBERS,
    Effects,
    end_of,
    prefix_of,
)
from amberdb.engine.schema.ordered_index import CUT_ENTRY_SIZE, unpack_cut
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import whole
from amberdb.engine.schema.vector_block import (
    StoredVector,
    pack_block,
    row_in,
    sound_rows,
    unpack_block,
)
from amberdb.engine.storage.data_file import Meta
from amberdb.engine.storage.store import Store
from amberdb.index.ordered.keys import KEYSPACE_BYTES, LMDB_KEY_BYTES_MAX
from amberdb.wal import Record

CHUNK = 1000
LOST_IDS_MAX = 1000

_SEALED = (COLLECTIONS, COUNTERS, KNOWN_BACKUPS, ERASURES, CLOCK)


@dataclass(slots=True)
class Loss:
    """The result of a salvage."""

    documents: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: the number of documents kept."""
    missing: dict[str, int] = field(default_factory=dict[str, int])
    """By collection: how many documents fewer were kept than its counter says. Absent where the
    counter is lost."""
    lost_ids: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(collection, id) of lost documents that an index or a damaged value still names; the first
    1,000."""
    lost_vectors: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(collection, id) of documents that were kept without a vector, which is lost; the first
    1,000."""
    renamed: list[str] = field(default_factory=list[str])
    """Collections whose catalog entry is lost: restored from an older entry, or named after the
    number of their keyspace, without indexes."""
    gaps: int = 0
    """Places where pages of documents or indexes could not be read."""
    doubtful: int = 0
    """Documents from pages that no tree refers to: some may have been changed or deleted since."""


class Salvage:
    """Fills a new store in three steps: read_pages(), replay() for each record, finish()."""

    def __init__(self, store: Store, database_id: bytes, progress: Progress | None) -> None:
        self.loss = Loss()
        self._id = database_id
        self._is_foreign = False
        self.newest = NO_LSN
        """The highest version of a document found."""
        self.last_us = 0
        self.stored_applied: Lsn | None = None
        """The applied Lsn in the old file, which may be wrong."""
        self._store = store
        self._progress = progress
        self._damaged: set[bytes] = set()
        self._deleted: set[bytes] = set()
        self._counters: dict[bytes, bytes] = {}
        self._older: dict[int, CollectionDef] = {}
        self._vectors: set[bytes] = set()
        """The prefixes of the keyspaces that have blocks of vectors."""
        self._pending: Effects = {}
        self._count = 0

    # -- from pages --------------------------------------------------------------------------

    def read_pages(self, fs: FileSystem, path: str, log_begins: Lsn | None) -> None:
        """Takes all pairs of the old file. The log has everything after the Lsn `log_begins`: an
        older meta page is sufficient if it is not older than that."""
        if not fs.exists(path) or fs.is_dir(path):
            self.loss.gaps += 1
            return
        file = fs.open(path, read_only=True)
        try:
            self._read_pages(Pages(file), log_begins)
        finally:
            file.close()

    def _read_pages(self, pages: Pages, log_begins: Lsn | None) -> None:
        gaps: list[Gap] = []
        meta = pages.metas[0] if pages.metas else None
        if meta is not None:
            for key, value in pages.pairs(meta, gaps):
                self._take(key, value)
        self._flush()
        applied = self.stored_applied
        if len(pages.metas) < 2 and (applied is None or log_begins is None or applied < log_begins):
            gaps.append(Gap(b"", None, 0))  # the page that is lost may have been the newer one
            meta = None
        self.loss.gaps += len(gaps)
        if gaps:
            self._read_lost(pages, meta, gaps)

    def _read_lost(self, pages: Pages, meta: Meta | None, gaps: list[Gap]) -> None:
        free = None if meta is None else pages.free_pages(meta)
        for number, pairs in pages.unreached():
            if free is not None and number in free:
                self._note_older(pairs)
                continue
            for key, value in pairs:
                if any(low <= key and (high is None or key < high) for low, high, _ in gaps):
                    kept = self._take(key, value, is_reached=free is not None)
                    self.loss.doubtful += kept and free is None
        self._flush()

    def _note_older(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Notes the catalog entries of a freed page, for collections whose own entry is lost."""
        for key, value in pairs:
            if key.startswith(COLLECTIONS) and _is_sound(key, value):
                definition = _definition(key, value)
                known = self._older.get(definition.keyspace)
                if known is None or len(known.indexes) <= len(definition.indexes):
                    self._older[definition.keyspace] = definition

    def _take(self, key: bytes, value: bytes, *, is_reached: bool = True) -> bool:
        """Takes one pair. Returns whether it is a document that is kept."""
        if key == DATABASE_ID and len(value) == 16 and value != self._id:
            self._is_foreign = True  # it comes before any document
            self.loss.gaps += 1
            self._pending.clear()
            self._counters.clear()
        if self._is_foreign:
            return False
        if key >= FIRST_PREFIX:
            if crc32(value, crc32(key)) == CRC_RESIDUE and len(value) > HEADER_SIZE:
                return self._take_document(key, value)
            if self._take_block(key, value):
                return False
            if len(value) > HEADER_SIZE and is_reached:
                self._damaged.add(key)
        elif key == APPLIED and len(value) == 8:
            applied = Lsn(int.from_bytes(value))
            self.stored_applied = max(applied, self.stored_applied or NO_LSN)
        elif key.startswith(COLLECTION_COUNTERS):
            if is_reached:
                self._counters[key] = value
        elif key.startswith(_SEALED):
            if _is_sound(key, value) and (is_reached or self._get(key) is None):
                self._put(key, value)
        elif key.startswith(SUBSCRIBERS) and len(value) == 8 and is_reached:
            self._put(key, value)
        return False

    def _take_document(self, key: bytes, value: bytes) -> bool:
        stored = unpack(key, value)
        older = self._get(key)
        if older is not None and unpack(key, older).version >= stored.version:
            return False
        self.newest = max(self.newest, Lsn(stored.version))
        self.last_us = max(self.last_us, stored.updated_us)
        self._put(key, value)
        return True

    def _take_block(self, key: bytes, value: bytes) -> bool:
        """Takes the rows of a block of vectors that are whole; whether it is one."""
        try:
            found = sound_rows(key, value)
        except CorruptionError:
            return False
        if found:
            known = self._get(key)
            self._put(key, pack_block({**unpack_block(key, known), **found} if known else found))
            self._vectors.add(key[:KEYSPACE_BYTES])
        return bool(found)

    # -- from the log ------------------------------------------------------------------------

    def replay(self, record: Record) -> None:
        """Applies one record of the log. Raises CorruptionError."""
        self._is_foreign = False
        self.last_us = max(self.last_us, record.time_us)
        for key, value in decode_effects(record.payload).items():
            if value is not None:
                if key.startswith(COLLECTION_COUNTERS):
                    self._counters[key] = value
                elif key >= FIRST_PREFIX or key.startswith((*_SEALED, SUBSCRIBERS)):
                    self._take(key, value)
                    self._deleted.discard(key)
            elif key >= FIRST_PREFIX or key.startswith((COLLECTIONS, SUBSCRIBERS)):
                self._deleted.add(key)
                older = self._get(key)
                if older is not None and (
                    key < FIRST_PREFIX or unpack(key, older).version < record.lsn
                ):
                    self._put(key, None)

    # -- derived data ------------------------------------------------------------------------

    def finish(self, applied: Lsn, options: Options) -> list[Schema]:
        """Rebuilds catalog, counters and expiry indexes from the documents. Returns the schemas of
        the collections found."""
        self._flush()
        self._remove_retired()
        keyspaces = set(self._document_keyspaces())
        definitions = self._definitions()
        names = {definition.name for definition in definitions}
        unknown = sorted(keyspaces - {definition.keyspace for definition in definitions})
        for number in unknown:
            older = self._older.get(number)
            if older is not None and older.name not in names:
                definitions.append(older)
                names.add(older.name)
        catalog = self._catalog(definitions, keyspaces)
        for number in sorted(keyspaces - {definition.keyspace for definition in definitions}):
            wanted = catalog.wanted(f"recovered-{number}", Declaration(), 0, is_empty=False)
            assert wanted is not None
            definition, catalog = wanted
            definitions.append(replace(definition, keyspace=number))
        self.loss.renamed = [d.name for d in definitions if d.keyspace in unknown]
        schemas: list[Schema] = []
        for definition in definitions:
            unbuilt = tuple(replace(index, complete_from=0) for index in definition.indexes)
            schema = Schema(replace(definition, indexes=unbuilt, split_from=0), options)
            schemas.append(schema)
            entry = COLLECTIONS + schema.name.encode()
            self._put(entry, sealed_entry(entry, schema.definition.to_map()))
            self._finish_collection(schema)
        for prefix in self._vectors:
            for key, _ in self._items(prefix):
                self._put(key, None)
        self._put(COUNTERS, sealed_entry(COUNTERS, catalog.counters()))
        self._put(DATABASE_ID, self._id)
        self._put(APPLIED, applied.to_bytes(8))
        self._put(LAST_TIME, max(0, self.last_us).to_bytes(8))
        self._flush()
        return schemas

    def _remove_retired(self) -> None:
        """Removes the documents of collections that were dropped and not purged yet."""
        stored = self._get(COUNTERS)
        retired: list[int] = [] if stored is None else open_entry(COUNTERS, stored)["retired"]
        for number in retired:
            for key, _ in self._items(prefix_of(number)):
                self._put(key, None)
        self._flush()

    def _definitions(self) -> list[CollectionDef]:
        """The collections of the catalog. A page that no tree refers to may add a second entry for
        a keyspace: the entry that was renamed more often is the newer one."""
        by_keyspace: dict[int, CollectionDef] = {}
        for key, value in self._items(COLLECTIONS):
            definition = _definition(key, value)
            known = by_keyspace.get(definition.keyspace)
            if known is None or len(known.former) < len(definition.former):
                by_keyspace[definition.keyspace] = definition
            outdated = definition if by_keyspace[definition.keyspace] is not definition else known
            if outdated is not None:
                self._put(COLLECTIONS + outdated.name.encode(), None)
        self._flush()
        return list(by_keyspace.values())

    def _catalog(self, definitions: list[CollectionDef], keyspaces: set[int]) -> Catalog:
        """A catalog whose next numbers are above all that are in use, with nothing to purge."""
        numbers = [FIRST_KEYSPACE - 1, *keyspaces]
        for definition in definitions:
            numbers += definition.keyspaces
        next_keyspace = max(numbers) + 1
        next_collection = max((d.number for d in definitions), default=0) + 1
        stored = self._get(COUNTERS)
        if stored is not None:
            counters = open_entry(COUNTERS, stored)
            next_keyspace = max(next_keyspace, counters["tree"])
            next_collection = max(next_collection, counters["collection"])
        return Catalog({}, next_keyspace, next_collection)

    def _document_keyspaces(self) -> Iterator[int]:
        with self._store.write() as writer:
            prefixes = writer.keyspaces()
        for prefix in prefixes:
            if prefix >= FIRST_PREFIX and prefix not in self._vectors:
                yield int.from_bytes(prefix)

    def _finish_collection(self, schema: Schema) -> None:
        """Rebuilds the counters and the expiry index of a collection."""
        count = rowid_max = 0
        for key, value in self._items(schema.prefix):
            stored: StoredDocument = unpack(key, value)
            self._put_whole(schema, key, value)
            count += 1
            rowid_max = max(rowid_max, stored.rowid)
            if stored.expires_us != NEVER:
                self._put(schema.expiry_key(stored.expires_us, stored.rowid), key[KEYSPACE_BYTES:])
        self._put(schema.counters_key, CollectionCounters(count, rowid_max + 1).pack())
        self.loss.documents[schema.name] = count
        stored_counters = self._counters.get(schema.counters_key)
        has_lost = bool(self.loss.gaps or self._damaged)
        if has_lost and stored_counters is not None and len(stored_counters) == 16:
            missing = CollectionCounters.unpack(stored_counters).documents - count
            if 0 < missing < 1 << 48:
                self.loss.missing[schema.name] = missing

    def _put_whole(self, schema: Schema, key: bytes, value: bytes) -> None:
        """Puts the vectors of a document back into it; the next open splits it again."""
        lost: list[str] = []
        joined = whole(key, value, self._vectors_at, lost)
        if joined is not value:
            self._put(key, joined)
        if lost and len(self.loss.lost_vectors) < LOST_IDS_MAX:
            self.loss.lost_vectors.append((schema.name, key[KEYSPACE_BYTES:].decode()))

    def _vectors_at(self, place: StoredVector) -> bytes | None:
        return row_in(place, self._get(place.key))

    def name_lost(self, fs: FileSystem, path: str, schemas: list[Schema]) -> None:
        """Reads the old file again for the ids of lost documents that its indexes name."""
        owners = {index.prefix: schema for schema in schemas for index in schema.indexes}
        owners |= {schema.expiry_prefix: schema for schema in schemas}
        by_keyspace = {schema.prefix: schema for schema in schemas}
        lost = {key for key in self._damaged if key[:KEYSPACE_BYTES] in by_keyspace}
        if self.loss.gaps and fs.exists(path) and not fs.is_dir(path):
            file = fs.open(path, read_only=True)
            try:
                pages = Pages(file)
                for meta in pages.metas[:1]:
                    for key, value in pages.pairs(meta, []):
                        owner = owners.get(key[:KEYSPACE_BYTES])
                        if owner is not None:
                            is_cut = len(key) >= KEYSPACE_BYTES + CUT_ENTRY_SIZE
                            lost.add(owner.prefix + (unpack_cut(value)[0] if is_cut else value))
                            if len(lost) > CHUNK * 10:
                                lost = set(self._absent(lost))
            finally:
                file.close()
        for key in sorted(self._absent(lost))[:LOST_IDS_MAX]:
            id = key[KEYSPACE_BYTES:].decode("utf-8", "replace")
            self.loss.lost_ids.append((by_keyspace[key[:KEYSPACE_BYTES]].name, id))

    def _absent(self, keys: set[bytes]) -> list[bytes]:
        return [
            key
            for key in keys
            if key not in self._deleted
            and len(key) <= KEYSPACE_BYTES + ID_BYTES_MAX
            and self._store.get(key) is None
        ]

    # -- the new store -----------------------------------------------------------------------

    def _get(self, key: bytes) -> bytes | None:
        if key in self._pending:
            return self._pending[key]
        return self._store.get(key) if len(key) <= LMDB_KEY_BYTES_MAX else None

    def _put(self, key: bytes, value: bytes | None) -> None:
        self._pending[key] = value
        self._count += 1
        if len(self._pending) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        with self._store.write() as writer:
            for key, value in sorted(self._pending.items()):
                if value is None:
                    writer.delete(key)
                else:
                    writer.put(key, value)
        self._pending.clear()
        if self._progress is not None:
            self._progress("salvage", self._count)

    def _items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of a keyspace, read in blocks: writes between them are allowed."""
        end = end_of(prefix)
        low = prefix
        while True:
            block = self._items_from(low, end)
            yield from block
            if len(block) < CHUNK:
                return
            low = block[-1][0] + b"\0"

    def _items_from(self, low: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        items: list[tuple[bytes, bytes]] = []
        with self._store.write() as writer:
            for key, value in writer.items(low):
                if key >= end or len(items) == CHUNK:
                    break
                items.append((key, value))
        return items


def _definition(key: bytes, value: bytes) -> CollectionDef:
    return CollectionDef.from_map(key[len(COLLECTIONS) :].decode(), open_entry(key, value))


def _is_sound(key: bytes, value: bytes) -> bool:
    """Whether this version can read the entry."""
    try:
        if key.startswith(COLLECTIONS):
            _definition(key, value)
        else:
            open_entry(key, value)
    except (AmberError, CorruptionError, UnicodeDecodeError):
        return False
    return True
