"""A handle: what one amberdb.open() gives. The Database, its collections, its transactions and its
snapshots share it.

Invariants:
- After close() every use of the engine through this handle raises ClosedError, whether or not other
  handles keep the engine open. Hot paths need no check for it: the engine is swapped for an object
  that raises.
- close() returns once no transaction of this handle is open, and with its snapshots closed.
- A handle that is garbage collected while it is open warns, and gives its share of the engine back
  in another thread: the collector may run at any place, whatever lock that place holds.
"""

import warnings
from collections.abc import Callable
from typing import Any, Final, NoReturn, final

from amberdb._call_lock import CallLock
from amberdb._errors import ClosedError, ReadOnlyError
from amberdb.engine.commit.committer import Committer
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.following import FollowingEngine

AnyEngine = Engine | FollowingEngine


class _Closed:
    """In place of the engine and the committer of a closed handle."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError("the database is closed: open it again")


_CLOSED: Final[Any] = _Closed()


@final
class Share:
    """The right of one handle to an engine."""

    __slots__ = ("engine",)

    def __init__(self, engine: AnyEngine) -> None:
        self.engine = engine


@final
class Handle:
    """One share of an engine. Threads may share it."""

    def __init__(
        self,
        share: Share,
        give_back: Callable[[Share], None],
        forget: Callable[[Share], None],
    ) -> None:
        """`give_back` ends the share; it raises as Engine.close() does, and may be repeated.
        `forget` has another thread do that."""
        engine = share.engine
        self._share = share
        self.path = engine.path
        self.options = engine.options
        self.engine: AnyEngine = engine
        self.committer: Committer | None = engine.committer if isinstance(engine, Engine) else None
        """None with read_only=True."""
        self.is_read_only = self.committer is None
        self.has_transaction = False
        """A transaction of this handle is open."""
        self._give_back = give_back
        self._forget = forget
        self._closing = CallLock()

    @property
    def is_closed(self) -> bool:
        engine = self.engine
        return engine is _CLOSED or engine.is_closed

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError, and TransactionError in a thread that has a transaction
        open."""
        self.engine.check_open()

    def writing(self, verb: str) -> Engine:
        """The open engine, for a method that writes. Raises ReadOnlyError, ClosedError,
        ForkedError, and TransactionError in a thread that has a transaction open."""
        self.engine.check_open()
        return self.writer(verb)

    def writer(self, verb: str) -> Engine:
        """The engine, for a method that writes later. Raises ReadOnlyError."""
        engine = self.engine
        if isinstance(engine, FollowingEngine):
            raise ReadOnlyError(
                f"{self.path} was opened with read_only=True: call {verb}() in the process that "
                "writes, or open it to write",
                path=self.path,
            )
        return engine

    def close(self) -> None:
        """A second call does nothing. Raises as Engine.close() does."""
        with self._closing:
            engine, committer = self.engine, self.committer
            if self.is_closed:
                return
            if self.has_transaction and committer is not None:
                committer.check_outside()
            self.engine = self.committer = _CLOSED
            try:
                if self.has_transaction and committer is not None:
                    committer.await_writer()
                self._give_back(self._share)
            except BaseException:
                if not engine.is_closed:
                    self.engine, self.committer = engine, committer
                raise
            engine.held_views.close_of(self)
            if committer is not None:
                committer.wake_followers()

    def __del__(self) -> None:
        if not self.is_closed:
            self._forget(self._share)
            warnings.warn(
                f"{self.path} was not closed: call close(), or open it in a `with` block",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
