"""Spans: what belongs together of the events of a call, with its parent and its duration.

The events of a span have in their metadata `span_id`, `parent_id` (None of the outermost), and the
last one `duration_ms`.

Invariants:
- The parent of a span is the span of the same task, or of the task that has started it, in which it
  begins.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, final
from uuid import uuid4

_current: Final[ContextVar[str | None]] = ContextVar("amberdb_span", default=None)


@final
@dataclass(frozen=True, slots=True)
class Span:
    """A call that is going on."""

    parent_id: str | None
    span_id: str = field(default_factory=lambda: uuid4().hex[:16])
    _began_s: float = field(default_factory=time.perf_counter)

    def begun(self) -> dict[str, Any]:
        """The metadata of the first event."""
        return {"span_id": self.span_id, "parent_id": self.parent_id}

    def ended(self) -> dict[str, Any]:
        """The metadata of the last event."""
        duration_ms = round((time.perf_counter() - self._began_s) * 1000, 3)
        return {**self.begun(), "duration_ms": duration_ms}


@contextmanager
def span() -> Generator[Span]:
    """A span inside that of the caller, if there is one."""
    outer = _current.get()
    made = Span(outer)
    _current.set(made.span_id)
    try:
        yield made
    finally:
        _current.set(outer)  # a token would be of one context: a generator may end in another
