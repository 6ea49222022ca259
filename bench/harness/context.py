"""One run's directory, scale, and the databases that several rows share.

Invariants:
- The settled databases of a family are made at their first use and kept until the run ends. One
  family in one state is open at a time: its background threads disturb no other.
- A row leaves no database behind; the shared ones are deleted with the run's directory.
"""

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bench.engines.amber import AmberEngine
from bench.engines.database import Database, installed
from bench.engines.engine import Engine
from bench.engines.kinds import ENGINES
from bench.harness.family import Base, Family
from bench.harness.scale import Scale
from bench.harness.stage import Stage
from bench.harness.state import State
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS, Document

E = TypeVar("E", bound=Database)


class Context:
    """One run: the directory of its databases, their scale, and the databases that rows share."""

    def __init__(
        self,
        directory: Path,
        scale: Scale,
        *,
        engines: tuple[type[Engine], ...] = ENGINES,
        wanted: Mapping[str, tuple[str, ...]] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`wanted`: by family the engines that are needed, as in Base."""
        self.directory = directory
        self.scale = scale
        self.kinds, self.left_out = installed(engines)
        self.say = say
        self._wanted = wanted or {}
        self._next = max(scale.base, BATCH_DOCUMENTS)
        self._large: Path | None = None
        self._bases: dict[str, Base[Any]] = {}
        self._stage: Stage[Any] | None = None

    def base(self, family: Family[E]) -> Base[E]:
        """The settled databases of the family."""
        if family.name not in self._bases:
            root = self.directory / family.name
            wanted = self._wanted.get(family.name, ())
            self._bases[family.name] = Base(family, self.scale, root, self.say, wanted)
        return self._bases[family.name]

    def stage(self, family: Family[E], state: State) -> Stage[E]:
        """The family in the state, shared by the rows of that state."""
        base = self.base(family)
        if self._stage is None or self._stage.base is not base or self._stage.state is not state:
            self.leave_stage()
            self._stage = Stage(base, state, self.directory / f"{family.name}-{state.name}")
        return self._stage

    @contextmanager
    def restaged(
        self, family: Family[E], state: State, names: Sequence[str]
    ) -> Generator[Stage[E]]:
        """Some engines of the family, just brought into the state, for one round."""
        root = self.directory / f"{family.name}-{state.name}-anew"
        stage = Stage(self.base(family), state, root, names)
        try:
            yield stage
        finally:
            stage.close()

    def leave_stage(self) -> None:
        """Closes and deletes the databases of the last state."""
        if self._stage is not None:
            self._stage.close()
        self._stage = None

    def fresh(self, count: int) -> list[Document]:
        """Event documents that were not returned before."""
        start = self._next
        self._next += -(-count // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
        return list(events.documents(start, count))

    @contextmanager
    def fresh_engines(self, name: str, *, expiring: bool = False) -> Generator[dict[str, Engine]]:
        """Empty engines for one row, closed and deleted at the end of the block."""
        root = self.directory / name
        engines: dict[str, Engine] = {}
        try:
            for kind in self.kinds:
                engines[kind.name] = kind(root / kind.name, expiring=expiring)
            yield engines
        finally:
            for engine in engines.values():
                engine.close()
            shutil.rmtree(root, ignore_errors=True)

    def large_amber(self) -> Path:
        """The directory of a closed AmberDB with `scale.large` documents."""
        if self._large is None:
            self.say(f"loading {self.scale.large:,} documents into amberdb")
            path = self.directory / "large"
            engine = AmberEngine(path)
            load(engine, self.scale.large)
            engine.close()
            self._large = path
        return self._large

    def close(self) -> None:
        self.leave_stage()


def load(engine: Engine, count: int) -> None:
    """Puts documents 0 to `count` in batches, and settles."""
    for batch in events.batches(0, count):
        engine.put_many(batch)
    engine.settle()
