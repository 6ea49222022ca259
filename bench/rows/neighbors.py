"""A row about neighbors: a search by text alone, and with the documents beside each hit.

Invariants:
- Sessions of 40 documents, interleaved in time as those of many users are.
"""

from collections.abc import Iterator

from bench.engines.amber_search import AmberSessions
from bench.engines.search_engine import HITS
from bench.harness.family import Family
from bench.harness.line import Budget
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.harness.scale import Scale
from bench.workloads import texts
from bench.workloads.events import Document

_SESSION = 40
_RATIO_MAX = 2.0
_ALONE = "alone"


def _documents(scale: Scale, start: int, count: int) -> Iterator[Document]:
    sessions = max(scale.texts // _SESSION, 1)
    for number, document in enumerate(texts.documents(start, count), start):
        yield {**document, "session": number % sessions}


SESSIONS: Family[AmberSessions] = Family(
    name="sessions",
    kinds=(AmberSessions,),
    count=lambda scale: scale.texts,
    documents=_documents,
    rounds=lambda scale: scale.search_rounds,
    has_first_row=True,
)


def _questions(draw: Draw) -> list[str]:
    return texts.questions(texts.COMMON, draw.count(draw.scale.questions))


NEIGHBORS: Operation[AmberSessions, str] = Operation(
    title=f"BM25 top {HITS} of {{scale.texts:,}}, common words, with neighbors, decoded",
    family=SESSIONS,
    items=_questions,
    call=lambda engine, question: engine.find_beside(question),
    ways={_ALONE: lambda engine, question: engine.find(question)},
    budget=Budget(_RATIO_MAX, against=_ALONE, kind="at most"),
)

ROWS = (Row("neighbors", "a search by text, without and with neighbors", operations=(NEIGHBORS,)),)
