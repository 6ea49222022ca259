"""Expiry: removal of expired documents, which reads no longer see.

Invariants:
- A collection whose documents cannot be removed delays no other, and is tried again.
- Each removal is an ordinary logged delete, in commits of bounded size. Expired documents are found
  in the expiry index, so the cost depends on their number, not on the size of the collection.
- A batch continues behind the one before: a scan from the start would pass all tombstones again.
- A batch need not be durable before the next one, since what comes back has expired still. The last
  one is, and all before it, when the call returns.
- While the clock is in doubt nothing is removed.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Final
from zlib import crc32

from amberdb import _failpoints as failpoints
from amberdb._bytes import CRC_RESIDUE
from amberdb._errors import CorruptionError
from amberdb._types import Document
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.clock import LOOK_AGAIN_S
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.write_batch import ReadDocument
from amberdb.engine.failures import Failures
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import KIND_EXPIRY, decode_unchecked
from amberdb.engine.schema.document_format import BODY, NEVER, damaged
from amberdb.engine.schema.expiry_index import time_of_entry
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import join
from amberdb.engine.storage.view import View

_KEY: Final = "expiry"


class ExpiryWorker:
    """Removes expired documents: step() in the background thread, expire() for db.expire()."""

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        failures: Failures,
        options: Options,
    ) -> None:
        self._committer = committer
        self._clock = committer.clock
        self._checkpointer = checkpointer
        self._failures = failures
        self._batch = max(1, options.reap_batch)
        self._grace_s = options.reap_grace_ms / 1000
        self._mark: tuple[float, int] | None = None
        """(monotonic time, clock at that time): documents expired by that clock are removed after
        the grace period."""

    def expire(
        self,
        until_us: int,
        stop: Callable[[], bool] = lambda: False,
        *,
        collection: str | None = None,
    ) -> int:
        """Removes the documents that expired by `until_us`, of all collections or of one. Returns
        their number. Raises, after all others, the first error of a collection."""
        removed = 0
        failures: list[Exception] = []
        for name in self._names() if collection is None else [collection]:
            try:
                removed += sum(self._batches(name, until_us, stop))
            except Exception as error:
                failures.append(error)
        for failure in failures:
            raise failure
        return removed

    def step(self, stop: Callable[[], bool]) -> float | None:
        """Marks the time when a document has expired; after the grace period removes the documents
        that had expired at the mark. Returns the seconds until the next call; None: no document
        has expired."""
        now = time.monotonic()
        if self._mark is None:
            if self.due_in_s(self.next_expiry_us()) > 0:
                return None
            self._mark = (now, self._clock.now_us())
        left_s = self._mark[0] + self._grace_s - now
        if left_s > 0:
            return left_s
        due_us = self._clock.due_us()
        if due_us is None:
            self._mark = None
            return LOOK_AGAIN_S
        until_us = min(self._mark[1], due_us)
        for name in self._names_due():
            try:
                sum(self._batches(name, until_us, stop))
            except Exception as error:
                job = f"the removal of expired documents of collection {name!r}"
                exists = partial(self._exists, name)
                self._failures.note((_KEY, name), job, error, is_pending=exists)
            else:
                self._failures.clear((_KEY, name))
        self._mark = None
        return 0.0 if self.due_in_s(self.next_expiry_us()) <= 0 else None

    def due_in_s(self, expires_us: int) -> float:
        """Seconds until a document that expires at this time is due; while the clock is in doubt,
        until the next look at it."""
        due_us = self._clock.due_us()
        return LOOK_AGAIN_S if due_us is None else max(0.0, (expires_us - due_us) / 1_000_000)

    def next_expiry_us(self) -> int:
        """The earliest expiry time of any document, without those of collections that have failed
        and are to be tried later; NEVER if no document expires."""
        earliest = NEVER
        names = self._names_due()
        with self._committer.view() as view:
            for name in names:
                schema = view.catalog.schemas.get(name)
                if schema is None:
                    continue
                prefix = schema.expiry_prefix
                for key, _ in view.scan(prefix, end_of(prefix)):
                    expires_us = time_of_entry(key)
                    earliest = min(earliest, expires_us)
                    break
        return earliest

    def retry_s(self) -> float | None:
        """Seconds until a collection that has failed is tried again; None without one."""
        return self._failures.retry_s((_KEY, name) for name in self._names())

    def _names(self) -> list[str]:
        """Of the collections whose documents can expire."""
        schemas = list(self._committer.state.catalog.schemas.values())
        return [schema.name for schema in schemas if schema.expires_at is not None]

    def _names_due(self) -> list[str]:
        return [name for name in self._names() if not self._failures.left_s((_KEY, name))]

    def _exists(self, name: str) -> bool:
        return name in self._committer.state.catalog.schemas

    def _batches(self, name: str, until_us: int, stop: Callable[[], bool]) -> Iterator[int]:
        """Removes the documents of one collection, and gives the number of each batch."""
        count, after = self._batch, b""
        while count == self._batch and not stop():
            count, after = self._expire_batch(name, until_us, after)
            yield count
            self._checkpointer.relieve()
        self._committer.await_published()

    def _expire_batch(self, name: str, until_us: int, after: bytes) -> tuple[int, bytes]:
        """Removes one batch in one commit: (documents removed, the last key in the expiry index,
        to continue after)."""
        count = 0
        with OneCommit(self._committer, "os") as batch:
            batch.kind = KIND_EXPIRY
            schema = batch.view.catalog.schemas.get(name)
            if schema is not None and schema.expires_at is not None:
                low = max(schema.expiry_prefix, after + b"\0")
                scan = batch.view.scan(low, schema.expiry_bound(until_us))
                expired = list(islice(scan, self._batch))
                if expired:
                    after = expired[-1][0]
                    count = batch.remove(schema, _documents(batch.view, schema, expired))
            if failpoints.on:
                failpoints.reach("expiry.before-commit")
        if failpoints.on:
            failpoints.reach("expiry.committed")
        return count, after


def _documents(
    view: View, schema: Schema, entries: Iterable[tuple[bytes, bytes]]
) -> Iterator[ReadDocument]:
    """The documents of entries of the expiry index. Raises CorruptionError."""
    for _, id_bytes in entries:
        key = schema.prefix + id_bytes
        value = view.get(key)
        if value is None:
            raise CorruptionError(
                f"the expiry index of {schema.name!r} has an entry of {id_bytes!r}, and that "
                "document is missing: run `amberdb check`, then restore a backup"
            )
        if crc32(value, crc32(key)) != CRC_RESIDUE:  # inline, as in scan.py
            raise damaged(key)
        document: Document = decode_unchecked(value[BODY]) if schema.all_indexes else {}
        yield key, value, join(document, schema.vectors, view.vectors_at)
