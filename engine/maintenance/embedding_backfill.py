"""Embedding backfill: pending documents get their vectors, by embed_missing() or in the background.

    queue of a Vector index -> texts in batches -> embedder -> one transaction for a batch

Invariants:
- The embedder is called outside the writer lock; a document that has changed meanwhile, or is
  gone, is left alone.
- In the background one text that cannot be embedded holds up no other, and an embedder that is
  down is asked a few times, and again after a pause that doubles.
- The thread starts when something may wait for an embedder with `defer=True`, and ends when
  nothing does.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, final

from amberdb._errors import AmberError, EmbeddingError
from amberdb._worker import Worker
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.search.embedding import BATCH, Embedder, Embedders
from amberdb.engine.storage.view import live, schema_of
from amberdb.index.ordered.keys import KEYSPACE_BYTES

logger = logging.getLogger("amberdb.engine")

FAILURES_MAX: Final = 8
"""One after the other, and the embedder is taken to be down: one more than it takes to find the
one bad text of a batch."""
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 300.0

_Pending = tuple[bytes, str, str]
"""(place in the queue, id, text)"""


def backfill(
    committer: Committer,
    embedders: Embedders,
    collection: str,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Embeds every pending document of a collection; how many there were. Raises
    EmbeddingError."""
    count = 0
    for embedder in embedders.of(collection):
        for batch in _batches(committer, embedder, b""):
            count += _store(committer, embedder, batch)
            if progress is not None:
                progress(count)
    return count


@final
class EmbeddingWorker:
    """The worker that embeds the pending documents of embedders with `defer=True`."""

    def __init__(self, committer: Committer, embedders: Embedders, *, background: bool) -> None:
        self._committer = committer
        self._embedders = embedders
        self._worker = Worker("amberdb-embedding", self._step)
        self._pause_s = PAUSE_S
        self._places: dict[bytes, bytes] = {}
        """By queue: the place after which the next round begins."""
        if background:
            embedders.on_pending = self._worker.wake

    def close(self) -> None:
        """Ends the worker. A call of an embedder that is running is waited for, but not long: the
        vectors that it returns later find the database closed."""
        self._worker.close(PAUSE_S)

    # -- the worker --------------------------------------------------------------------------

    def _step(self) -> float | None:
        if self._round():
            self._pause_s = PAUSE_S
            return None
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        return pause_s

    def _round(self) -> bool:
        """Whether all was tried and nothing has failed."""
        failed = False
        for embedder in self._embedders.deferring():
            embedder.failure = self._tried(embedder)
            if embedder.failure is not None and not self._worker.is_closing:
                failed = True
                logger.warning(
                    "%s: documents wait for their vectors, and are tried again: %s",
                    embedder.collection,
                    embedder.failure,
                )
        return not failed

    def _tried(self, embedder: Embedder) -> Exception | None:
        """All that waits for one embedder; what went wrong, the last of it."""
        tries = _Attempt(self._committer, embedder)
        queue = embedder.queue.prefix
        try:
            for batch in _batches(self._committer, embedder, self._places.pop(queue, b"")):
                tries.store(batch)
                if self._worker.is_closing:
                    break
                if tries.is_down:
                    self._places[queue] = tries.place
                    break
        except AmberError as error:
            return error
        except Exception as error:
            logger.exception("%s: embedding failed", embedder.collection)
            return error
        return tries.failure


@dataclass(slots=True)
class _Attempt:
    """One round of one embedder."""

    committer: Committer
    embedder: Embedder
    failures: int = 0
    """One after the other."""
    failure: Exception | None = None
    place: bytes = b""
    """Of the last document that was embedded, or refused by itself."""

    @property
    def is_down(self) -> bool:
        return self.failures >= FAILURES_MAX

    def store(self, batch: list[_Pending]) -> None:
        """All of a batch but what cannot be embedded, found by halves."""
        try:
            _store(self.committer, self.embedder, batch)
        except EmbeddingError as error:
            self.failure = error
            self.failures += 1
            if len(batch) > 1:
                half = len(batch) // 2
                for some in (batch[:half], batch[half:]):
                    if not self.is_down:
                        self.store(some)
                return
        else:
            self.failures = 0
        self.place = batch[-1][0]


def _batches(committer: Committer, embedder: Embedder, after: bytes) -> Iterator[list[_Pending]]:
    """What waits, each batch as of its own moment, those behind a place first."""
    place = after
    wrapped = not after
    while True:
        place, batch = _pending(committer, embedder, place)
        if batch:
            yield batch
        if not place:
            if wrapped:
                return
            wrapped = True


def _pending(
    committer: Committer, embedder: Embedder, after: bytes
) -> tuple[bytes, list[_Pending]]:
    """Some of what waits behind a place, and the place after it; b"" after the last. While the
    queue is being built the documents themselves are read."""
    found: list[_Pending] = []
    with committer.view() as view:
        schema = view.catalog.schemas.get(embedder.collection)
        if schema is None:
            return b"", found
        is_built = view.is_built(embedder.queue)
        low = embedder.queue.prefix if is_built else schema.prefix
        pairs = list(islice(view.scan(max(low, after + b"\0"), end_of(low)), BATCH))
        for place, value in pairs:
            id = (value if is_built else place[KEYSPACE_BYTES:]).decode()
            stored = live(view, schema, id)
            text = None if stored is None else embedder.text(stored.document())
            if text is not None:
                found.append((place, id, text))
    return pairs[-1][0] if len(pairs) == BATCH else b"", found


def _store(committer: Committer, embedder: Embedder, batch: list[_Pending]) -> int:
    """Embeds the texts and stores the vectors, in one commit; the number of documents that still
    had the text. Raises EmbeddingError."""
    vectors = embedder.vectors([text for _, _, text in batch])
    count = 0
    with OneCommit(committer) as writer:
        schema = schema_of(writer.view, embedder.collection)
        for (_, id, text), vector in zip(batch, vectors, strict=True):
            stored = live(writer.view, schema, id)
            if stored is not None and embedder.text(schema.document(stored)) == text:
                writer.update(schema, id, {embedder.spec.field: vector}, None)
                count += 1
    return count
