"""A row of the report: its name, and the function or the operations that measure it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from bench.harness.context import Context
from bench.harness.line import Line
from bench.harness.operation import Operation

RowFunction: TypeAlias = Callable[[Context], Iterator[Line]]


@dataclass(frozen=True)
class Row:
    """A row's name, a line that describes it, the operations that are timed in each state, and the
    function that yields its other lines."""

    name: str
    about: str
    run: RowFunction | None = None
    operations: tuple[Operation[Any, Any], ...] = ()
