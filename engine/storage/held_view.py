"""Held views: one view for many reads, with an age limit."""

import threading
import weakref
from typing import final
from weakref import WeakSet

from amberdb.engine.database.transaction import Snapshot


def held(snapshots: "WeakSet[Snapshot]") -> list[Snapshot]:
    """Those that somebody still has; other threads take and drop some while they are listed."""
    while True:
        try:
            return list(snapshots)
        except RuntimeError:  # the set changed size
            pass


@final
class _SnapshotWatch:
    """Ends snapshots at their age limit, in a thread that runs only while there are some."""

    def __init__(self, *, background: bool) -> None:
        self._background = background
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.discard = self._snapshots.discard

    def add(self, snapshot: Snapshot) -> Snapshot:
        self._snapshots.add(snapshot)
        if self._background:
            with self._wake:
                self._wake.notify()
                if self._thread is None and not self._closing:
                    self._thread = threading.Thread(
                        target=self._run, name="amberdb-snapshots", daemon=True
                    )
                    self._thread.start()
        return snapshot

    def ages_ms(self) -> list[float]:
        return [snapshot.age_ms for snapshot in held(self._snapshots)]

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        for snapshot in held(self._snapshots):
            snapshot.close()

    def _run(self) -> None:
        while True:
            for snapshot in held(self._snapshots):
                snapshot.expire()
            with self._wake:
                left_s = [snapshot.left_s for snapshot in held(self._snapshots)]
                if self._closing or not left_s:
                    self._thread = None
                    return
                self._wake.wait(max(0.0, min(left_s)))
