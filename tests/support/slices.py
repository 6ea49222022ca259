"""How much of a long test runs: a slice of it in `make test`, the whole of it in `make test-all`.

Invariants:
- A test that asks here bears the mark `sliced`; so `make test-all` runs it, and nothing that
  `make test` has left out is forgotten.
- A slice is the same each time: one state of the code, one verdict.
"""

import os
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, TypeVar

import pytest
from hypothesis import settings

_T = TypeVar("_T")

IS_WHOLE: Final = os.environ.get("HYPOTHESIS_PROFILE") in ("whole", "campaign")


def size(whole: int, slice: int) -> int:
    """How many."""
    return whole if IS_WHOLE else slice


def examples(whole: float, slice: float) -> int:
    """Of Hypothesis: how many times as many as its profile says."""
    return max(1, round(settings().max_examples * (whole if IS_WHOLE else slice)))


def every(step: int, items: Iterable[_T]) -> list[_T]:
    """Each `step`-th of them, the first included. A step that shares no factor with the size of
    what repeats among the items meets all parts of it."""
    return list(islice(items, 0, None, 1 if IS_WHOLE else step))


def parameters(step: int, items: Iterable[Any]) -> list[Any]:
    """For parametrize(): in `make test` each `step`-th of them, the first included; `make test-all`
    has the others."""
    return [
        pytest.param(item, marks=pytest.mark.campaign if number % step else ())
        for number, item in enumerate(items)
    ]
