"""A row of the report: its name, and the function that measures it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from bench.harness.context import Context
from bench.harness.line import Line

RowFunction: TypeAlias = Callable[[Context], Iterator[Line]]


@dataclass(frozen=True)
class Row:
    """A row's name, a line that describes it, and the function that yields its lines."""

    name: str
    about: str
    run: RowFunction
