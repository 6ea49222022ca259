"""The background thread of a database on a server: it removes documents that have expired, and
prunes the outbox.

    opened, or written what expires soonest, or acknowledged a change -> a step -> asleep until the
    next document has expired, or for LOOK_S: another process may have written one that does

Invariants:
- Where no document expires and there is no outbox, the thread sleeps without a timeout.
- Steps are at least `reap_interval_ms` apart. None waits for a document that is locked: it is
  passed over, and removed later.
- Work that fails is logged once, listed in stats(), and tried again after growing pauses.
- It ends with close(). A forked child has no thread.
"""

import time
from typing import Final, final

from amberdb._attempts import Overtaken
from amberdb._errors import CollectionMissingError, ReadOnlyError
from amberdb._worker import FOREVER, Worker
from amberdb.engine.failures import Failures
from amberdb.engine.options import Options
from amberdb.engine.schema.document_format import NEVER
from amberdb.postgres.care.expiry import expire, first_expiries_us
from amberdb.postgres.feed.feed import Feed
from amberdb.postgres.session import Sessions

LOOK_S: Final = 60.0
_JOB: Final = "the care of the database"
_RETRY_MAX_S: Final = 30.0


@final
class Background:
    """The care of one database by this process."""

    def __init__(self, sessions: Sessions, feed: Feed, options: Options) -> None:
        self._sessions = sessions
        self._feed = feed
        self._options = options
        self._grace_us = options.reap_grace_ms * 1000
        self._interval_s = options.reap_interval_ms / 1000
        self._step_at = 0.0
        """The next step is not before."""
        self._next_expiry_us = NEVER
        """No document that this process knows of expires before."""
        self._worker = Worker("amberdb-postgres", self._step, sessions.is_outside)
        self.failures = Failures()

    def wake(self) -> None:
        """Lets it look for what is due. Does nothing with background=False."""
        if self._options.background:
            self._worker.wake()

    def note_expiry(self, expires_us: int) -> None:
        """Called after a commit, with the time when the first of its documents expires."""
        if expires_us < self._next_expiry_us:
            self._next_expiry_us = expires_us
            self.wake()

    def close(self) -> None:
        """Returns when the thread has ended. Connections are closed by then."""
        self._worker.close()

    # -- in the background thread -------------------------------------------------------------

    def _step(self) -> float | None:
        left_s = self._step_at - time.monotonic()
        if left_s > 0:
            return left_s
        self._next_expiry_us = NEVER  # what is written from now on wakes it again
        try:
            left_s = self._care()
        except ReadOnlyError:
            return LOOK_S  # a replica, until it is promoted
        except Overtaken:
            left_s = 0.0  # by a declaration, while it looked
        except Exception as error:
            if self._sessions.connections.is_closed:
                return None
            is_new = self.failures.retry_s([_JOB]) is None
            left_s = self.failures.note(_JOB, _JOB, error, max_s=_RETRY_MAX_S, is_logged=is_new)
        else:
            self.failures.clear(_JOB)
        self._step_at = time.monotonic() + self._interval_s
        return max(left_s, self._interval_s)

    def _care(self) -> float:
        """Does what is due; the seconds until more is."""
        with self._sessions.reading() as view:
            firsts_us = first_expiries_us(view)
            due_us = view.now_us - self._grace_us
        for name, first_us in firsts_us.items():
            if first_us <= due_us:
                self._expire(name)
        has_outbox = self._sessions.catalogues.known.catalogue.outbox is not None
        if has_outbox:
            self._feed.prune()
        if not firsts_us:
            return LOOK_S if has_outbox else FOREVER
        first_us = min(firsts_us.values())
        self._next_expiry_us = min(self._next_expiry_us, first_us)
        return min((first_us - due_us) / 1_000_000, LOOK_S)

    def _expire(self, name: str) -> None:
        try:
            expire(self._sessions, name, self._grace_us)
        except CollectionMissingError:
            pass  # it was dropped, or renamed, meanwhile
