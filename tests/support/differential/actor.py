"""A thread of a run: one step after the other until the end, and what it did last.

Invariants:
- The first error of any thread ends the run; it is kept with the last actions of its thread.
"""

import random
import threading
import traceback
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import amberdb
from amberdb import Database
from support.differential.shared import Shared

_KEPT: Final = 12
_SHOWN: Final = 600


@final
@dataclass
class Stage:
    """What the threads of one phase share."""

    directory: Path
    shared: Shared
    options: dict[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)
    findings: list[str] = field(default_factory=list[str])
    operations: Counter[str] = field(default_factory=Counter[str])

    @property
    def path(self) -> Path:
        """Of the database."""
        return self.directory / "m.amber"

    def open(self, **more: Any) -> Database:
        """A handle on the database."""
        return amberdb.open(self.path, clock=self.shared.clock, **{**self.options, **more})


class Actor(ABC):
    """One thread."""

    def __init__(self, stage: Stage, rng: random.Random, name: str) -> None:
        self.stage = stage
        self.rng = rng
        self.name = name
        self.count: Counter[str] = Counter()
        self._last: deque[str | Any] = deque(maxlen=_KEPT)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def step(self) -> None:
        """Does one thing and compares."""

    @abstractmethod
    def close(self) -> None:
        """Ends what the steps have opened; called by the thread at its end."""

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def note(self, kind: str, action: Any = None) -> None:
        """Before each action: for the figures, and for the report of a failure."""
        self.count[kind] += 1
        self._last.append(action if action is not None else kind)

    def pause(self, seconds_max: float) -> None:
        self.stage.stop.wait(self.rng.random() * seconds_max)

    def report(self, count: int = _KEPT) -> str:
        """The last actions, the newest last."""
        last = list(self._last)[-count:]
        return "\n".join(f"    {self.name}: {str(action)[:_SHOWN]}" for action in last)

    def _run(self) -> None:
        try:
            try:
                while not self.stage.stop.is_set():
                    self.step()
            finally:
                self.close()
        except BaseException:
            self.stage.findings.append(f"{self.name}: {traceback.format_exc()}{self.report()}")
            self.stage.stop.set()
