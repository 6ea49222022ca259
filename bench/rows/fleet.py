"""Search engines with the same documents, shared by several rows.

Invariants:
- Each engine is loaded once and settled, indexes included, before a row gets it.
- A fleet can be closed and opened again; its directories are deleted with that of the run.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from bench.engines.kinds import TEXT_ENGINES
from bench.engines.search_engine import SearchEngine, TextEngine, installed
from bench.harness.context import Context
from bench.workloads import texts
from bench.workloads.events import in_batches

Engine = TypeVar("Engine", bound=SearchEngine)


class Fleet(Generic[Engine]):
    """Engines by name, each opened at its first use."""

    def __init__(
        self,
        root: Path,
        kinds: Iterable[type[Engine]],
        make: Callable[[type[Engine], Path], Engine],
    ) -> None:
        self._root = root
        self._make = make
        self._open: dict[str, Engine] = {}
        found, self.left_out = installed(kinds)
        """left_out: notes of a row, which peers are not installed."""
        self._kinds = {kind.name: kind for kind in found}

    def path(self, name: str) -> Path:
        return self._root / name.replace(" ", "-")

    def engines(self, *names: str) -> dict[str, Engine]:
        """The installed engines among `names`; without names, all of them."""
        for name in names or self._kinds:
            if name in self._kinds and name not in self._open:
                self._open[name] = self._make(self._kinds[name], self.path(name))
        return {name: self._open[name] for name in names or self._kinds if name in self._open}

    def close(self) -> None:
        """Closes every engine; engines() opens them again."""
        for engine in self._open.values():
            engine.close()
        self._open.clear()


def text_fleet(context: Context) -> Fleet[TextEngine]:
    """Every text engine with `scale.texts` documents."""

    def make() -> Fleet[TextEngine]:
        fleet = Fleet(context.directory / "text", TEXT_ENGINES, lambda kind, path: kind(path))
        for name, engine in fleet.engines().items():
            context.say(f"loading {context.scale.texts:,} texts into {name}")
            for batch in in_batches(texts.documents(0, context.scale.texts)):
                engine.put_many(batch)
            engine.settle()
        return fleet

    return context.kept("text fleet", make)


def recall_of(found: Iterable[list[str]], answers: Iterable[list[str]]) -> float:
    """The share of all true answers that were found; both by question."""
    pairs = list(zip(found, answers, strict=True))
    return sum(len(set(a) & set(b)) for a, b in pairs) / sum(len(b) for _, b in pairs)
