"""The migrator: stores older documents as their collection's version has them, in the background.

    declared at Lsn D -> documents from before D in batches: read, upgraded, stored by ordinary
    commits -> a commit that takes the steps out of the catalog

Invariants:
- Functions of users are called outside the writer lock, on what one view has; what was written
  meanwhile is of the new version already, and is left alone.
- A batch is one commit of bounded size, an ordinary one: replay runs no function. Interrupted
  anywhere, the next pass reads past what is done and goes on.
- The steps are taken out only after a pass that has met every document from before D, and none
  that failed.
- A document that cannot be upgraded holds up no other one. It stays as it is, reads of it
  raise, and the pass ends with its error.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from amberdb import _failpoints as failpoints
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
from amberdb.engine.schema.migration import Migration, Upgrades, failed
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.engine.storage.view import View

logger = logging.getLogger("amberdb.engine")

CHUNK = 500
_BYTES: Final = 4 << 20
"""Of documents in one commit, about."""
_READ: Final = 20_000
"""Documents of one view at most: it keeps LMDB from reusing pages."""
_NAMED_MAX: Final = 10
"""Failed documents that are named in the log."""

_Due = tuple[StoredDocument, Prepared]


@final
class Migrator:
    """Owned by the Database; run by engine/maintenance/index_build.py, before indexes are built."""

    def __init__(self, committer: Committer, checkpointer: Checkpointer, options: Options) -> None:
        self._committer = committer
        self._checkpointer = checkpointer
        self._options = options
        self._mutex = threading.Lock()
        self._failed: dict[int, Upgrades] = {}
        """By collection, the functions with which the last pass did not come to its end."""
        self.read: dict[str, int] = {}
        """By collection, while a pass runs: documents that it has met."""

    def pending(self) -> list[Schema]:
        """Collections with older documents whose functions are all there."""
        return [
            schema
            for schema in self._committer.state.catalog.schemas.values()
            if schema.migration is not None and not schema.migration.missing
        ]

    def has_failed(self, schema: Schema) -> bool:
        """Whether it waits with functions that have failed: the background leaves it alone."""
        migration = schema.migration
        failed = self._failed.get(schema.definition.number)
        return migration is not None and failed == migration.upgrades

    def run(
        self, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """One pass over each collection that waits. Raises MigrationError, the first, when
        documents could not be upgraded; all others were. StorageError, BusyError."""
        self._committer.check_outside()
        failures: list[MigrationError] = []
        with self._mutex:
            for schema in self.pending():
                if not stop():
                    found = _Pass(self._committer, schema, self._options)
                    try:
                        self._run(found, progress, stop)
                    finally:
                        self.read.pop(schema.name, None)
                    self._failed.pop(schema.definition.number, None)
                    if found.failures:
                        self._failed[schema.definition.number] = schema.upgrades
                    failures += found.failures
        if failures:
            raise failures[0]

    def finish(self, progress: Progress | None = None) -> None:
        """All that there is. Raises what run() does, and CollectionError for a collection whose
        functions this process has not been given."""
        while self.pending():
            self.run(progress)
        for schema in self._committer.state.catalog.schemas.values():
            if schema.migration is not None and schema.migration.missing:
                raise CollectionError(
                    f"collection {schema.name!r} has documents from before version "
                    f"{schema.migration.missing[0]}: declare it with version and migrate first"
                )

    def _run(self, one: "_Pass", progress: Progress | None, stop: Callable[[], bool]) -> None:
        one.begin()
        while not one.is_over and not one.is_stale and not stop():
            one.step()
            self.read[one.schema.name] = one.read
            if progress is not None:
                progress(one.schema.name, one.read)
            if self._committer.memtable_bytes >= self._options.checkpoint_bytes:
                self._checkpointer.run()  # nobody else may be there to do so
        if one.is_over and not one.is_stale and not one.failures:
            one.finish()


class _Pass:
    """Over the documents of one collection, in the order of their keys."""

    def __init__(self, committer: Committer, schema: Schema, options: Options) -> None:
        assert schema.migration is not None
        self.schema = schema
        self.failures: list[MigrationError] = []
        self.read = 0
        self.is_over = False
        self.is_stale = False
        """The collection was declared anew, renamed or dropped meanwhile: another pass is due."""
        self._migration: Migration = schema.migration
        self._committer = committer
        self._bytes_max = min(_BYTES, options.transaction_bytes_max // 8)
        self._place = schema.prefix

    def begin(self) -> None:
        """What was committed before the declaration may wait for its sync: an empty commit waits
        for it, so that every view from here on has it."""
        self._committer.await_published()

    def step(self) -> None:
        """One batch."""
        with self._committer.view() as view:
            found = [] if self._is_changed(view) else self._next(view)
        due: list[_Due] = []
        for stored in found:
            try:
                due.append((stored, self.schema.upgraded(stored)))
            except MigrationError as error:
                self._note(error)
        if failpoints.on:
            failpoints.reach("migration.upgraded")
        if due:
            self._store(due)

    def _next(self, view: View) -> list[StoredDocument]:
        """The next older documents of a view."""
        found: list[StoredDocument] = []
        size = read = 0
        for key, value in view.scan(self._place + b"\0", end_of(self.schema.prefix)):
            read += 1
            self._place = key
            if self._migration.is_due(value):
                found.append(unpack(key, value))
                size += len(value)
            if len(found) >= CHUNK or size >= self._bytes_max or read >= _READ:
                break
        else:
            self.is_over = True
        self.read += read
        return found

    def _is_changed(self, view: View) -> bool:
        self.is_stale = view.catalog.schemas.get(self.schema.name) is not self.schema
        return self.is_stale

    def _store(self, due: list[_Due]) -> None:
        """In one commit, or in smaller ones where one of them is refused."""
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
        """Stores halves, down to the document that is refused."""
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
        """All are of the newest version: the catalog says so from here on."""
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
