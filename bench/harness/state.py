"""States: what a database has just been through when its calls are timed.

Invariants:
- Every engine is brought into a state by the same calls, from a copy of its settled database.
- In the states that hold documents in memory AmberDB makes no checkpoint by itself; in the others
  every engine has its defaults.
- A process that is killed has acknowledged its documents before.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.harness.scale import Scale


def _none(scale: Scale) -> int:
    del scale
    return 0


def _all(scale: Scale) -> int:
    del scale
    return sys.maxsize


def _first(scale: Scale) -> int:
    return scale.first_calls


@dataclass(frozen=True, kw_only=True)
class State:
    """A state's name, a line that describes it, and how a database gets there."""

    name: str
    about: str
    fresh: Callable[[Scale], int] = _none
    """Documents that are put after the settled ones."""
    alternates: bool = False
    """Whether a document is put, untimed, before each timed call."""
    in_process: bool = True
    """False: each round is a process that opens the database, and the first calls in it."""
    is_killed: bool = False
    """Whether the process that put the documents is killed, so that their log is replayed."""
    calls_max: Callable[[Scale], int] = _all
    """Of a round."""


SETTLED = State(name="settled", about="after a checkpoint")
FRESH = State(
    name="fresh",
    about="5,000 documents put since, which AmberDB has in memory and log alone",
    fresh=lambda scale: scale.fresh,
)
FULL = State(name="full", about="the same with 50,000", fresh=lambda scale: scale.full)
ALTERNATING = State(
    name="alternating",
    about="a document is put before each call",
    alternates=True,
    calls_max=lambda scale: scale.alternations,
)
OPENED = State(
    name="opened",
    about="the first calls of a process, after a clean close",
    in_process=False,
    calls_max=_first,
)
KILLED = State(
    name="killed",
    about="the first calls of a process, after SIGKILL of one that put 15,000 documents",
    fresh=lambda scale: scale.killed,
    in_process=False,
    is_killed=True,
    calls_max=_first,
)

STATES = (SETTLED, FRESH, FULL, ALTERNATING, OPENED, KILLED)
"""In the order in which they are measured."""


def state_named(name: str) -> State:
    return next(state for state in STATES if state.name == name)
