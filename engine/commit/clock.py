"""The clock of a database: the time at which reads judge expiry, and the times of commits.

    floor <= clock                  reads use the clock
    floor - slack <= clock < floor  reads use the floor: what was seen to expire stays so
    clock < floor - slack           in doubt: the clock is wrong now, or was when the floor was set.
                                    Reads use the clock, and nothing is removed because of its age

The floor is the time of the last commit, or the time that accept() has put in its place:

    META t  ->  the map of _Accepted, with a checksum

Invariants:
- Times of commits never go back, whatever the clock does.
- The floor rises only with commits, and only accept() lowers it.
- The entry counts while no commit is later than `commit_us`: then the clock has passed all times.
"""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

import msgspec

from amberdb._errors import ClockWarning
from amberdb._time import time_of
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import entry_data, sealed_entry
from amberdb.engine.schema.codec import map_decoder
from amberdb.engine.schema.keyspace import CLOCK

logger = logging.getLogger("amberdb.engine")

LOOK_AGAIN_S: Final = 60.0
"""While the clock is in doubt, removal looks at it this often: setting a clock wakes no thread."""


class _Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What accept() stores."""

    clock_us: int
    """The clock at that time."""
    commit_us: int
    """The time of the last commit, which the clock has yet to reach."""


_decode = map_decoder(_Accepted)


@final
class Clock:
    """The clock of one open database. Threads may share it."""

    __slots__ = ("_floor_us", "_is_doubted", "_read", "_slack_us", "last_us")

    def __init__(self, options: Options, last_us: int, entry: bytes | None) -> None:
        self._read: Callable[[], float] = options.clock
        self._slack_us = options.clock_slack_ms * 1000
        self._is_doubted = False
        self.restart(last_us, entry)

    def restart(self, last_us: int, entry: bytes | None) -> None:
        """Continues from the time of the last commit and the entry that are stored. Raises
        CorruptionError."""
        accepted = None if entry is None else _decode(entry_data(CLOCK, entry))
        self.last_us = last_us
        """The time of the last commit."""
        is_behind = accepted is not None and last_us <= accepted.commit_us
        self._floor_us = accepted.clock_us if accepted is not None and is_behind else last_us

    def now_us(self) -> int:
        """The time of reads. Warns with ClockWarning when the clock has come in doubt."""
        now_us = int(self._read() * 1_000_000)
        return now_us if now_us >= self._floor_us else self._behind(now_us)

    def due_us(self) -> int | None:
        """The time up to which data may be removed because of its age; None while the clock is in
        doubt."""
        now_us = self.now_us()
        return now_us if self._floor_us - now_us <= self._slack_us else None

    @property
    def newest_us(self) -> int:
        """The clock's time, or that of the last commit while the clock is behind it."""
        return max(self.last_us, int(self._read() * 1_000_000))

    @property
    def behind_ms(self) -> float:
        """How far the clock is behind the floor."""
        return max(0, self._floor_us - int(self._read() * 1_000_000)) / 1000

    def commit_us(self, now_us: int) -> int:
        """The time of the next commit, whose writer has read the time `now_us`."""
        return max(now_us, self.last_us)

    def committed(self, now_us: int) -> None:
        """Called with the writer lock held, after a commit whose writer has read this time."""
        if now_us > self._floor_us:
            self._floor_us = now_us
            self._is_doubted = False
        if now_us > self.last_us:
            self.last_us = now_us

    def acceptance(self) -> tuple[int, bytes]:
        """The clock's time, and the entry to store before accept() is called with it."""
        clock_us = int(self._read() * 1_000_000)
        return clock_us, sealed_entry(CLOCK, _Accepted(clock_us=clock_us, commit_us=self.last_us))

    def accept(self, clock_us: int) -> None:
        """Lowers the floor to this time."""
        self._floor_us = min(self._floor_us, clock_us)
        self._is_doubted = False

    def _behind(self, now_us: int) -> int:
        """The time of reads while the clock is behind the floor."""
        floor_us = self._floor_us
        if floor_us - now_us <= self._slack_us:
            self._is_doubted = False
            return floor_us
        if not self._is_doubted:
            self._is_doubted = True
            text = (
                f"the clock says {_shown(now_us)}, and the last commit was at {_shown(floor_us)}; "
                "reads use the clock, and nothing is removed because of its age while they differ "
                f"by more than clock_slack_ms ({self._slack_us // 1000}): set the clock, or, if it "
                "is right, call accept_clock() in the process that writes"
            )
            logger.warning("%s", text)
            with suppress(ClockWarning):  # a filter makes it an error, of a call that can go on
                warnings.warn(text, ClockWarning, stacklevel=2)
        return now_us


def _shown(time_us: int) -> str:
    try:
        return time_of(time_us).isoformat()
    except OverflowError:
        return f"{time_us / 1e6:.0f} s since 1970"
