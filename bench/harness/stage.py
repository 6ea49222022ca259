"""A stage: the databases of a family in one state.

Invariants:
- Databases are copies of the settled ones; closing the stage deletes them.
- Every engine of the stage has the same documents, whether or not an operation times it.
- A database of a process that was killed is copied for each round: an open replays its log.
"""

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.engines.database import Database
from bench.harness.family import Base
from bench.harness.operation import Draw
from bench.harness.process import put_and_kill
from bench.harness.state import State
from bench.workloads.events import BATCH_DOCUMENTS, Document

E = TypeVar("E", bound=Database)
BLOCK = 50 * BATCH_DOCUMENTS
"""Document numbers that a round of a fresh process may use."""


class Stage(Generic[E]):
    """Engines of this process, or closed databases for other processes, in one state."""

    def __init__(self, base: Base[E], state: State, root: Path, names: Sequence[str] = ()) -> None:
        """`names`: of its engines; (): all that the run needs."""
        self.base = base
        self._names = names or base.names()
        self.state = state
        self._root = root
        self._engines: dict[str, E] = {}
        self._ready: set[str] = set()
        start, count = base.family.end(base.scale), state.fresh(base.scale)
        self._fresh = range(start, start + count)
        self._next = _round_up(self._fresh.stop)
        self._stored = [range(base.family.count(base.scale)), *([self._fresh] if count else [])]

    def engines(self) -> dict[str, E]:
        """Every engine of the family, open in this process and in the state."""
        for name in self._names:
            if name not in self._engines:
                self._engines[name] = self._opened(name)
        return self._engines

    def _opened(self, name: str) -> E:
        base = self.base
        settled = base.path(name)
        path = self._root / settled.name
        shutil.rmtree(path, ignore_errors=True)  # of an open that failed
        shutil.copytree(settled, path)
        if not self._fresh:
            return base.open(name, path)
        engine = base.open(name, path, **base.kind(name).held)
        for batch in base.family.batches(base.scale, self._fresh.start, len(self._fresh)):
            engine.put_many(batch)
        return engine

    @contextmanager
    def turn(self, name: str) -> Generator[Path]:
        """The closed database of an engine in the state, for one round of a fresh process."""
        settled = self.base.path(name)
        path = self._root / settled.name
        if name not in self._ready:
            shutil.copytree(settled, path)
            if self.state.is_killed:
                put_and_kill(
                    self.task(name, path) | {"start": self._fresh.start, "count": len(self._fresh)}
                )
            self._ready.add(name)
        if not self.state.is_killed:
            yield path
            return
        copy = path.with_name(f"{path.name}-turn")
        shutil.copytree(path, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)

    def task(self, name: str, path: Path) -> dict[str, Any]:
        """What another process has to know to open the database, as JSON."""
        base = self.base
        return {
            "family": base.family.name,
            "engine": name,
            "path": str(path),
            "options": base.options[name],
            "scale": asdict(base.scale),
        }

    def draw(self, number: int) -> Draw:
        """The source of a round's items. Each round of a killed process is its first one."""
        return Draw(
            scale=self.base.scale,
            number=0 if self.state.is_killed else number,
            stored=tuple(self._stored),
            fresh=lambda count: self.documents(self.reserve(count)),
            calls_max=self.state.calls_max(self.base.scale),
        )

    def reserve(self, count: int) -> range:
        """Document numbers that nobody else gets."""
        numbers = range(self._next, self._next + count)
        self._next = _round_up(numbers.stop)
        return numbers

    def documents(self, numbers: range) -> list[Document]:
        base = self.base
        return list(base.family.documents(base.scale, numbers.start, len(numbers)))

    def was_stored(self, numbers: range) -> None:
        """Tells that every engine has these documents now."""
        self._stored.append(numbers)

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        shutil.rmtree(self._root, ignore_errors=True)


def _round_up(number: int) -> int:
    return -(-number // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
