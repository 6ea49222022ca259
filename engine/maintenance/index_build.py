"""Index builds, splits and purges after a changed declaration; migrations run first.

    declared at Lsn D -> checkpoint to D -> chunks of documents read from LMDB, their entries and
    the position reached written in the same LMDB transaction -> marked as built

Invariants:
- Each build, purge and migration fails alone: the others are done, and in the background it is
  tried again after a pause that grows.
- Every commit after D maintains the new index, so the build reads only LMDB; the effects of later
  commits are applied on top of its entries.
- An index of a collection that is being migrated is built after the migration.
- Queries use an index only in views that begin after it was marked as built; until then they scan.
- An index that is rebuilt, since its analyzer has changed, is dropped once the new one is built.
- Positions and marks describe this data.mdb: they are in the LOCAL keyspace, not in the log. In an
  older copy of the file they are unset, and the index is built again.
- After forget_dropped() no position is the id of a document that was deleted before.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast, final

from amberdb import _failpoints as failpoints
from amberdb._errors import DuplicateKeyError
from amberdb._types import Progress
from amberdb._worker import long_work
from amberdb.engine.commit import index_chunks
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.document_flush import split_chunk
from amberdb.engine.commit.index_chunks import build_chunk
from amberdb.engine.failures import Failures
from amberdb.engine.maintenance.migrator import Migrator
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.document_format import BODY, expires_us
from amberdb.engine.schema.keyspace import BUILDING, BUILT, end_of, prefix_of
from amberdb.engine.schema.migration import Upgrades
from amberdb.engine.schema.ordered_index import LOSSY, MULTI, CompiledIndex
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.index_scan import entries
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES, ROWID_BYTES
from amberdb.index.vector.embedding_queue import EmbeddingQueue


def _every(index: AnyIndex) -> bool:
    """The default of `wanted`."""
    return True


def _never() -> bool:
    """The default of `stop`."""
    return False


Wanted: TypeAlias = Callable[[AnyIndex], bool]


@final
@dataclass(frozen=True, slots=True)
class _Task:
    """A migration, a build or a purge."""

    key: Hashable
    name: str
    run: Callable[[], None]
    is_pending: Callable[[], bool]
    needs_checkpoint: bool = True


class Indexer:
    """Migrates collections, builds and purges indexes: in the background thread, or in a caller
    that waits for them."""

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        migrator: Migrator,
        embedders: Embedders,
        searchers: Searchers,
        failures: Failures,
    ) -> None:
        self._committer = committer
        self._embedders = embedders
        self._searchers = searchers
        self._checkpointer = checkpointer
        self._migrator = migrator
        self._failures = failures

    def pending(self) -> list[tuple[Schema, AnyIndex]]:
        """Indexes that are declared and not built, of collections without a migration."""
        state = self._committer.state
        return [
            (schema, index)
            for schema in state.catalog.schemas.values()
            for index in self.pending_of(schema)
        ]

    def pending_of(self, schema: Schema) -> list[AnyIndex]:
        """The indexes of one collection among pending()."""
        if schema.migration is not None:
            return []
        built = self._committer.state.built
        return [
            index
            for index in schema.all_indexes
            if not index.complete_from
            and index.number not in built
            and index.number not in schema.older
        ]

    def unsplit(self) -> list[Schema]:
        """The collections that may have documents in LMDB with their vectors inside."""
        return [s for s in self._committer.state.catalog.schemas.values() if self._is_unsplit(s)]

    def has_work(self, schema: Schema) -> bool:
        """Whether there is something to migrate, to build or to split in one collection."""
        is_migrating = schema.migration is not None
        return is_migrating or self._is_unsplit(schema) or bool(self.pending_of(schema))

    def unanswered_of(self, schema: Schema) -> list[AnyIndex]:
        """The indexes among pending_of() for which no older one answers."""
        built = self._committer.state.built
        answered = {
            index.spec.name
            for index in schema.row_indexes
            if index.number in schema.older and (index.complete_from or index.number in built)
        }
        return [index for index in self.pending_of(schema) if index.spec.name not in answered]

    def is_idle(self) -> bool:
        """Whether there is nothing to migrate, build or purge."""
        return self.due_s() is None

    def due_s(self) -> float | None:
        """Seconds until step() has work; None without any."""
        tasks = self._tasks(None, _every, None, _never)
        return min((self._failures.left_s(task.key) for task in tasks), default=None)

    def run(
        self,
        progress: Progress | None = None,
        stop: Callable[[], bool] = _never,
        *,
        collection: str | None = None,
        wanted: Wanted = _every,
    ) -> None:
        """Migrates, builds and purges until nothing is pending or `stop()` is true. Progress is
        called with the name of the index, or of the collection that is being migrated. With
        `collection`, only this one is migrated, and only its `wanted` indexes are built.

        Raises StorageError; after all other work DuplicateKeyError when documents share a value of
        a Unique index, InvalidDocumentError when a document has no valid key, MigrationError. It
        can be run again after each.
        """

        def tasks() -> list[_Task]:
            return self._tasks(collection, wanted, progress, stop)

        failed = self._run(tasks, stop)
        for error in failed.values():
            raise error

    def migrate(self, progress: Progress | None) -> None:
        """Completes all migrations. Raises the errors of run(), and CollectionError for a
        collection for which this process has no functions."""
        failed = self._run(lambda: self._migrations(None, progress, _never), _never)
        for error in failed.values():
            raise error
        self._migrator.check_functions()

    def split(self) -> bool:
        """Moves vectors out of all documents that have them inside; whether there were any. Raises
        StorageError, CorruptionError."""
        if not self.unsplit():
            return False
        failed = self._run(lambda: self._splits(None, None, _never), _never)
        for error in failed.values():
            raise error
        return True

    def step(self, stop: Callable[[], bool]) -> None:
        """run() in the background: leaves out what has failed and is to be tried later. Raises
        only what keeps a checkpoint from running."""

        def tasks() -> list[_Task]:
            due = self._tasks(None, _every, None, stop)
            return [task for task in due if not self._failures.left_s(task.key)]

        self._run(tasks, stop, in_background=True)

    def forget_dropped(self) -> None:
        """Deletes the entries of dropped indexes, and moves positions of builds off documents that
        were deleted; builds nothing. Raises StorageError."""
        retired = self._committer.state.catalog.retired
        self._checkpointer.run()
        for number in retired:
            self._checkpointer.with_room(partial(self._purge, number))
        self._checkpointer.with_room(self._move_positions)

    def _move_positions(self) -> None:
        """Moves the positions of builds off documents that were deleted."""
        with self._checkpointer.mutex, self._committer.store.write() as store:
            for mark, position in list(store.scan(BUILDING, end_of(BUILDING))):
                if store.get(position) is not None:
                    continue
                before = store.last_before(position)
                if before is not None and before.startswith(position[:KEYSPACE_BYTES]):
                    store.put(mark, before)
                else:
                    store.delete(mark)

    # -- inside ------------------------------------------------------------------------------

    def _tasks(
        self,
        collection: str | None,
        wanted: Wanted,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> list[_Task]:
        tasks = self._migrations(collection, progress, stop)
        for schema, index in self.pending():
            if collection in (None, schema.name) and wanted(index):
                tasks.append(
                    _Task(
                        ("build", index.number),
                        f"the build of {index.spec.name} of collection {schema.name!r}",
                        partial(self._build, schema, index, progress, stop),
                        partial(self._is_pending, index),
                    )
                )
        if wanted is _every:
            tasks += self._splits(collection, progress, stop)
        tasks += [
            _Task(
                ("replace", schema.definition.number),
                f"the replacement of the rebuilt indexes of collection {schema.name!r}",
                partial(self._drop_older, schema),
                partial(self._is_renewing, schema),
                needs_checkpoint=False,
            )
            for schema in self._committer.state.catalog.schemas.values()
            if collection in (None, schema.name) and self._has_older(schema)
        ]
        if collection is None:
            tasks += [
                _Task(
                    ("purge", number),
                    f"the removal of a dropped index (keyspace {number})",
                    partial(self._purge, number),
                    partial(self._is_retired, number),
                )
                for number in self._committer.state.catalog.retired
            ]
        return tasks

    def _migrations(
        self, collection: str | None, progress: Progress | None, stop: Callable[[], bool]
    ) -> list[_Task]:
        return [
            _Task(
                ("migration", schema.definition.number),
                f"the migration of collection {schema.name!r}",
                partial(self._migrator.run, schema, progress, stop),
                partial(self._is_migrating, schema, schema.upgrades),
                needs_checkpoint=False,
            )
            for schema in self._migrator.pending()
            if collection in (None, schema.name)
        ]

    def _splits(
        self, collection: str | None, progress: Progress | None, stop: Callable[[], bool]
    ) -> list[_Task]:
        return [
            _Task(
                ("split", schema.definition.number),
                f"the move of vectors out of the documents of collection {schema.name!r}",
                partial(self._split, schema, progress, stop),
                partial(self._is_splitting, schema),
            )
            for schema in self.unsplit()
            if collection in (None, schema.name)
        ]

    def _run(
        self,
        list_tasks: Callable[[], list[_Task]],
        stop: Callable[[], bool],
        *,
        in_background: bool = False,
    ) -> dict[Hashable, Exception]:
        """Does each task, and those that become possible by it, once; returns the errors."""
        failed: dict[Hashable, Exception] = {}
        with long_work():
            while not stop():
                # Listed before the checkpoint: an index declared after it needs the next one,
                # since commits from before its Lsn may still be in the memtable.
                tasks = [task for task in list_tasks() if task.key not in failed]
                if not tasks:
                    break
                if any(task.needs_checkpoint for task in tasks):
                    self._checkpointer.run()
                if failpoints.on:
                    failpoints.reach("index.declared")
                for task in tasks:
                    if stop():
                        break
                    try:
                        self._checkpointer.with_room(task.run)
                    except Exception as error:
                        failed[task.key] = error
                        self._failures.note(
                            task.key, task.name, error,
                            is_pending=task.is_pending, is_logged=in_background,
                        )  # fmt: skip
        return failed

    def _is_pending(self, index: AnyIndex) -> bool:
        return any(other.number == index.number for _, other in self.pending())

    def _is_retired(self, number: int) -> bool:
        return number in self._committer.state.catalog.retired

    def _is_migrating(self, schema: Schema, upgrades: Upgrades) -> bool:
        """Whether the collection is still to be migrated, by these functions."""
        return any(
            other.definition.number == schema.definition.number and other.upgrades == upgrades
            for other in self._migrator.pending()
        )

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
                    count, more = build_chunk(store, schema, index)
                    self._checkpointer.note_rows([index.prefix])
                    if failpoints.on:
                        failpoints.reach("index.chunk-written")
            if failpoints.on:
                failpoints.reach("index.chunk-committed")
            done += count
            if progress is not None:
                progress(index.spec.name, done)
            self._checkpointer.relieve()
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

    def _is_unsplit(self, schema: Schema) -> bool:
        definition = schema.definition
        built = self._committer.state.built
        has_keyspace = definition.vector_keyspace and not definition.split_from
        return bool(has_keyspace) and definition.vector_keyspace not in built

    def _is_splitting(self, schema: Schema) -> bool:
        """_is_unsplit() of the collection as it is declared now."""
        number = schema.definition.vector_keyspace
        return any(each.definition.vector_keyspace == number for each in self.unsplit())

    def _split(self, schema: Schema, progress: Progress | None, stop: Callable[[], bool]) -> None:
        """Splits the documents that LMDB has whole; a checkpoint has run after the declaration."""
        mark = prefix_of(schema.definition.vector_keyspace)
        done, more = 0, True
        while more:
            with self._checkpointer.mutex:
                if stop() or not self._is_splitting(schema):
                    return
                with self._committer.store.write() as store:
                    count, more = split_chunk(store, schema)
                    if not more:
                        store.delete(BUILDING + mark)
                        store.put(BUILT + mark, b"1")
                    if failpoints.on:
                        failpoints.reach("split.chunk-written")
                ended = frozenset[int]() if more else {schema.definition.vector_keyspace}
                self._committer.checkpoint_applied(self._committer.state.built | ended)
            if failpoints.on:
                failpoints.reach("split.chunk-committed")
            done += count
            if progress is not None:
                progress(schema.name, done)
            self._checkpointer.relieve()

    def _has_older(self, schema: Schema) -> bool:
        """Whether a collection has older indexes, and all that it declares are built."""
        return bool(schema.older) and schema.migration is None and not self.pending_of(schema)

    def _is_renewing(self, schema: Schema) -> bool:
        """_has_older() of the collection as it is declared now."""
        newest = self._committer.state.catalog.schemas.get(schema.name)
        return newest is not None and newest.older == schema.older and self._has_older(newest)

    def _drop_older(self, schema: Schema) -> None:
        with OneCommit(self._committer) as batch:
            if not self._is_renewing(schema):  # dropped or declared anew meanwhile
                return
            batch.catalog = batch.view.catalog.without_older(batch, schema)
            if failpoints.on:
                failpoints.reach("replace.before-catalog")
        self._searchers.forget(self._committer.state.catalog.retired)

    def _purge(self, number: int) -> None:
        prefix = prefix_of(number)
        removed = chunk = index_chunks.CHUNK
        while removed == chunk:
            with self._checkpointer.mutex:
                with self._committer.store.write() as store:
                    removed = store.delete_range(prefix, end_of(prefix), chunk)
                    if failpoints.on:
                        failpoints.reach("purge.chunk-deleted")
                    if removed < chunk:
                        for mark in (BUILT, BUILDING, MULTI, LOSSY):
                            store.delete(mark + prefix)
                state = self._committer.state
                self._committer.checkpoint_applied(state.built - {number})
                if failpoints.on:
                    failpoints.reach("purge.chunk-committed")
            self._checkpointer.relieve()
        with OneCommit(self._committer) as batch:
            batch.catalog = batch.view.catalog.purged(number)
            batch.catalog.save_counters(batch)
            if failpoints.on:
                failpoints.reach("purge.before-catalog")


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
