"""Rows about text search: BM25 queries, puts into a text index, and snippets.

Invariants:
- Snippets are of English and Chinese, about SNIPPETS_BYTES of each. Half of their questions have a
  word that no text has, so that the texts are read to their ends.
- Engines differ in BM25 constants and stemming, so answers are not equal; before a query is timed,
  enough of AmberDB's best documents have to be among those of FTS5, or the row raises.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter_ns, process_time_ns

from amberdb.index.text.analyzer import Analyzer
from amberdb.index.text.highlight import Snippets
from amberdb.index.text.query import TextQuery, plain
from bench.engines.amber_search import AmberText
from bench.engines.database import Database
from bench.engines.fts5 import Fts5Peer
from bench.engines.search_engine import HITS, TextEngine
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line
from bench.harness.operation import Draw, Notes, Operation
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.harness.state import FRESH, FULL, KILLED, OPENED
from bench.rows.families import TEXTS, recall_of
from bench.workloads import texts
from bench.workloads.events import BATCH_DOCUMENTS, Document, ids, in_batches

_FTS5 = Fts5Peer.name
_SHARED_MIN = 0.5
"""Of AmberDB's ten best documents, on average."""
SNIPPETS_BYTES = 1_000_000
_MS_PER_MB_MAX = 10.0
_QUESTIONS = 6
_ABSENT = {"English": "zebra", "Chinese": "斑马"}


def _asked(ranks: range) -> Callable[[Draw], list[str]]:
    """Other questions in each round."""

    def items(draw: Draw) -> list[str]:
        count = draw.count(draw.scale.questions)
        return texts.questions(ranks, (draw.number + 1) * count)[-count:]

    return items


def _share(answers: Mapping[str, Sequence[list[str]]], draw: Draw) -> Notes:
    """Raises RuntimeError when AmberDB shares too few of its best documents with FTS5."""
    del draw
    if _FTS5 not in answers:
        return {}
    shared = recall_of(answers[AMBER], answers[_FTS5])
    if shared < _SHARED_MIN:
        raise RuntimeError(f"{AMBER} and {_FTS5} share {shared:.2f} of their best documents")
    return {f"share of the top {HITS} that fts5 has too": f"{shared:.2f}"}


def _bm25(title: str, ranks: range, budget: Budget) -> Operation[TextEngine, str]:
    return Operation(
        title=f"BM25 top {HITS} of {{scale.texts:,}}, {title}, decoded",
        family=TEXTS,
        items=_asked(ranks),
        call=lambda engine, question: engine.find(question),
        answer=lambda engine, question: ids(engine.find(question)),
        check=_share,
        checked=(AMBER, _FTS5),
        budget=budget,
    )


def _pairs(draw: Draw) -> list[tuple[str, str]]:
    """A rare pair of Han characters, and a rare word."""
    count = draw.count(draw.scale.questions)
    pairs = texts.names(texts.RARE_NAMES, (draw.number + 1) * count)[-count:]
    words = [question.split()[0] for question in _asked(texts.RARE)(draw)]
    return list(zip(pairs, words, strict=True))


HAN: Operation[TextEngine, tuple[str, str]] = Operation(
    title=f"BM25 top {HITS} of {{scale.texts:,}}, a pair of Han characters, decoded",
    family=TEXTS,
    items=_pairs,
    call=lambda engine, item: engine.find(item[0]),
    kinds=(AMBER,),
    ways={"a rare word": lambda engine, item: engine.find(item[1])},
    budget=Budget(1, against="a rare word", kind="at most"),
)
_SETTLED_SEARCHES = 3


def _settled_searches(engine: TextEngine, question: str) -> None:
    for _ in range(_SETTLED_SEARCHES):
        engine.find(question)


_AS_SETTLED = f"{_SETTLED_SEARCHES} later searches"
FIRST: Operation[TextEngine, str] = Operation(
    title="first search by common words after {scale.fresh:,} or {scale.full:,} texts, or an open",
    family=TEXTS,
    items=lambda draw: _asked(texts.COMMON)(draw)[:1],
    call=lambda engine, question: engine.find(question),
    kinds=(AMBER, _FTS5),
    ways={_AS_SETTLED: _settled_searches},
    budget=Budget(1, against=_AS_SETTLED, kind="at most"),
    states=(FRESH, FULL, OPENED, KILLED),
    restaged=True,
)


def text_ingest(context: Context) -> Iterator[Line]:
    """Each round fills new databases. LanceDB is left out: it indexes after the load."""
    scale = context.scale
    batches = list(in_batches(texts.documents(0, scale.texts)))
    settled: dict[str, Sampler] = {AMBER: Sampler(), _FTS5: Sampler()}

    def turn(kind: type[TextEngine]) -> Callable[[int, Sampler], None]:
        def run(number: int, sampler: Sampler) -> None:
            path = context.directory / "text-ingest" / f"{kind.name}-{number}"
            engine = kind(path)
            cpu = process_time_ns()
            samples = time_batches(engine, batches)
            put = process_time_ns()
            before = perf_counter_ns()
            engine.settle()
            elapsed = sum(samples) + perf_counter_ns() - before
            end = process_time_ns()
            engine.close()
            sampler.add_round(sum(samples), samples, operations=scale.texts, cpu_ns=put - cpu)
            whole = settled[kind.name]
            whole.add_round(elapsed, operations=scale.texts, cpu_ns=end - cpu)

        return run

    kinds = (AmberText, Fts5Peer)
    measured = interleave(scale.builds, {kind.name: turn(kind) for kind in kinds})
    title = f"durable commits of {BATCH_DOCUMENTS:,} texts, per document"
    yield Line("text_ingest", title, "us", measured, Budget(1.3, 2, against=_FTS5))
    final = {name: sampler.measured() for name, sampler in settled.items()}
    budget = Budget(0.6, 1.2, against=_FTS5)
    yield Line("text_ingest", f"{title}, until settled", "us", final, budget)


def time_batches(engine: Database, batches: list[list[Document]]) -> list[int]:
    """Nanoseconds of each put_many()."""
    samples: list[int] = []
    for batch in batches:
        before = perf_counter_ns()
        engine.put_many(batch)
        samples.append(perf_counter_ns() - before)
    return samples


def snippets(context: Context) -> Iterator[Line]:
    """Against the analysis of the same texts."""
    analyzer = Analyzer.of()
    for language, sentences in (
        ("English", _english()),
        ("Chinese", texts.sentences(SNIPPETS_BYTES // 40)),
    ):
        whole = _cut(" ".join(sentences) if language == "English" else "".join(sentences))
        queries = [
            plain(f"{question} {_ABSENT[language]}" if number % 2 else question, analyzer)
            for number, question in enumerate(_questions(language, sentences))
        ]
        short = sentences[: len(sentences) // 2]
        budget = Budget(_MS_PER_MB_MAX, against="", kind="at most")
        for title, unit, documents, count, limit in (
            (f"{language}, of one long text", "ms/MB", [whole], len(whole.encode()) / 1e6, budget),
            (f"{language}, of {HITS} short texts, each", "us", short, len(short) / 1e3, None),
        ):
            ways: dict[str, Callable[[int, Sampler], None]] = {
                AMBER: partial(_shown, documents, count, queries),
                "analysis": partial(_analyzed, documents, count, analyzer),
            }
            yield Line("snippets", title, unit, interleave(context.scale.rounds, ways), limit)


def _english() -> list[str]:
    contents = (str(document["content"]) for document in texts.documents(0, 4 * BATCH_DOCUMENTS))
    return [f"{content}." for content in contents if content.isascii()]


def _cut(text: str) -> str:
    return text.encode()[:SNIPPETS_BYTES].decode(errors="ignore")


def _questions(language: str, sentences: list[str]) -> list[str]:
    if language == "English":
        return texts.questions(texts.COMMON, _QUESTIONS)
    step = len(sentences) // _QUESTIONS
    return sentences[::step][:_QUESTIONS]


def _shown(
    documents: list[str], count: float, queries: list[TextQuery], number: int, sampler: Sampler
) -> None:
    del number  # every round asks the same questions
    before = perf_counter_ns()
    for query in queries:
        for start in range(0, len(documents), HITS):
            hits = documents[start : start + HITS]
            shown = Snippets(len(hits))
            for document in hits:
                shown.of([document], query)
    _note(sampler, (perf_counter_ns() - before) / len(queries), count)


def _analyzed(
    documents: list[str], count: float, analyzer: Analyzer, number: int, sampler: Sampler
) -> None:
    del number
    before = perf_counter_ns()
    for document in documents:
        analyzer.terms(document)
    _note(sampler, perf_counter_ns() - before, count)


def _note(sampler: Sampler, elapsed_ns: float, count: float) -> None:
    """Notes milliseconds for each MB, or microseconds for each text, counted in thousands."""
    sampler.add_round(elapsed_ns / count / 1e3, operations=1)


ROWS = (
    Row(
        "bm25",
        "the best ten documents for common words, for rare ones, and for two Han characters",
        operations=(
            _bm25("common words", texts.COMMON, Budget(15, 25, against=_FTS5)),
            _bm25("rare words", texts.RARE, Budget(1.1, 2, against=_FTS5)),
            HAN,
        ),
    ),
    Row("text_first", "the first search after a load, an open, a kill", operations=(FIRST,)),
    Row("text_ingest", "batches of 1,000 texts, durable, and until settled", text_ingest),
    Row("snippets", "the part of a text that matched, for each MB of the texts", snippets),
)
