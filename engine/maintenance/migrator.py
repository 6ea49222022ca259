"""The migrator: upgrades stored documents to the version of their collection, in the background.

    declared at Lsn D -> documents from before D in batches: read, upgraded, stored by ordinary
    commits -> a commit that removes the steps from the catalog

Invariants:
- Functions of users are called outside the writer lock, on the documents of one view. A document
  written meanwhile has the new version already, and is skipped.
- A batch is one ordinary commit of bounded size: replay calls no function. After an interruption
  the next pass skips the documents that are done.
- The steps are removed only after a pass that has read every document from before D without a
  failure.
- A document that cannot be upgraded does not stop the others. It stays unchanged, reads of it
  raise, and the pass ends with its error.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import (
    AmberError,
    CollectionError,
    DocumentError,
    MigrationError,
    TransactionTooLargeError,
)
from amberdb._types import Progress
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.options import Options
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.migration import Migration, failed
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.engine.schema.split_document import no_vectors, whole
from amberdb.engine.storage.view import View

logger = logging.getLogger("amberdb.engine")

CHUNK = 500
_BYTES: Final = 4 << 20
"""The approximate size of the documents in one commit."""
_READ: Final = 20_000
"""The most documents read in one view: a long view keeps LMDB from reusing pages."""
_NAMED_MAX: Final = 10
"""The most failed documents that are logged in one pass."""

_Due = tuple[StoredDocument, Prepared]


@final
class Migrator:
    """Migrates collections; engine/maintenance/index_build.py runs it before indexes are built."""

    def __init__(self, committer: Committer, checkpointer: Checkpointer, options: Options) -> None:
        self._committer = committer
        self._checkpointer = checkpointer
        self._options = options
        self._mutex = CallLock()
        self.read: dict[str, int] = {}
        """By collection, while a pass runs: the number of documents read."""

    def pending(self) -> list[Schema]:
        """Collections with older documents for which this process has all functions."""
        return [
            schema
            for schema in self._committer.state.catalog.schemas.values()
            if schema.migration is not None and not schema.migration.missing
        ]

    def run(self, schema: Schema, progress: Progress | None, stop: Callable[[], bool]) -> None:
        """One pass over a pending collection. Raises the first MigrationError when documents could
        not be upgraded, after all others were; StorageError, BusyError."""
        self._committer.check_outside()
        with self._mutex:
            current = _Pass(self._committer, schema, self._options)
            try:
                self._run(current, progress, stop)
            finally:
                self.read.pop(schema.name, None)
        if current.failures:
            raise current.failures[0]

    def check_functions(self) -> None:
        """Raises CollectionError for a collection for which this process has no functions."""
        for schema in self._committer.state.catalog.schemas.values():
            if schema.migration is not None and schema.migration.missing:
                raise CollectionError(
                    f"collection {schema.name!r} has documents from before version "
                    f"{schema.migration.missing[0]}: declare it with version= and migrate= first"
                )

    def _run(self, current: "_Pass", progress: Progress | None, stop: Callable[[], bool]) -> None:
        current.begin()
        while not current.is_over and not current.is_stale and not stop():
            current.step()
            self.read[current.schema.name] = current.read
            if progress is not None:
                progress(current.schema.name, current.read)
            self._checkpointer.relieve()
        if current.is_over and not current.is_stale and not current.failures:
            current.finish()


class _Pass:
    """One pass over the documents of a collection, in the order of their keys."""

    def __init__(self, committer: Committer, schema: Schema, options: Options) -> None:
        assert schema.migration is not None
        self.schema = schema
        self.failures: list[MigrationError] = []
        self.read = 0
        self.is_over = False
        self.is_stale = False
        """The collection was declared again, renamed or dropped meanwhile: another pass is due."""
        self._migration: Migration = schema.migration
        self._committer = committer
        self._bytes_max = min(_BYTES, options.transaction_bytes_max // 8)
        self._position = schema.prefix

    def begin(self) -> None:
        """Waits until commits from before the declaration are synced, so that every later view
        includes them."""
        self._committer.await_published()

    def step(self) -> None:
        """Upgrades one batch."""
        with self._committer.view() as view:
            batch = [] if self._is_changed(view) else self._next(view)
        due: list[_Due] = []
        for stored in batch:
            try:
                due.append((stored, self.schema.upgraded(stored, no_vectors)))
            except MigrationError as error:
                self._note(error)
        if failpoints.on:
            failpoints.reach("migration.upgraded")
        if due:
            self._store(due)

    def _next(self, view: View) -> list[StoredDocument]:
        """The next documents of an older version."""
        batch: list[StoredDocument] = []
        size = read = 0
        for key, value in view.scan(self._position + b"\0", end_of(self.schema.prefix)):
            read += 1
            self._position = key
            if self._migration.is_due(value):
                value = whole(key, value, view.vectors_at)
                batch.append(unpack(key, value))
                size += len(value)
            if len(batch) >= CHUNK or size >= self._bytes_max or read >= _READ:
                break
        else:
            self.is_over = True
        self.read += read
        return batch

    def _is_changed(self, view: View) -> bool:
        self.is_stale = view.catalog.schemas.get(self.schema.name) is not self.schema
        return self.is_stale

    def _store(self, due: list[_Due]) -> None:
        """Stores the documents in one commit, or in smaller ones when it is refused."""
        try:
            with OneCommit(self._committer) as batch:
                if not self._is_changed(batch.view):
                    for stored, prepared in due:
                        batch.upgrade(self.schema, stored, prepared)
                if failpoints.on:
                    failpoints.reach("migration.before-commit")
        except (DocumentError, TransactionTooLargeError) as error:
            self._retry(due, error)
            return
        if failpoints.on:
            failpoints.reach("migration.committed")

    def _retry(self, due: list[_Due], error: AmberError) -> None:
        """Stores each half, down to the document that is refused."""
        if len(due) > 1:
            half = len(due) // 2
            self._store(due[:half])
            self._store(due[half:])
            return
        id, (version, _) = due[0][1].id, self._migration.steps[-1]
        self._note(
            failed(
                self.schema.name, id, version, f"returned a document that cannot be stored: {error}"
            )
        )

    def finish(self) -> None:
        """Removes the steps from the catalog: all documents have the newest version."""
        # A get() goes by the newest catalog: what the pass skipped as new has to be visible.
        self._committer.await_published()
        with OneCommit(self._committer) as batch:
            if not self._is_changed(batch.view):
                definition = replace(self.schema.definition, steps=())
                batch.view.catalog.save(batch, definition)
                batch.catalog = batch.view.catalog.replaced(self.schema.redefined(definition))
            if failpoints.on:
                failpoints.reach("migration.before-end")
        if failpoints.on:
            failpoints.reach("migration.ended")

    def _note(self, error: MigrationError) -> None:
        if len(self.failures) < _NAMED_MAX:
            logger.warning("%s", error)
            self.failures.append(error)
