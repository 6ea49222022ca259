"""Percentiles of the latencies of single calls.

Invariants:
- Percentiles are nearest-rank: each is one of the samples.
"""

from collections.abc import Sequence


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all samples do not exceed (nearest rank).

    `ordered` ascends and is not empty.
    """
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def latencies_us(samples_ns: Sequence[int]) -> dict[str, float]:
    """p50, p99, p99.9 and max in microseconds; {} for no samples."""
    if not samples_ns:
        return {}
    ordered = sorted(samples_ns)
    names = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {name: percentile(ordered, percent) / 1000 for name, percent in names.items()}
