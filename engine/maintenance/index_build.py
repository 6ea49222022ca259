"""Index builds and purges after a changed declaration; migrations run first.

    declared at Lsn D -> checkpoint to D -> chunks of documents read from LMDB, their entries and
    the position reached written in the same LMDB transaction -> marked as built

Invariants:
- Every commit after D maintains the new index, so the build reads only LMDB; the effects of later
  commits are applied on top of its entries.
- An index of a collection that is being migrated is built after the migration.
- Queries use an index only in views that begin after it was marked as built; until then they scan.
- Positions and marks describe this data.mdb: they are in the LOCAL keyspace, not in the log. In an
  older copy of the file they are unset, and the index is built again.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import cast

from amberdb import _failpoints as failpoints
from amberdb._errors import DuplicateKeyError, InvalidDocumentError, MigrationError
from amberdb._types import Document, Progress
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.maintenance.migrator import Migrator
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.document_format import BODY, expires_us, unpack
from amberdb.engine.schema.keyspace import BUILDING, BUILT, end_of, prefix_of
from amberdb.engine.schema.ordered_index import MULTI, CompiledIndex, entry_pairs
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.storage.index_scan import entries
from amberdb.engine.storage.store import StoreWriter
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES, ROWID_BYTES
from amberdb.index.vector.embedding_queue import EmbeddingQueue

CHUNK = 1000
ROWS_CHUNK = 4000
"""For search indexes: each chunk of a text index becomes a segment, to be merged later."""


class Indexer:
    """Builds and purges indexes: in the background thread, or in a caller that waits for them."""

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        migrator: Migrator,
        embedders: Embedders,
    ) -> None:
        self._committer = committer
        self._embedders = embedders
        self._checkpointer = checkpointer
        self._migrator = migrator

    def pending(self) -> list[tuple[Schema, AnyIndex]]:
        """Indexes that are declared and not built, of collections without a migration."""
        state = self._committer.state
        return [
            (schema, index)
            for schema in state.catalog.schemas.values()
            if schema.migration is None
            for index in schema.all_indexes
            if not index.complete_from and index.number not in state.built
        ]

    def _is_pending(self, index: AnyIndex) -> bool:
        return any(other.number == index.number for _, other in self.pending())

    def is_idle(self) -> bool:
        """Whether there is nothing to migrate, build or purge."""
        retired = self._committer.state.catalog.retired
        return not self.pending() and not retired and not self._migrator.pending()

    def has_news(self) -> bool:
        """Whether there is work other than migrations whose functions have failed."""
        if self.pending() or self._committer.state.catalog.retired:
            return True
        return not all(map(self._migrator.has_failed, self._migrator.pending()))

    def run(
        self, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Migrates, builds and purges until nothing is pending or `stop()` is true. Progress is
        called with the name of the index, or of the collection that is being migrated.

        Raises StorageError; DuplicateKeyError when documents share a value of a Unique index;
        InvalidDocumentError when a document has no valid key; MigrationError after all other work
        is done. It can be run again after each.
        """
        failure: MigrationError | None = None
        while failure is None and not self.is_idle() and not stop():
            try:
                self._migrator.run(progress, stop)
            except MigrationError as error:
                failure = error
            # Listed before the checkpoint: an index declared after it needs the next checkpoint,
            # since commits from before its Lsn may still be in the memtable.
            pending = self.pending()
            retired = self._committer.state.catalog.retired
            self._checkpointer.run()
            if failpoints.on:
                failpoints.reach("index.declared")
            for schema, index in pending:
                build = partial(self._build, schema, index, progress, stop)
                self._checkpointer.with_room(build)
            for number in retired:
                if not stop():
                    self._checkpointer.with_room(partial(self._purge, number))
        if failure is not None:
            raise failure

    def purge(self) -> None:
        """Deletes the entries of dropped indexes; builds nothing. Raises StorageError."""
        retired = self._committer.state.catalog.retired
        if retired:
            self._checkpointer.run()
        for number in retired:
            self._checkpointer.with_room(partial(self._purge, number))

    def _build(
        self,
        schema: Schema,
        index: AnyIndex,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> None:
        """Builds one index; a checkpoint has run after its declaration."""
        done = 0
        more = True
        while more:
            with self._checkpointer.mutex:  # so that no purge runs between check and write
                if stop() or not self._is_pending(index):
                    return
                with self._committer.store.write() as store:
                    count, more = _build_chunk(store, schema, index)
                    if failpoints.on:
                        failpoints.reach("index.chunk-written")
            if failpoints.on:
                failpoints.reach("index.chunk-committed")
            done += count
            if progress is not None:
                progress(index.spec.name, done)
        if index.is_unique:
            # Includes commits that are published and not yet synced.
            self._committer.await_published()
            # All entries exist, so commits refuse further duplicates; earlier ones are found now.
            with self._committer.view() as view:
                refuse_duplicates(view, schema, cast(CompiledIndex, index))
                if failpoints.on:
                    failpoints.reach("index.unique-checked")
        with self._checkpointer.mutex:
            if not self._is_pending(index):
                return
            with self._committer.store.write() as store:
                store.delete(BUILDING + index.prefix)
                store.put(BUILT + index.prefix, b"1")
                if failpoints.on:
                    failpoints.reach("index.before-mark")
            if failpoints.on:
                failpoints.reach("index.marked")
            self._committer.checkpoint_applied(self._committer.state.built | {index.number})
        if isinstance(index.spec, EmbeddingQueue):
            self._embedders.on_pending()

    def _purge(self, number: int) -> None:
        prefix = prefix_of(number)
        removed = CHUNK
        while removed == CHUNK:
            with self._checkpointer.mutex:
                with self._committer.store.write() as store:
                    removed = store.delete_range(prefix, end_of(prefix), CHUNK)
                    if failpoints.on:
                        failpoints.reach("purge.chunk-deleted")
                    if removed < CHUNK:
                        for mark in (BUILT, BUILDING, MULTI):
                            store.delete(mark + prefix)
                state = self._committer.state
                self._committer.checkpoint_applied(state.built - {number})
                if failpoints.on:
                    failpoints.reach("purge.chunk-committed")
        with OneCommit(self._committer) as batch:
            batch.catalog = batch.view.catalog.purged(number)
            batch.catalog.save_counters(batch)
            if failpoints.on:
                failpoints.reach("purge.before-catalog")


def _build_chunk(store: StoreWriter, schema: Schema, index: AnyIndex) -> tuple[int, bool]:
    """Builds the entries of the next documents: (number of documents, whether more may follow)."""
    mark = BUILDING + index.prefix
    low = (store.get(mark) or schema.prefix) + b"\0"
    chunk = CHUNK if isinstance(index, CompiledIndex) else ROWS_CHUNK
    documents = list(islice(store.scan(low, end_of(schema.prefix)), chunk))
    if isinstance(index, CompiledIndex):
        _build_entries(store, index, documents)
    else:
        from amberdb.engine.search.flush import flush_documents  # brings numpy

        flush_documents(store, index, map(_row, documents))
    if documents:
        store.put(mark, documents[-1][0])
    return len(documents), len(documents) == chunk


def _build_entries(
    store: StoreWriter, index: CompiledIndex, documents: Iterable[tuple[bytes, bytes]]
) -> None:
    pairs: dict[bytes, bytes] = {}
    for key, value in documents:
        stored = unpack(key, value)
        try:
            pairs.update(entry_pairs(index, stored.document(), key[KEYSPACE_BYTES:], stored.rowid))
        except InvalidDocumentError as error:
            raise InvalidDocumentError(
                f"document {key[KEYSPACE_BYTES:].decode()!r}: {error.message}; "
                f"{index.spec.name} cannot be built: change the document, or drop the index",
                **error.facts,
            ) from None
    if pairs:
        store.put_sorted(sorted(pairs.items()))


def _row(pair: tuple[bytes, bytes]) -> tuple[int, bytes, Document]:
    """(rowid, id, document) of a stored pair."""
    stored = unpack(*pair)
    return stored.rowid, pair[0][KEYSPACE_BYTES:], stored.document()


def refuse_duplicates(view: View, schema: Schema, index: CompiledIndex) -> None:
    """Raises DuplicateKeyError when two live documents share a value of a Unique index."""
    whole = (index.prefix, end_of(index.prefix))
    before = (b"", b"")
    for position, id_bytes in entries(view, [whole]):
        value = view.get(schema.prefix + id_bytes)
        if value is None or expires_us(value) <= view.now_us:
            continue
        fields = position[:-ROWID_BYTES]
        if before[0] == fields and _is_kept_unique(index, value, fields[KEYSPACE_BYTES:]):
            raise DuplicateKeyError(
                f"collection {schema.name!r}: documents {before[1].decode()!r} and "
                f"{id_bytes.decode()!r} have the same {', '.join(index.spec.fields)}: "
                f"{index.spec.name} cannot be built: change one of them first",
                collection=schema.name,
                key=id_bytes.decode(),
                index=index.spec.name,
            )
        before = (fields, id_bytes)


def _is_kept_unique(index: CompiledIndex, value: bytes, key: bytes) -> bool:
    """Whether the entry has to be unique: in a sparse index a None inside a list does not."""
    return key in index.encoder.unique_keys(decode_document(value[BODY]))
