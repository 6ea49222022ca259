"""The last hour of a database in samples of one minute, as series for charts.

Invariants:
- The samples are the writing process's own (`db.stats().minutes`); nothing is measured here.
- A minute without a sample is one without a commit: it has 0 commits and checkpoints, and None, a
  gap, for what was not measured.
"""

from dataclasses import dataclass
from typing import Final, final

from amberdb import Database

SERIES: Final = (
    "commits", "sync_mean_ms", "sync_max_ms", "checkpoints", "checkpoint_max_ms", "log_bytes",
    "data_bytes",
)  # fmt: skip
_COUNTS: Final = ("commits", "checkpoints")
_MINUTE_S: Final = 60


@final
@dataclass(frozen=True, slots=True)
class Measures:
    """Series of equal length."""

    times: tuple[int, ...]
    """The start of each minute, in seconds since 1970, ascending without a gap."""
    series: dict[str, tuple[float | None, ...]]
    """By the names of SERIES."""


def read_measures(db: Database) -> Measures:
    """The last hour, as far as the process that writes has measured it."""
    samples = {round(minute.time.timestamp()): minute for minute in db.stats().minutes}
    if not samples:
        return Measures((), dict.fromkeys(SERIES, ()))
    times = tuple(range(min(samples), max(samples) + _MINUTE_S, _MINUTE_S))

    def values(name: str) -> tuple[float | None, ...]:
        missing = 0 if name in _COUNTS else None
        return tuple(getattr(samples.get(time), name, missing) for time in times)

    return Measures(times, {name: values(name) for name in SERIES})
