"""Held views: a view that a Snapshot keeps for many reads, and the age limit that ends it.

Invariants:
- While a view is open LMDB reuses no page that it may read. So a held view has an age limit, past
  which reads raise SnapshotExpiredError.
- A view is never closed while a thread reads through it.
- A handle has at most `snapshots_max` held views: each takes a slot of LMDB's reader table, and
  other processes need slots too.
"""

import sys
import time
from collections.abc import Callable
from typing import final
from weakref import WeakSet

from amberdb._call_lock import CallLock, current_frame
from amberdb._errors import (
    ClosedError,
    ReadersFullError,
    SnapshotExpiredError,
    SnapshotLimitError,
)
from amberdb._types import Lsn
from amberdb._worker import Worker
from amberdb.engine.options import Options
from amberdb.engine.storage.view import View


@final
class HeldView:
    """A view with an age limit. Threads may share it; one of them reads at a time."""

    def __init__(
        self,
        view: View,
        max_age_ms: int,
        owner: object,
        origin: str,
        release: Callable[[], object],
        closed: "Callable[[HeldView], None]",
    ) -> None:
        """`origin` is the line that asked for it. `release` and `closed` are called once the view
        is closed."""
        self._view = view
        self.owner = owner
        self.origin = origin
        self._release = release
        self._closed = closed
        self._max_age_ms = max_age_ms
        self._began = time.monotonic()
        self._mutex = CallLock()
        self._failure: type[ClosedError] | type[SnapshotExpiredError] | None = None
        self.lsn: Lsn = Lsn(view.lsn)

    @property
    def is_closed(self) -> bool:
        return self._failure is not None

    @property
    def age_ms(self) -> float:
        return (time.monotonic() - self._began) * 1000

    @property
    def left_s(self) -> float:
        """Seconds until the age limit."""
        return self._max_age_ms / 1000 - (time.monotonic() - self._began)

    def __enter__(self) -> View:
        """The view, for one call. Raises ClosedError, SnapshotExpiredError."""
        self.expire()
        frame = current_frame(1)
        self._mutex.acquire(frame)
        if self._failure is not None:
            self._mutex.release(frame)
            raise self._failure(
                f"the snapshot was open for more than {self._max_age_ms} ms: take a new one"
                if self._failure is SnapshotExpiredError
                else "the snapshot is closed: use it inside its `with` block"
            )
        return self._view

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raises the typed form of an LMDB error."""
        self._mutex.release(current_frame(1))
        if error is not None:
            self._view.raise_typed(error)

    def close(self) -> None:
        """Closes the view; later reads raise ClosedError."""
        self._end(ClosedError)

    def expire(self) -> None:
        """Closes the view when it is older than its limit."""
        if self.age_ms > self._max_age_ms:
            self._end(SnapshotExpiredError)

    def _end(self, failure: type[ClosedError] | type[SnapshotExpiredError]) -> None:
        with self._mutex:  # not while another thread reads
            if self._failure is not None:
                return
            self._failure = failure
            self._view.close()
            self._release()
        self._closed(self)


@final
class HeldViews:
    """The held views of an open database, and the worker that closes them at their age limit.

    Without `background` a view is closed by the first read after its limit."""

    def __init__(self, options: Options) -> None:
        self._views: WeakSet[HeldView] = WeakSet()
        self._max = options.snapshots_max
        self._worker = Worker("amberdb-snapshots", self._step) if options.background else None

    def hold(
        self,
        take: Callable[[], View],
        max_age_ms: int,
        owner: object,
        release: Callable[[], object],
    ) -> HeldView:
        """Takes a view and holds it for `owner`, with this age limit. `release` drops what else was
        kept for it, when it is closed. Raises SnapshotLimitError, and what `take` raises;
        ReadersFullError names the oldest view held here too."""
        if len(self._views) >= self._max:
            self._make_room(owner)
        try:
            view = take()
        except ReadersFullError as error:
            oldest = max(self._open(), key=_age_of, default=None)
            if oldest is None:
                raise
            raise ReadersFullError(
                f"{error.message}; {_described(oldest)}", **error.facts
            ) from None
        held = HeldView(view, max_age_ms, owner, _origin(), release, self._views.discard)
        self._views.add(held)
        if self._worker is not None:
            self._worker.wake()
        return held

    def ages_ms(self) -> list[float]:
        """The ages of the open views."""
        return [view.age_ms for view in self._open()]

    def close_of(self, owner: object) -> None:
        """Closes the views of one owner."""
        for view in self._open():
            if view.owner is owner:
                view.close()

    def close(self) -> None:
        """Closes all views."""
        if self._worker is not None:
            self._worker.close()
        for view in self._open():
            view.close()

    def _step(self) -> float | None:
        """Closes views past their limit; returns the seconds until the next one reaches it."""
        for view in self._open():
            view.expire()
        left_s = [view.left_s for view in self._open()]
        return max(0.0, min(left_s)) if left_s else None

    def _make_room(self, owner: object) -> None:
        """Closes the views past their limit. Raises SnapshotLimitError when the owner still has as
        many as it may have."""
        for view in self._open():
            view.expire()
        own = [view for view in self._open() if view.owner is owner]
        if len(own) < self._max:
            return
        oldest = max(own, key=_age_of, default=None)
        which = "" if oldest is None else f"; {_described(oldest)}"
        raise SnapshotLimitError(
            f"{len(own)} snapshots are open, and snapshots_max is {self._max}: close those that "
            f"are no longer read, or use each inside a `with` block{which}",
            count=len(own),
            oldest_ms=0.0 if oldest is None else oldest.age_ms,
            oldest_at="" if oldest is None else oldest.origin,
        )

    def _open(self) -> list[HeldView]:
        while True:
            try:
                return list(self._views)
            except RuntimeError:  # another thread added or removed a view meanwhile
                pass


def _age_of(view: HeldView) -> float:
    return view.age_ms


def _described(oldest: HeldView) -> str:
    return (
        f"the oldest here, at Lsn {oldest.lsn}, was taken {oldest.age_ms / 1000:.1f} s ago at "
        f"{oldest.origin}"
    )


def _origin() -> str:
    """The line outside of AmberDB that is being called, as "file:line"."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # traceback reads source files
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("amberdb."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
