"""A row about neighbors: a search by text alone, and with the documents beside each hit.

Invariants:
- Sessions of 40 documents, interleaved in time as those of many users are.
"""

from collections.abc import Callable, Iterator
from functools import partial

import amberdb
from amberdb import Collection, Neighbors, Ordered, Text
from bench.engines.search_engine import HITS
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import texts
from bench.workloads.events import BATCH_DOCUMENTS

_SESSION = 40
_RATIO_MAX = 2.0
_BESIDE = Neighbors(group="session", order="created_at")


def neighbors(context: Context) -> Iterator[Line]:
    """AmberDB alone: the same questions without and with neighbors, in turns."""
    scale = context.scale
    with amberdb.open(context.directory / "neighbors") as db:
        turns = db.collection("turns", indexes=[Ordered("session", "created_at"), Text("content")])
        _load(turns, scale.texts)
        db.checkpoint()
        words = texts.questions(texts.COMMON, scale.questions)
        ways: dict[str, Callable[[int, Sampler], None]] = {
            name: partial(_turn, turns, words, beside)
            for name, beside in (("alone", None), ("with neighbors", _BESIDE))
        }
        measured = interleave(scale.rounds, ways)
    of = f"of {scale.texts:,}, common words, decoded"
    for name, figures in measured.items():
        yield Line("neighbors", f"BM25 top {HITS} {of}, {name}", "us", {AMBER: figures})
    pairs = zip(measured["with neighbors"].rounds, measured["alone"].rounds, strict=True)
    ratio = Measured([beside / alone for beside, alone in pairs], scale.rounds)
    budget = Budget(_RATIO_MAX, against="", kind="at most")
    yield Line("neighbors", "time with neighbors over time without", "x", {AMBER: ratio}, budget)


def _load(turns: Collection, count: int) -> None:
    sessions = max(count // _SESSION, 1)
    for start in range(0, count, BATCH_DOCUMENTS):
        batch = texts.documents(start, min(BATCH_DOCUMENTS, count - start))
        turns.put_many(
            {**document, "session": (start + place) % sessions}
            for place, document in enumerate(batch)
        )


def _turn(
    turns: Collection, words: list[str], beside: Neighbors | None, number: int, sampler: Sampler
) -> None:
    del number  # every round asks the same questions
    sampler.each(lambda question: turns.search(question, neighbors=beside), words)


ROWS = (Row("neighbors", "a search by text, without and with neighbors", neighbors),)
