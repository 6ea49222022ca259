"""Expiry: removal of expired documents, which reads no longer see.

Invariants:
- Each removal is an ordinary logged delete, in commits of bounded size. Expired documents are found
  in the expiry index, so the cost depends on their number, not on the size of the collection.
"""

import time
from collections.abc import Callable

from amberdb import _failpoints as failpoints
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import KIND_EXPIRY
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.schema.keyspace import end_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

_SIGN = 1 << 63


class ExpiryWorker:
    """Removes expired documents: step() in the background thread, expire() for db.expire()."""

    def __init__(self, committer: Committer, options: Options) -> None:
        self._committer = committer
        self._batch = max(1, options.reap_batch)
        self._grace_s = options.reap_grace_ms / 1000
        self._mark: tuple[float, int] | None = None
        """(monotonic time, clock at that time): documents expired by that clock are removed after
        the grace period."""

    def expire(self, until_us: int, stop: Callable[[], bool] = lambda: False) -> int:
        """Removes the documents that expired by `until_us`. Returns their number."""
        removed = 0
        for name in list(self._committer.state.catalog.schemas):
            count, after = self._batch, b""
            while count == self._batch and not stop():
                count, after = self._expire_batch(name, until_us, after)
                removed += count
        return removed

    def step(self, stop: Callable[[], bool]) -> float | None:
        """Marks the time when a document has expired; after the grace period removes the documents
        that had expired at the mark. Returns the seconds until the next call; None: no document
        has expired."""
        now = time.monotonic()
        if self._mark is None:
            clock_us = self._committer.now_us()
            if self.next_expiry_us() > clock_us:
                return None
            self._mark = (now, clock_us)
        left_s = self._mark[0] + self._grace_s - now
        if left_s > 0:
            return left_s
        self.expire(min(self._mark[1], self._committer.now_us()), stop)
        self._mark = None
        return 0.0 if self.next_expiry_us() <= self._committer.now_us() else None

    def next_expiry_us(self) -> int:
        """The earliest expiry time of any document; NEVER if no document expires."""
        earliest = NEVER
        with self._committer.view() as view:
            for schema in view.catalog.schemas.values():
                prefix = schema.expiry_prefix
                for key, _ in view.scan(prefix, end_of(prefix)):
                    expires_us = int.from_bytes(key[KEYSPACE_BYTES : KEYSPACE_BYTES + 8]) - _SIGN
                    earliest = min(earliest, expires_us)
                    break
        return earliest

    def _expire_batch(self, name: str, until_us: int, after: bytes) -> tuple[int, bytes]:
        """Removes one batch in one commit: (documents removed, position to continue after)."""
        count = 0
        with OneCommit(self._committer) as batch:
            batch.kind = KIND_EXPIRY
            schema = batch.view.catalog.schemas.get(name)
            if schema is not None and schema.expires_at is not None:
                count, after = batch.remove_expired(schema, until_us, self._batch, after)
            if failpoints.on:
                failpoints.reach("expiry.before-commit")
        if failpoints.on:
            failpoints.reach("expiry.committed")
        return count, after
