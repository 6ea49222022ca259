"""Counts and aggregates of documents over time: docs/series.md."""

from amberdb.series.buckets import (
    Bucket,
    series,
)
from amberdb.series.calendar import (
    Every,
)
from amberdb.series.numbers import (
    Numbers,
)

__all__ = [
    "Bucket",
    "Every",
    "Numbers",
    "series",
]
