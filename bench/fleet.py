"""Engines that several search rows share: loaded once, opened when they are asked for.

Invariants:
- All hold the same documents, in their final place, indexes too.
- What approximates looks as far as it must to find RECALL of the true answers, and no further;
  AmberDB as far as the graph made by hand, which is the same graph.
- A fleet can be closed and opened again; the directories go with that of the run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from bench import embeddings, texts, workloads
from bench.amber_search import AmberHybrid, AmberText, AmberVectors
from bench.embeddings import Vectors
from bench.harness import AMBER
from bench.peers_text import TEXT_PEERS
from bench.peers_vector import (
    ByHandPeer,
    ChromaPeer,
    LanceVectorPeer,
    SqliteVecByEntityPeer,
    SqliteVecPeer,
)
from bench.rows import Context
from bench.search_engine import (
    HITS,
    SearchEngine,
    TextEngine,
    VectorEngine,
    installed,
)
from bench.workloads import Document

RECALL = 0.98
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
EF_DEFAULT = 128
BY_HAND = ByHandPeer.name
BY_ENTITY = SqliteVecByEntityPeer.name
VECTOR_KINDS: tuple[type[VectorEngine], ...] = (
    ByHandPeer,  # first: AmberDB looks as far as it
    AmberHybrid,
    SqliteVecPeer,
    SqliteVecByEntityPeer,
    ChromaPeer,
    LanceVectorPeer,
)

Engine = TypeVar("Engine", bound=SearchEngine)


class Fleet(Generic[Engine]):
    """Engines by name, opened when they are asked for."""

    def __init__(
        self,
        root: Path,
        kinds: Iterable[type[Engine]],
        make: Callable[[type[Engine], Path], Engine],
    ) -> None:
        self._root = root
        self._make = make
        self._open: dict[str, Engine] = {}
        there, self.left_out = installed(kinds)
        """Why a peer is not there: notes of a row."""
        self._kinds = {kind.name: kind for kind in there}

    def path(self, name: str) -> Path:
        return self._root / name.replace(" ", "-")

    def engines(self, *names: str) -> dict[str, Engine]:
        """Those of `names` that are there; all without any."""
        for name in names or self._kinds:
            if name in self._kinds and name not in self._open:
                self._open[name] = self._make(self._kinds[name], self.path(name))
        return {name: self._open[name] for name in names or self._kinds if name in self._open}

    def close(self) -> None:
        """Until they are asked for again."""
        for engine in self._open.values():
            engine.close()
        self._open.clear()


def text_fleet(context: Context) -> Fleet[TextEngine]:
    """Every text engine with `scale.texts` documents."""

    def make() -> Fleet[TextEngine]:
        kinds: tuple[type[TextEngine], ...] = (AmberText, *TEXT_PEERS)
        fleet = Fleet(context.directory / "text", kinds, lambda kind, path: kind(path))
        for name, engine in fleet.engines().items():
            context.say(f"loading {context.scale.texts:,} texts into {name}")
            for batch in workloads.in_batches(texts.documents(0, context.scale.texts)):
                engine.put_many(batch)
            engine.settle()
        return fleet

    return context.kept("text fleet", make)


@dataclass
class VectorFleet:
    """Vector engines with the same documents, and what is true of those."""

    fleet: Fleet[VectorEngine]
    questions: list[Vectors]
    answers: list[list[str]]
    """By question: ids of the true ten nearest, nearest first."""
    widths: dict[str, int] = field(default_factory=dict[str, int])
    recalls: dict[str, float] = field(default_factory=dict[str, float])

    def recall(self, engine: VectorEngine) -> float:
        """The share of the true answers that it finds."""
        found = [ids(engine.nearest(question)) for question in self.questions]
        return recall_of(found, self.answers)

    def widen(self, name: str, engine: VectorEngine) -> None:
        """Looks no further than RECALL needs, and notes it."""
        for width in WIDTHS:
            engine.width = self.widths[name] = width
            self.recalls[name] = self.recall(engine)
            if self.recalls[name] >= RECALL:
                return

    def notes(self, names: Iterable[str]) -> dict[str, str]:
        """recall@10 of those that were judged, and the ef of those that have one."""
        told: dict[str, str] = {}
        for name in names:
            if name in self.recalls:
                width = f", ef {self.widths[name]}" if name in self.widths else ""
                told[f"recall@{HITS} of {name}"] = f"{self.recalls[name]:.4f}{width}"
        return told

    def close(self) -> None:
        self.fleet.close()


def vector_fleet(context: Context) -> VectorFleet:
    """Every vector engine with `scale.vectors` documents, each at RECALL."""
    return context.kept("vector fleet", lambda: _load_vectors(context))


def _load_vectors(context: Context) -> VectorFleet:
    scale = context.scale
    count, dim = scale.vectors, scale.dim
    questions = embeddings.questions(scale.questions, dim)
    true = embeddings.nearest(questions, embeddings.vectors(0, count, dim), HITS)
    answers = [[workloads.document_id(place) for place in places] for places in true]
    widths: dict[str, int] = {}

    def make(kind: type[VectorEngine], path: Path) -> VectorEngine:
        return kind(path, dim=dim, width=widths.get(kind.name, EF_DEFAULT))

    fleet = Fleet(context.directory / "vectors", VECTOR_KINDS, make)
    loaded = VectorFleet(fleet, questions, answers, widths)
    try:
        _fill(context, loaded)
    except BaseException:
        fleet.close()
        raise
    return loaded


def _fill(context: Context, loaded: VectorFleet) -> None:
    fleet, widths = loaded.fleet, loaded.widths
    for name in (kind.name for kind in VECTOR_KINDS):
        if name == AMBER:  # which says in its declaration how far it looks
            widths[AMBER] = widths.get(BY_HAND, EF_DEFAULT)
        engine = fleet.engines(name).get(name)
        if engine is None:
            continue
        context.say(f"loading {context.scale.vectors:,} vectors into {name}")
        for batch in embeddings.batches(0, context.scale.vectors, context.scale.dim):
            engine.put_many(batch)
        if isinstance(engine, AmberVectors):
            engine.catch_up(loaded.questions[0])
        engine.settle()
        if name == AMBER or engine.is_exact:
            loaded.recalls[name] = loaded.recall(engine)
        else:
            loaded.widen(name, engine)


def ids(documents: Iterable[Document]) -> list[str]:
    return [document["id"] for document in documents]


def recall_of(found: Iterable[list[str]], answers: Iterable[list[str]]) -> float:
    """The share of all true answers that were found; both by question."""
    pairs = list(zip(found, answers, strict=True))
    return sum(len(set(a) & set(b)) for a, b in pairs) / sum(len(b) for _, b in pairs)
