"""Vector engines with the same documents, and the true answers to the questions.

Invariants:
- An approximate engine gets the smallest ef of EFS with which it finds RECALL of the true answers;
  AmberDB gets the ef of the hand-made graph, which has the same parameters.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.engines.amber_search import AmberVectors
from bench.engines.kinds import VECTOR_ENGINES
from bench.engines.lmdb_hnswlib import LmdbHnswlibPeer
from bench.engines.search_engine import HITS, VectorEngine
from bench.engines.sqlite_vec import SqliteVecByEntityPeer
from bench.harness.context import Context
from bench.harness.line import AMBER
from bench.rows.fleet import Fleet, recall_of
from bench.workloads import vectors
from bench.workloads.events import document_id, ids
from bench.workloads.vectors import Vectors

RECALL = 0.98
EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
EF_DEFAULT = 128
BY_HAND = LmdbHnswlibPeer.name
BY_ENTITY = SqliteVecByEntityPeer.name


@dataclass
class VectorFleet:
    """Vector engines with the same documents, their questions and the true answers."""

    fleet: Fleet[VectorEngine]
    questions: list[Vectors]
    answers: list[list[str]]
    """By question: the ids of the ten nearest, nearest first."""
    efs: dict[str, int] = field(default_factory=dict[str, int])
    recalls: dict[str, float] = field(default_factory=dict[str, float])

    def recall(self, engine: VectorEngine) -> float:
        """The share of the true answers that the engine finds."""
        found = [ids(engine.nearest(question)) for question in self.questions]
        return recall_of(found, self.answers)

    def choose_ef(self, name: str, engine: VectorEngine) -> None:
        """Sets the smallest ef that reaches RECALL, and notes both."""
        for ef in EFS:
            engine.ef = self.efs[name] = ef
            self.recalls[name] = self.recall(engine)
            if self.recalls[name] >= RECALL:
                return

    def notes(self, names: Iterable[str]) -> dict[str, str]:
        """recall@10 of the judged engines, and the ef of those that have one."""
        notes: dict[str, str] = {}
        for name in names:
            if name in self.recalls:
                ef = f", ef {self.efs[name]}" if name in self.efs else ""
                notes[f"recall@{HITS} of {name}"] = f"{self.recalls[name]:.4f}{ef}"
        return notes

    def close(self) -> None:
        self.fleet.close()


def vector_fleet(context: Context) -> VectorFleet:
    """Every vector engine with `scale.vectors` documents, each at RECALL."""
    return context.kept("vector fleet", lambda: _load_vectors(context))


def _load_vectors(context: Context) -> VectorFleet:
    scale = context.scale
    count, dim = scale.vectors, scale.dim
    questions = vectors.questions(scale.questions, dim)
    true = vectors.nearest(questions, vectors.vectors(0, count, dim), HITS)
    answers = [[document_id(number) for number in numbers] for numbers in true]
    efs: dict[str, int] = {}

    def make(kind: type[VectorEngine], path: Path) -> VectorEngine:
        return kind(path, dim=dim, ef=efs.get(kind.name, EF_DEFAULT))

    fleet = Fleet(context.directory / "vectors", VECTOR_ENGINES, make)
    loaded = VectorFleet(fleet, questions, answers, efs)
    try:
        _load_each(context, loaded)
    except BaseException:
        fleet.close()
        raise
    return loaded


def _load_each(context: Context, loaded: VectorFleet) -> None:
    fleet, efs = loaded.fleet, loaded.efs
    for name in (kind.name for kind in VECTOR_ENGINES):
        if name == AMBER:  # its ef is part of the declaration
            efs[AMBER] = efs.get(BY_HAND, EF_DEFAULT)
        engine = fleet.engines(name).get(name)
        if engine is None:
            continue
        context.say(f"loading {context.scale.vectors:,} vectors into {name}")
        for batch in vectors.batches(0, context.scale.vectors, context.scale.dim):
            engine.put_many(batch)
        if isinstance(engine, AmberVectors):
            engine.catch_up(loaded.questions[0])
        engine.settle()
        if name == AMBER or engine.is_exact:
            loaded.recalls[name] = loaded.recall(engine)
        else:
            loaded.choose_ef(name, engine)
