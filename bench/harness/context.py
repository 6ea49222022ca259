"""One run's directory, scale, and the engines that several rows share.

Invariants:
- The shared engines hold `scale.base` documents, settled, before the first row that uses them.
- Rows that put into the shared engines take documents from `fresh`, so no number is put twice.
- A row leaves no database behind; the shared ones are deleted with the run's directory.
"""

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast

from bench.engines.amber import AmberEngine
from bench.engines.engine import Engine
from bench.engines.kinds import ENGINES
from bench.harness.scale import Scale
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS, Document


class Closable(Protocol):
    def close(self) -> None: ...


Kept = TypeVar("Kept", bound=Closable)


class Context:
    """One run: the directory of its databases, their scale, and the engines that rows share."""

    def __init__(
        self,
        directory: Path,
        scale: Scale,
        *,
        engines: tuple[type[Engine], ...] = ENGINES,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory = directory
        self.scale = scale
        self.kinds = engines
        self.say = say
        self._fleet: dict[str, Engine] = {}
        self._next = max(scale.base, BATCH_DOCUMENTS)
        self._large: Path | None = None
        self._kept: dict[str, Closable] = {}

    def fleet(self) -> dict[str, Engine]:
        """Every engine with the base documents; opened and loaded at the first call."""
        if not self._fleet:
            for kind in self.kinds:
                self.say(f"loading {self.scale.base:,} documents into {kind.name}")
                engine = kind(self.directory / "fleet" / kind.name)
                load(engine, self.scale.base)
                self._fleet[kind.name] = engine
        return self._fleet

    def settled_fleet(self) -> dict[str, Engine]:
        """The fleet, settled."""
        fleet = self.fleet()
        for engine in fleet.values():
            engine.settle()
        return fleet

    def fresh(self, count: int) -> list[Document]:
        """Documents that no engine has; every engine is given the same ones."""
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

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """An object that several rows share: made at the first call, closed with the run."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(Kept, self._kept[name])

    def close(self) -> None:
        for shared in (*self._fleet.values(), *self._kept.values()):
            shared.close()
        self._fleet.clear()
        self._kept.clear()


def load(engine: Engine, count: int) -> None:
    """Puts documents 0 to `count` in batches, and settles."""
    for batch in events.batches(0, count):
        engine.put_many(batch)
    engine.settle()
