"""The last hour of a database in samples of one minute, as series for charts.

Invariants:
- The samples are the writing process's own (`db.stats().minutes`); nothing is measured here.
- A minute without a sample is a gap, None in every series: nothing is made up.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, final

from amberdb import Database

SERIES: Final = (
    "commits", "sync_mean_ms", "sync_max_ms", "checkpoints", "checkpoint_max_ms", "log_bytes",
    "data_bytes",
)  # fmt: skip
_MINUTE: Final = timedelta(minutes=1)


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
    samples: dict[int, Any] = {
        round(sample.time.timestamp()): sample for sample in getattr(db.stats(), "minutes", ())
    }
    if not samples:
        return Measures((), dict.fromkeys(SERIES, ()))
    step = int(_MINUTE.total_seconds())
    times = tuple(range(min(samples), max(samples) + step, step))
    return Measures(
        times,
        {
            name: tuple(
                None if time not in samples else getattr(samples[time], name) for time in times
            )
            for name in SERIES
        },
    )
