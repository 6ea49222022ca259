"""Scheduled flushing: a thread that flushes a chat buffer at intervals, or in a window at night.

Invariants:
- A flush that fails is logged, and the next one follows at its time.
- When stop() returns, no flush is running and none will start.
- Where no thread can be had, saving a turn flushes what is due, and tries to start it again.
"""

import logging
import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as TimeOfDay
from typing import Final, final

from amberdb import ClosedError, NoThreadWarning
from amberdb._shared.clock import utc_now
from amberdb.chat.buffer import ChatBuffer, nothing

logger = logging.getLogger("amberdb.chat")

EVERY_S: Final = 300.0
FLUSH_FAILED: Final = "a flush failed; the next one follows at its time"


@final
class Schedule:
    """When to flush: every `every_s` seconds, and only inside a window ("02:00-04:00") if given.

    The window is in the time zone `zone`, by default the machine's; it may cross midnight.
    Raises ValueError.
    """

    def __init__(
        self, every_s: float = EVERY_S, *, window: str | None = None, zone: tzinfo | None = None
    ) -> None:
        if every_s <= 0:
            raise ValueError(f"every_s must be above 0, not {every_s!r}")
        self._every = timedelta(seconds=every_s)
        self._zone = zone
        self._window = None if window is None else _window(window)

    def next_after(self, now: datetime) -> datetime:
        """When to flush next, after a flush at `now`."""
        at = now + self._every
        if self._window is None or self._is_within(at):
            return at
        start, _ = self._window
        local = now.astimezone(self._zone)
        opens = local.replace(hour=start.hour, minute=start.minute, second=0, microsecond=0)
        if opens <= local:
            opens += timedelta(days=1)
        return opens.astimezone(UTC)

    def _is_within(self, at: datetime) -> bool:
        assert self._window is not None
        start, end = self._window
        local = at.astimezone(self._zone).time()
        return start <= local < end if start < end else local >= start or local < end


@final
class Flusher:
    """A thread that flushes at the times of the schedule; it starts at once."""

    def __init__(
        self,
        buffer: ChatBuffer,
        schedule: Schedule | None = None,
        *,
        batch_size: int = 200,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._buffer = buffer
        self._schedule = schedule or Schedule()
        self._batch_size = batch_size
        self._clock = clock
        self._wake = threading.Condition()
        self._is_stopped = False
        self._is_woken = False
        self._thread: threading.Thread | None = None
        self._next = utc_now(clock)
        """When the next flush is due, while there is no thread."""
        self._has_warned = False
        if not self._start():
            self._next = self._schedule.next_after(self._next)
            buffer.on_saved = self._flush_here

    def __enter__(self) -> "Flusher":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wake(self) -> None:
        """Flushes now, independently of the schedule."""
        with self._wake:
            self._is_woken = True
            self._wake.notify_all()
        if self._thread is None:
            self._flush_here()

    def stop(self) -> None:
        """Ends the thread, after the flush that is running."""
        with self._wake:
            self._is_stopped = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._buffer.on_saved = nothing

    def _start(self) -> bool:
        """Starts the thread. False when there is none to be had."""
        thread = threading.Thread(target=self._run, name="amberdb-chat", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"no thread could be started to flush the chat ({error}): save_chat() does it. "
                    "Raise the limit of threads (ulimit -u, pids.max)",
                    NoThreadWarning,
                    stacklevel=4,
                )
            return False
        self._thread = thread
        return True

    def _flush_here(self) -> None:
        """Starts the thread if that is possible by now, else flushes in this one what is due."""
        with self._wake:
            if self._is_stopped:
                return
            if self._thread is not None or self._start():
                self._buffer.on_saved = nothing
                return
            now = utc_now(self._clock)
            if not self._is_woken and now < self._next:
                return
            self._is_woken = False
            self._next = self._schedule.next_after(now)
        self._flush()

    def _flush(self) -> bool:
        """Flushes once. False when the database is closed."""
        try:
            self._buffer.flush_due(self._batch_size)
        except ClosedError:
            return False
        except Exception:
            logger.exception(FLUSH_FAILED)
        return True

    def _run(self) -> None:
        while True:
            now = utc_now(self._clock)
            left_s = (self._schedule.next_after(now) - now).total_seconds()
            with self._wake:
                self._wake.wait_for(lambda: self._is_stopped or self._is_woken, left_s)
                if self._is_stopped:
                    return
                self._is_woken = False
            if not self._flush():
                return


def _window(text: str) -> tuple[TimeOfDay, TimeOfDay]:
    """(start, end) of a window. Raises ValueError."""
    try:
        start, end = (TimeOfDay.fromisoformat(part.strip()) for part in text.split("-"))
    except ValueError:
        raise ValueError(f'write a window as "02:00-04:00", not {text!r}') from None
    if start == end:
        raise ValueError(f"the window {text!r} is empty: its start is its end")
    return start, end
