"""Counts and aggregates of documents over time: docs/series.md."""

from amberdb.series.buckets import (
    Bucket,
    Every,
    series,
)

__all__ = [
    "Bucket",
    "Every",
    "series",
]
