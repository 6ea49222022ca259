"""Which rows there are, and what they share: the directory, the scale, the loaded engines.

Invariants:
- A row yields lines and leaves no database behind except the shared ones, which the Context owns.
- The shared engines hold BASE documents in their final place before the first row that uses them;
  rows that put into them take numbers from `fresh`, so no number is put twice.
"""

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, cast

from bench import workloads
from bench.amber import AmberPeer
from bench.engine import Engine
from bench.harness import Line
from bench.peers import PEERS
from bench.workloads import BATCH_DOCUMENTS, Document


class Closable(Protocol):
    def close(self) -> None: ...


Kept = TypeVar("Kept", bound=Closable)
ENGINES: tuple[type[Engine], ...] = (AmberPeer, *PEERS)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything: `--quick` and `--size` change it."""

    rounds: int = workloads.ROUNDS
    base: int = workloads.BASE_DOCUMENTS
    large: int = workloads.GROWTH_DOCUMENTS
    puts: int = 400
    puts_per_thread: int = 100
    put_batches: int = 10
    gets: int = 10_000
    finds: int = 500
    expired: int = 4_000
    replayed: int = 100_000
    checkpoints: int = 10
    idle_s: float = 2.0
    starts: int = 10
    texts: int = 100_000
    vectors: int = 100_000
    dim: int = 384
    questions: int = 200
    builds: int = 2
    """Rounds of the rows that build whole search indexes."""


QUICK = Scale(
    rounds=2,
    base=5_000,
    large=20_000,
    puts=50,
    puts_per_thread=10,
    put_batches=2,
    gets=1_000,
    finds=50,
    expired=1_000,
    replayed=5_000,
    checkpoints=3,
    idle_s=0.5,
    starts=3,
    texts=3_000,
    vectors=12_000,
    dim=32,
    questions=40,
    builds=1,
)


class Context:
    """One run: where databases go, how large they are, and those that several rows share."""

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
        """Every engine with the base documents, opened and loaded at first use."""
        if not self._fleet:
            for kind in self.kinds:
                self.say(f"loading {self.scale.base:,} documents into {kind.name}")
                engine = kind(self.directory / "fleet" / kind.name)
                load(engine, self.scale.base)
                self._fleet[kind.name] = engine
        return self._fleet

    def settled_fleet(self) -> dict[str, Engine]:
        """The same, with everything in its final place."""
        fleet = self.fleet()
        for engine in fleet.values():
            engine.settle()
        return fleet

    def fresh(self, count: int) -> list[Document]:
        """Documents that no engine has seen; all engines get the same ones."""
        start = self._next
        self._next += -(-count // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
        return list(workloads.documents(start, count))

    @contextmanager
    def fresh_engines(self, name: str, *, expiring: bool = False) -> Generator[dict[str, Engine]]:
        """Empty engines of a row's own, closed and deleted when it is done."""
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
            engine = AmberPeer(path)
            load(engine, self.scale.large)
            engine.close()
            self._large = path
        return self._large

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What several rows use: made at first use, closed with the run."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(Kept, self._kept[name])

    def close(self) -> None:
        for one in (*self._fleet.values(), *self._kept.values()):
            one.close()
        self._fleet.clear()
        self._kept.clear()


def load(engine: Engine, count: int) -> None:
    """Puts documents 0 to `count` in batches, and settles."""
    for batch in workloads.batches(0, count):
        engine.put_many(batch)
    engine.settle()


RowFunction: TypeAlias = Callable[[Context], Iterator[Line]]


@dataclass(frozen=True)
class Row:
    """A name to ask for, one line of what it measures, and how."""

    name: str
    about: str
    run: RowFunction


def all_rows() -> dict[str, Row]:
    """Every row by name, in the order in which they run."""
    # Imported here, since those modules import this one.
    from bench import (
        rows_aio,
        rows_chat,
        rows_host,
        rows_profiles,
        rows_speed,
        rows_state,
        rows_text,
        rows_vector,
        rows_vector_state,
    )

    modules = (
        rows_speed,
        rows_state,
        rows_host,
        rows_text,
        rows_vector,
        rows_vector_state,
        rows_profiles,
        rows_chat,
        rows_aio,
    )
    found = [row for module in modules for row in module.ROWS]
    return {row.name: row for row in found}
