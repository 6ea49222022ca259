"""Rows about text search: BM25 queries, and puts into a text index.

Invariants:
- Engines differ in BM25 constants and stemming, so answers are not equal; before a query is timed,
  enough of AmberDB's best documents have to be among those of FTS5, or the row raises.
"""

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns

from bench.engines.amber_search import AmberText
from bench.engines.fts5 import Fts5Peer
from bench.engines.search_engine import HITS, SearchEngine, TextEngine
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.rows.fleet import recall_of, text_fleet
from bench.workloads import texts
from bench.workloads.events import BATCH_DOCUMENTS, Document, ids, in_batches

_FTS5 = Fts5Peer.name
_SHARED_MIN = 0.5
"""Of AmberDB's ten best documents, on average."""


def bm25(context: Context) -> Iterator[Line]:
    fleet = text_fleet(context)
    for title, ranks, budget in (
        ("common words", texts.COMMON, Budget(10, 40, against=_FTS5)),
        ("rare words", texts.RARE, Budget(1, 2, against=_FTS5)),
    ):
        engines = fleet.engines()
        questions = texts.questions(ranks, context.scale.questions)
        shared = _shared(engines, questions)
        turns = {name: _turn(engine, questions) for name, engine in engines.items()}
        measured = interleave(context.scale.rounds, turns)
        title = f"BM25 top {HITS} of {context.scale.texts:,}, {title}, decoded"
        notes = {f"share of the top {HITS} that fts5 has too": f"{shared:.2f}", **fleet.left_out}
        yield Line("bm25", title, "us", measured, budget, notes)


def _turn(engine: TextEngine, questions: list[str]) -> Callable[[int, Sampler], None]:
    return lambda number, sampler: sampler.each(engine.find, questions)


def _shared(engines: Mapping[str, TextEngine], questions: list[str]) -> float:
    """The share; raises RuntimeError when it is below _SHARED_MIN."""
    found = {
        name: [ids(engines[name].find(question)) for question in questions]
        for name in (AMBER, _FTS5)
    }
    shared = recall_of(found[AMBER], found[_FTS5])
    if shared < _SHARED_MIN:
        raise RuntimeError(f"{AMBER} and {_FTS5} share {shared:.2f} of their best documents")
    return shared


def text_ingest(context: Context) -> Iterator[Line]:
    """Each round fills new databases. LanceDB is left out: it indexes after the load."""
    scale = context.scale
    batches = list(in_batches(texts.documents(0, scale.texts)))
    settled: dict[str, Sampler] = {AMBER: Sampler(), _FTS5: Sampler()}

    def turn(kind: type[TextEngine]) -> Callable[[int, Sampler], None]:
        def run(number: int, sampler: Sampler) -> None:
            path = context.directory / "text-ingest" / f"{kind.name}-{number}"
            engine = kind(path)
            samples = time_batches(engine, batches)
            before = perf_counter_ns()
            engine.settle()
            settling = perf_counter_ns() - before
            engine.close()
            sampler.add_round(sum(samples), samples, operations=scale.texts)
            settled[kind.name].add_round(sum(samples) + settling, operations=scale.texts)

        return run

    kinds = (AmberText, Fts5Peer)
    measured = interleave(scale.builds, {kind.name: turn(kind) for kind in kinds})
    title = f"durable commits of {BATCH_DOCUMENTS:,} texts, per document"
    budget = Budget(0.6, 1.2, against=_FTS5)
    yield Line("text_ingest", title, "us", measured, budget)
    final = {name: sampler.measured() for name, sampler in settled.items()}
    yield Line("text_ingest", f"{title}, until settled", "us", final, budget)


def time_batches(engine: SearchEngine, batches: list[list[Document]]) -> list[int]:
    """Nanoseconds of each put_many()."""
    samples: list[int] = []
    for batch in batches:
        before = perf_counter_ns()
        engine.put_many(batch)
        samples.append(perf_counter_ns() - before)
    return samples


ROWS = (
    Row("bm25", "the best ten documents for common words, and for rare ones", bm25),
    Row("text_ingest", "batches of 1,000 texts, durable, and until settled", text_ingest),
)
