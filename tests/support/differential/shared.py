"""What the processes and threads of one run share: the time, acknowledgements, the order to stop.

Invariants:
- Time moves only while nobody is inside `still()`: an operation and its model see one time.
- A number that was written here outlives the death of the process that wrote it.
"""

import mmap
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, final

OWNERS: Final = ("w0", "w1", "w2")
_BEGIN_US: Final = 1_700_000_000_000_000
_NOW, _LATEST, _STOP, _COUNTER, _FIRST_OWNER = range(5)


@final
class Shared:
    """Numbers in memory that forked children share with their parent."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 8 * (_FIRST_OWNER + len(OWNERS)))).cast("q")
        self._numbers[_NOW] = self._numbers[_LATEST] = _BEGIN_US
        self._changed = threading.Condition()
        self._inside = 0
        self._is_turning = False

    # -- time ------------------------------------------------------------------------------------

    def clock(self) -> float:
        """For `amberdb.open(clock=)`: seconds since 1970."""
        return self._numbers[_NOW] / 1_000_000

    @property
    def now_us(self) -> int:
        """The database's time: that of the last commit while the clock is behind it."""
        return max(self._numbers[_NOW], self._numbers[_LATEST])

    @contextmanager
    def still(self) -> Generator[int]:
        """Time stands still inside; gives it in microseconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_turning)
            self._inside += 1
        try:
            yield self.now_us
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def turn(self, seconds: float, commit: Callable[[], object]) -> None:
        """Moves the clock, negative to set it back, as soon as nobody is inside. `commit` stores
        the time before, so that the database knows it."""
        with self._changed:
            self._is_turning = True
            self._changed.wait_for(lambda: not self._inside)
            try:
                commit()
                self._numbers[_LATEST] = self.now_us
                self._numbers[_NOW] += int(seconds * 1_000_000)
            finally:
                self._is_turning = False
                self._changed.notify_all()

    # -- acknowledgements ------------------------------------------------------------------------

    @property
    def counter(self) -> int:
        """The largest value of the counter whose commit was acknowledged."""
        return self._numbers[_COUNTER]

    def count_up(self, value: int) -> None:
        """Notes that the counter was acknowledged at this value."""
        with self._changed:
            self._numbers[_COUNTER] = max(value, self._numbers[_COUNTER])

    def acknowledge(self, owner: str, actions: int) -> None:
        """Notes that so many actions of the owner have returned."""
        self._numbers[_FIRST_OWNER + OWNERS.index(owner)] = actions

    def acknowledged(self, owner: str) -> int:
        return self._numbers[_FIRST_OWNER + OWNERS.index(owner)]

    # -- the order to stop -----------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether child processes are to end."""
        return bool(self._numbers[_STOP])

    @is_over.setter
    def is_over(self, value: bool) -> None:
        self._numbers[_STOP] = value
