"""Numbers of one bucket: sum, mean, smallest, largest and percentiles, in bounded memory.

    up to EXACT_MAX numbers   the numbers, and percentiles between them
    more                      counts by magnitude: bin k counts GROWTH**(k-1) < x <= GROWTH**k

Invariants:
- Beyond EXACT_MAX a percentile is within ERROR of the number at its rank, relative to it; the
  smallest and the largest are exact.
- The order of the numbers does not change a percentile.
- Memory does not grow with the count of numbers: all magnitudes of float are some 70,000 bins,
  those of one quantity some hundred.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, TypeAlias, final

EXACT_MAX: Final = 1_000
ERROR: Final = 0.01
_GROWTH: Final = (1 + ERROR) / (1 - ERROR)
_LOG: Final = math.log(_GROWTH)
_POWER_MAX: Final = 709.0
"""math.exp() of more is beyond float."""
_INFINITE: Final = 1 << 20
"""The bin of infinity, above those of all numbers."""

_Bin: TypeAlias = tuple[int, int]
"""The sign, and the magnitude times the sign: bins sort as their numbers."""


@final
@dataclass(slots=True)
class Numbers:
    """Aggregates of one field in one bucket; the field of a document without a number is not
    counted."""

    count: int = 0
    """How many numbers; when it is 0, mean, min, max and percentiles are None."""
    sum: int | float = 0
    min: int | float | None = None
    max: int | float | None = None
    percentiles: dict[float, float | None] = field(default_factory=dict[float, float | None])
    """The requested ones: {95: 1.5}; 50 is the median."""

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None


@final
class Collected:
    """Collects the numbers of one field in one bucket."""

    def __init__(self, percentiles: Sequence[float]) -> None:
        self._wanted = percentiles
        self._numbers = Numbers()
        self._exact = array("d")
        self._bins: Counter[_Bin] = Counter()

    def add(self, value: object) -> None:
        """Aggregates `value` if it is a number."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        numbers = self._numbers
        numbers.count += 1
        numbers.sum += value
        numbers.min = value if numbers.min is None or value < numbers.min else numbers.min
        numbers.max = value if numbers.max is None or value > numbers.max else numbers.max
        if not self._wanted:
            return
        if self._bins:
            self._bins[_bin(value)] += 1
        else:
            self._exact.append(value)
            if len(self._exact) > EXACT_MAX:
                self._bins.update(map(_bin, self._exact))
                self._exact = array("d")

    def result(self) -> Numbers:
        """The aggregates of what was added."""
        numbers = self._numbers
        if numbers.min is None or numbers.max is None:
            numbers.percentiles = dict.fromkeys(self._wanted)
        elif self._bins:
            low, high = float(numbers.min), float(numbers.max)
            found = _of_bins(self._bins, self._wanted)
            limited = (min(max(each, low), high) for each in found)
            numbers.percentiles = dict(zip(self._wanted, limited, strict=True))
            numbers.percentiles |= {
                p: low if p == 0 else high for p in self._wanted if p in (0, 100)
            }
        else:
            ordered = sorted(self._exact)
            numbers.percentiles = {p: _between(ordered, p) for p in self._wanted}
        return numbers


def _between(ordered: Sequence[float], percentile: float) -> float:
    """Between the two numbers around the rank, in proportion."""
    rank = percentile / 100 * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    part = rank - math.floor(rank)
    if math.isinf(low) or math.isinf(high):
        return low if math.isinf(low) else high
    return min(max(low * (1 - part) + high * part, low), high)


def _bin(value: float) -> _Bin:
    if value == 0:
        return 0, 0
    sign = 1 if value > 0 else -1
    if math.isinf(value):
        return sign, sign * _INFINITE
    return sign, sign * math.ceil(math.log(abs(value)) / _LOG)


def _of_bins(bins: Counter[_Bin], percentiles: Sequence[float]) -> Iterable[float]:
    """For each percentile the middle of the bin with its rank."""
    ordered = sorted(bins)
    upto = list(accumulate(bins[each] for each in ordered))
    for percentile in percentiles:
        rank = math.floor(percentile / 100 * (upto[-1] - 1))
        sign, key = ordered[next(at for at, count in enumerate(upto) if count > rank)]
        if abs(key) == _INFINITE:
            yield sign * math.inf
            continue
        power = sign * key * _LOG
        yield sign * (2 * math.exp(min(power, _POWER_MAX)) / (_GROWTH + 1))
