"""A row about hybrid search: text and a vector in one search, at several limits.

Invariants:
- Every search returns as many documents as its limit, or the row raises.
"""

from collections.abc import Callable, Iterator
from functools import partial

from bench.engines.amber_search import AmberHybrid
from bench.engines.search_engine import HITS
from bench.harness.context import Context
from bench.harness.line import AMBER, Line
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.rows.vector_fleet import vector_fleet
from bench.workloads import texts
from bench.workloads.vectors import Vectors

_LIMITS = (5, HITS, 50)

_Question = tuple[str, Vectors]


def hybrid(context: Context) -> Iterator[Line]:
    """AmberDB alone; the time per search shows what each returned document costs."""
    scale = context.scale
    loaded = vector_fleet(context)
    engine = loaded.fleet.engines(AMBER)[AMBER]
    assert isinstance(engine, AmberHybrid)
    words = texts.questions(texts.COMMON, len(loaded.questions))
    questions = list(zip(words, loaded.questions, strict=True))
    for limit in _LIMITS:
        _require(engine, questions[0], limit)
    turns: dict[str, Callable[[int, Sampler], None]] = {
        str(limit): partial(_turn, engine, questions, limit) for limit in _LIMITS
    }
    measured = interleave(scale.rounds, turns)
    size = f"{scale.vectors:,} x {scale.dim}"
    for limit in _LIMITS:
        title = f"hybrid top {limit} of {size}, common words and a vector, decoded"
        yield Line("hybrid", title, "us", {AMBER: measured[str(limit)]})


def _turn(
    engine: AmberHybrid, questions: list[_Question], limit: int, number: int, sampler: Sampler
) -> None:
    del number  # every round asks the same questions
    sampler.each(lambda question: engine.both(*question, limit), questions)


def _require(engine: AmberHybrid, question: _Question, limit: int) -> None:
    found = len(engine.both(*question, limit))
    if found != limit:
        raise RuntimeError(f"a hybrid search of limit {limit} returned {found} documents")


ROWS = (Row("hybrid", "text and a vector in one search, limit 5, 10 and 50", hybrid),)
