"""Embedding backfill: gives pending documents their vectors, in embed_missing() or the background.

    queue of a Vector index -> texts in batches -> embedder -> one transaction for each batch

Invariants:
- The embedder is called outside the writer lock; a document that was changed or deleted meanwhile
  is skipped.
- A text that cannot be embedded, or stored with its vector, does not delay the others. An embedder
  that is down is called FAILURES_MAX times, and in the background again after a pause that doubles,
  whatever is written meanwhile; no other embedder waits for it.
- The thread starts when a document may be pending for an embedder with `defer=True`, and ends when
  none is.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeAlias, final

from amberdb._errors import DocumentError, TransactionTooLargeError
from amberdb._worker import Worker, long_work
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.failures import Failures
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.patch import Changes
from amberdb.engine.search.embedding import BATCH, Embedder, Embedders
from amberdb.engine.storage.view import View, live, schema_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.index.vector.embedding_queue import Texts

FAILURES_MAX: Final = 8
"""After so many failures in a row an embedder counts as down. One more than it takes to find one
bad text in a batch by halving."""
PAUSE_S: Final = 1.0
"""After the first failure of an embedder; doubled after each, within limits."""

Pending: TypeAlias = tuple[bytes, str, Texts]
"""(position in the queue, id, text or texts)"""
Store: TypeAlias = Callable[[Embedder, list[Pending]], int]
"""Embeds a batch and stores it; the number of documents that still have the text."""


def backfill(
    view: Callable[[], View],
    embedders: Embedders,
    collection: str,
    store: Store,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Embeds every pending document of a collection. Returns their number. Raises the last error
    of a text, after all others were embedded, or of an embedder that is down: EmbeddingError,
    DocumentError."""
    count = 0
    failures: list[Exception] = []
    with long_work():
        for embedder in embedders.of(collection):
            attempt = _Attempt(store, embedder)
            for batch in _batches(view, embedder, b""):
                before = attempt.count
                attempt.store(batch)
                count += attempt.count - before
                if progress is not None:
                    progress(count)
                if attempt.is_down:
                    break
            if attempt.failure is not None:
                failures.append(attempt.failure)
    for failure in failures:
        raise failure
    return count


@final
class EmbeddingWorker:
    """The background worker that embeds pending documents of embedders with `defer=True`."""

    def __init__(
        self,
        committer: Committer,
        embedders: Embedders,
        failures: Failures,
        *,
        background: bool,
    ) -> None:
        self._committer = committer
        self._embedders = embedders
        self._failures = failures
        self._worker = Worker("amberdb-embedding", self._step, committer.is_outside)
        self._positions: dict[bytes, bytes] = {}
        """By queue: the position after which the next round begins."""
        if background:
            embedders.on_pending = self._worker.wake

    def close(self) -> None:
        """Ends the worker. Waits a short time for a running call of an embedder: vectors that it
        returns later find the database closed."""
        self._worker.close(PAUSE_S)

    # -- in the background thread -------------------------------------------------------------

    def _step(self) -> float | None:
        """Tries all pending documents. Returns the seconds until the next attempt at those that
        are left; None without any."""
        for embedder in self._embedders.deferring():
            key = embedder.queue.prefix
            is_down = key in self._positions
            if self._worker.is_closing or (is_down and self._failures.left_s(key)):
                continue
            embedder.failure = self._run_embedder(embedder)
            if embedder.failure is None:
                self._failures.clear(key)
            elif not self._worker.is_closing:
                self._failures.note(
                    key,
                    f"the embedding of pending documents of collection {embedder.collection!r}",
                    embedder.failure,
                    is_pending=partial(self._embedders.is_deferring, embedder),
                    first_s=PAUSE_S,
                )
        return self._failures.retry_s(e.queue.prefix for e in self._embedders.deferring())

    def _run_embedder(self, embedder: Embedder) -> Exception | None:
        """Tries all documents that are pending for one embedder. Returns the last failure."""
        attempt = _Attempt(storing(partial(OneCommit, self._committer)), embedder)
        queue = embedder.queue.prefix
        try:
            for batch in _batches(self._committer.view, embedder, self._positions.pop(queue, b"")):
                attempt.store(batch)
                if self._worker.is_closing:
                    break
                if attempt.is_down:
                    self._positions[queue] = attempt.position
                    break
        except Exception as error:
            return error
        return attempt.failure


@dataclass(slots=True)
class _Attempt:
    """The attempts with one embedder in one round."""

    put: Store
    embedder: Embedder
    count: int = 0
    """The number of documents that were given a vector."""
    failures: int = 0
    """Failures in a row."""
    failure: Exception | None = None
    position: bytes = b""
    """The position of the last document that was embedded, or refused alone."""

    @property
    def is_down(self) -> bool:
        return self.failures >= FAILURES_MAX

    def store(self, batch: list[Pending]) -> None:
        """Embeds and stores a batch; when it fails, each half of it, down to the bad text."""
        try:
            self.count += self.put(self.embedder, batch)
        except (DocumentError, TransactionTooLargeError) as error:
            self.failure = error
            self.failures += 1
            if len(batch) > 1:
                half = len(batch) // 2
                for part in (batch[:half], batch[half:]):
                    if not self.is_down:
                        self.store(part)
                return
        else:
            self.failures = 0
        self.position = batch[-1][0]


def _batches(view: Callable[[], View], embedder: Embedder, after: bytes) -> Iterator[list[Pending]]:
    """The pending documents in batches, each read in its own view. Begins after the position
    `after`, and continues with the start of the queue."""
    position = after
    wrapped = not after
    while True:
        position, batch = _pending(view, embedder, position)
        if batch:
            yield batch
        if not position:
            if wrapped:
                return
            wrapped = True


def _pending(
    view: Callable[[], View], embedder: Embedder, after: bytes
) -> tuple[bytes, list[Pending]]:
    """(position to continue after, pending documents after `after`); the position is b"" at the
    end. While the queue is being built, the documents themselves are read."""
    pending: list[Pending] = []
    with view() as source:
        schema = source.catalog.schemas.get(embedder.collection)
        if schema is None:
            return b"", pending
        is_built = source.is_built(embedder.queue)
        low = embedder.queue.prefix if is_built else schema.prefix
        pairs = list(islice(source.scan(max(low, after + b"\0"), end_of(low)), BATCH))
        for key, value in pairs:
            id = (value if is_built else key[KEYSPACE_BYTES:]).decode()
            stored = live(source, schema, id)
            text = None if stored is None else embedder.text(decode_document(stored.body))
            if text is not None:
                pending.append((key, id, text))
    return pairs[-1][0] if len(pairs) == BATCH else b"", pending


def storing(writing: Callable[[], AbstractContextManager[WriteBatch]]) -> Store:
    """Stores vectors in a commit for each batch, which `writing` begins."""

    def store(embedder: Embedder, batch: list[Pending]) -> int:
        vectors = embedder.vectors([text for _, _, text in batch])
        count = 0
        with writing() as writer:
            schema = schema_of(writer.view, embedder.collection)
            for (_, id, text), vector in zip(batch, vectors, strict=True):
                stored = live(writer.view, schema, id)
                if stored is None:
                    continue
                if embedder.text(schema.document(stored, writer.view.vectors_at)) == text:
                    writer.update(schema, id, Changes({embedder.spec.field: vector}))
                    count += 1
        return count

    return store
