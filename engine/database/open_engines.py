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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, TypeAlias, final

from amberdb._call_lock import CallLock, Signal, current_frame, has_ended
from amberdb._errors import AmberError, ForkedError, OptionsDifferError
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.handle import AnyEngine, Handle, Share
from amberdb.engine.storage.directory import lock_identity

Identity: TypeAlias = tuple[int, int]
_LOOK_S: Final = 0.1
"""The longest time after which open() looks for a call that was interrupted."""


@dataclass(slots=True)
class _Entry:
    """An open engine, and the shares that handles have in it."""

    identity: Identity | None
    """None: it cannot be shared."""
    shares: set[Share] = field(default_factory=set[Share])
    closing: FrameType | None = None
    """The call that closes it."""


@final
class OpenEngines:
    """All engines of a process. Threads may share it."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        """Guards the fields below."""
        self._changed = Signal()
        """Announced when an engine was opened or closed."""
        self._opening: dict[str, FrameType] = {}
        """Paths that are being opened to write, and the calls that do it."""
        self._entries: dict[AnyEngine, _Entry] = {}
        self._forgotten: SimpleQueue[Share] = SimpleQueue()
        """Shares of handles that were garbage collected."""
        self._giving_back = CallLock()

    def open(self, path: str, given: Mapping[str, object], make: Callable[[], Engine]) -> Handle:
        """A handle on the engine that is open at `path`, or on the one that `make` opens.

        `given` are the options that the caller named. Raises OptionsDifferError when the open
        engine has another value of one; what `make` raises.
        """
        self._give_back_forgotten()
        path = os.path.realpath(path)
        while (handle := self._shared(path, given, current_frame())) is None:
            self._changed.wait_for(lambda: not self._is_in_between(path), _LOOK_S)
        if isinstance(handle, Handle):
            return handle
        engine = None
        try:
            engine = make()
            return self.add(engine, lock_identity(path))
        except BaseException:
            if engine is not None and engine not in self._entries:  # an interruption
                engine.close()
            raise
        finally:
            self._opening.pop(path, None)
            self._changed.announce()

    def add(self, engine: AnyEngine, identity: Identity | None = None) -> Handle:
        """The handle of a new engine; without `identity` the engine is not shared."""
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
        self._mutex, self._giving_back, self._changed = CallLock(), CallLock(), Signal()
        self._opening, self._entries, self._forgotten = {}, {}, SimpleQueue()
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
        share = Share(engine)
        self._entries[engine].shares.add(share)
        return Handle(share, self._give_back, self._forget)

    def _shared(
        self, path: str, given: Mapping[str, object], opening: FrameType
    ) -> Handle | FrameType | None:
        """A handle on the open engine of the directory; `opening` when that call is to open it;
        None while another one opens or closes it."""
        with self._mutex:
            if self._is_in_between(path):
                return None
            engine = self._find(path)
            if engine is None:
                self._opening[path] = opening
                return opening
            _check_options(engine, given)
            return self._handle(engine)

    def _is_in_between(self, path: str) -> bool:
        """Whether a call opens or closes the engine of the directory at the moment."""
        opening = self._opening.get(path)
        if opening is not None and not has_ended(opening):
            return True
        engine = self._find(path)
        closing = None if engine is None else self._entries[engine].closing
        return closing is not None and not has_ended(closing)

    def _find(self, path: str) -> AnyEngine | None:
        """The engine of the directory at `path`."""
        identity = lock_identity(path)
        if identity is None:
            return None
        for engine, entry in list(self._entries.items()):
            if engine.is_closed:  # the call that closed it was interrupted
                self._entries.pop(engine, None)
            elif entry.identity == identity:
                return engine
        return None

    def _give_back(self, share: Share) -> None:
        """Ends the share of a handle that is closed: see _end()."""
        self._give_back_forgotten()
        self._end(share)

    def _end(self, share: Share) -> None:
        """Ends a share of an engine, and closes it with the last. Raises as Engine.close() does;
        unless the engine is closed then, the last share is kept. May be repeated."""
        engine = share.engine
        with self._mutex:
            entry = self._entries.get(engine)
            if entry is None:
                return
            if entry.shares != {share}:
                entry.shares.discard(share)
                return
            entry.closing = current_frame()
        try:
            engine.close()
        finally:
            entry.closing = None
            if engine.is_closed:
                self._entries.pop(engine, None)
            self._changed.announce()

    def _forget(self, share: Share) -> None:
        """Has another thread give a share back. Takes no lock and makes no threading.Thread: the
        garbage collector calls it, at any place."""
        self._forgotten.put(share)
        with suppress(RuntimeError):  # no thread to be had: the next open() or close() does it
            _thread.start_new_thread(self._give_back_forgotten, ())

    def _give_back_forgotten(self) -> None:
        # The lock: open() and close() in another thread return after these shares are ended.
        with self._giving_back, suppress(Empty):
            while True:
                share = self._forgotten.get_nowait()
                with suppress(AmberError):
                    self._end(share)


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
