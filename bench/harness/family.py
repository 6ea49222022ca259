"""Families: engines that hold the same documents, and their settled databases.

Invariants:
- The settled database of an engine is made once, at its first use, and is closed; everybody else
  works on a copy of it.
- Options that loading decides on, such as the ef of a graph, belong to the database: whoever opens
  a copy uses them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from bench.engines.database import Database, installed
from bench.harness.scale import Scale
from bench.workloads.events import BATCH_DOCUMENTS, Document, in_batches

E = TypeVar("E", bound=Database)
Options: TypeAlias = dict[str, Any]


class Say(Protocol):
    def __call__(self, text: str, /) -> None: ...


def _no_options(kind: type[Database], scale: Scale, chosen: Mapping[str, Options]) -> Options:
    del kind, scale, chosen
    return {}


def _settle(engine: Database, scale: Scale, options: Options) -> Options:
    del scale
    engine.settle()
    return options


@dataclass(frozen=True, kw_only=True)
class Family(Generic[E]):
    """Engines of one interface, the documents that they hold, and how they are opened."""

    name: str
    kinds: Sequence[type[E]]
    count: Callable[[Scale], int]
    """Of the settled documents."""
    documents: Callable[[Scale, int, int], Iterator[Document]]
    """Of a scale: those from number `start`, a multiple of BATCH_DOCUMENTS, and how many."""
    rounds: Callable[[Scale], int]
    has_first_row: bool = False
    """Whether the first call in a state has a row of its own; then it is timed nowhere else."""
    initial: Callable[[type[E], Scale, Mapping[str, Options]], Options] = _no_options
    """The constructor's options, given those of the engines before it."""
    finish: Callable[[E, Scale, Options], Options] = _settle
    """Called once after the load: settles, and returns the final options."""

    def batches(self, scale: Scale, start: int, count: int) -> Iterator[list[Document]]:
        return in_batches(self.documents(scale, start, count))

    def kind(self, name: str) -> type[E]:
        return next(kind for kind in self.kinds if kind.name == name)

    def end(self, scale: Scale) -> int:
        """The first document number that no settled database has."""
        return -(-self.count(scale) // BATCH_DOCUMENTS) * BATCH_DOCUMENTS


@dataclass
class Base(Generic[E]):
    """The settled databases of a family, below one directory."""

    family: Family[E]
    scale: Scale
    root: Path
    say: Say
    wanted: Sequence[str] = ()
    """Names of the engines that the operations of the run need; (): all. A row with a function may
    ask for another one by path()."""
    options: dict[str, Options] = field(default_factory=dict[str, Options])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Notes of a row: which peers are not installed."""

    def __post_init__(self) -> None:
        found, self.left_out = installed(self.family.kinds)
        self._installed = {kind.name: kind for kind in found}

    def names(self, wanted: Sequence[str] = ()) -> list[str]:
        """The installed engines among the wanted ones, or those that the run needs, in order."""
        wanted = wanted or self.wanted
        return [name for name in self._installed if not wanted or name in wanted]

    def path(self, name: str) -> Path:
        """The directory of an engine's settled database, which is made at the first call."""
        path = self.root / _file_name(name)
        if name not in self.options:
            self._load(self._installed[name], path)
        return path

    def open(self, name: str, path: Path, **options: Any) -> E:
        """An engine in a copy of its settled database."""
        return self._installed[name](path, **self.options[name], **options)

    def kind(self, name: str) -> type[E]:
        return self._installed[name]

    def _load(self, kind: type[E], path: Path) -> None:
        family, scale = self.family, self.scale
        count = family.count(scale)
        self.say(f"loading {count:,} {family.name} into {kind.name}")
        options = family.initial(kind, scale, self.options)
        engine = kind(path, **options)
        try:
            for batch in family.batches(scale, 0, count):
                engine.put_many(batch)
            options = family.finish(engine, scale, options)
        finally:
            engine.close()
        self.options[kind.name] = options


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")
