"""The engines that this process has open, and how many handles each has.

Invariants:
- A directory has one writing engine in this process, however its path is spelled: the device and
  inode of its LOCK file, which stays open, identify it.
- An engine is closed with its last handle. open() waits for an engine that is being opened or
  closed; it never meets one that is half open.
- At interpreter exit every engine is closed. In a forked child every engine of the parent is
  abandoned, and the child opens its own.
"""

import _thread
import atexit
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias, final

from amberdb._errors import AmberError, ForkedError, OptionsDifferError
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.handle import AnyEngine, Handle
from amberdb.engine.storage.directory import lock_identity

Identity: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class _Entry:
    """An open engine, and the number of its handles."""

    identity: Identity | None
    """None: it cannot be shared."""
    handles: int = 1
    is_closing: bool = False


@final
class OpenEngines:
    """All engines of a process. Threads may share it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        """Notified when an engine was opened or closed. Guards the fields below."""
        self._opening: set[str] = set()
        """Paths that a thread is opening to write."""
        self._entries: dict[AnyEngine, _Entry] = {}
        self._forgotten: SimpleQueue[AnyEngine] = SimpleQueue()
        """Shares of handles that were garbage collected."""
        self._giving_back = threading.Lock()

    def open(self, path: str, given: Mapping[str, object], make: Callable[[], Engine]) -> Handle:
        """A handle on the engine that is open at `path`, or on the one that `make` opens.

        `given` are the options that the caller named. Raises OptionsDifferError when the open
        engine has another value of one; what `make` raises.
        """
        self._give_back_forgotten()
        path = os.path.realpath(path)
        with self._changed:
            while (engine := self._find(path)) is None and path in self._opening:
                self._changed.wait()
            if engine is not None:
                _check_options(engine, given)
                self._entries[engine].handles += 1
                return self._handle(engine)
            self._opening.add(path)
        engine = None
        try:
            engine = make()
            return self.add(engine, lock_identity(path))
        finally:
            with self._changed:
                self._opening.discard(path)
                self._changed.notify_all()

    def add(self, engine: AnyEngine, identity: Identity | None = None) -> Handle:
        """The handle of a new engine; without `identity` the engine is not shared."""
        with self._changed:
            self._entries[engine] = _Entry(identity)
        return self._handle(engine)

    def close_all(self) -> None:
        """Closes every engine, at interpreter exit."""
        for engine in list(self._entries):
            with suppress(AmberError):  # no caller is left; the log is synced as far as it went
                engine.close()

    def abandon_all(self) -> None:
        """In a forked child: makes every call on the engines of the parent raise ForkedError."""
        engines = list(self._entries)
        # New ones: a thread of the parent may have held the locks.
        self._changed, self._giving_back = threading.Condition(), threading.Lock()
        self._opening, self._entries, self._forgotten = set(), {}, SimpleQueue()
        for engine in engines:
            engine.abandon(
                ForkedError(
                    f"{engine.path} was opened before this process was forked: open it in the "
                    "child (with read_only=True while the parent has it open), or start children "
                    "with the spawn method",
                    path=engine.path,
                )
            )

    # -- inside ------------------------------------------------------------------------------

    def _handle(self, engine: AnyEngine) -> Handle:
        return Handle(engine, self._give_back, self._forget)

    def _find(self, path: str) -> AnyEngine | None:
        """The open engine of the directory at `path`; waits while it is closing."""
        while True:
            identity = lock_identity(path)
            same = [engine for engine, entry in self._entries.items() if entry.identity == identity]
            if identity is None or not same:
                return None
            (engine,) = same
            if not self._entries[engine].is_closing:
                return engine
            self._changed.wait()

    def _give_back(self, engine: AnyEngine) -> None:
        """Ends the share of a handle that is closed: see _end_share()."""
        self._give_back_forgotten()
        self._end_share(engine)

    def _end_share(self, engine: AnyEngine) -> None:
        """Ends one share of an engine, and closes it with the last. Raises as Engine.close() does;
        unless the engine is closed then, the share is kept."""
        with self._changed:
            entry = self._entries[engine]
            if entry.handles > 1:
                entry.handles -= 1
                return
            entry.is_closing = True
        try:
            engine.close()
        finally:
            with self._changed:
                entry.is_closing = False
                if engine.is_closed:
                    del self._entries[engine]
                self._changed.notify_all()

    def _forget(self, engine: AnyEngine) -> None:
        """Has another thread give a share back. Takes no lock and makes no threading.Thread: the
        garbage collector calls it, at any place."""
        self._forgotten.put(engine)
        with suppress(RuntimeError):  # no thread to be had: the next open() or close() does it
            _thread.start_new_thread(self._give_back_forgotten, ())

    def _give_back_forgotten(self) -> None:
        # The lock: open() and close() in another thread return after these shares are ended.
        with self._giving_back, suppress(Empty):
            while True:
                engine = self._forgotten.get_nowait()
                with suppress(AmberError):
                    self._end_share(engine)


def _check_options(engine: AnyEngine, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        mine = getattr(engine.options, name)
        if value != mine:
            raise OptionsDifferError(
                f"{engine.path} is open in this process with {name}={mine!r}, not {value!r}: leave "
                "the option out, or close it first",
                path=engine.path,
                option=name,
            )


open_engines: Final = OpenEngines()
atexit.register(open_engines.close_all)
os.register_at_fork(after_in_child=open_engines.abandon_all)
