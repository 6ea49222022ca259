"""The demo's questions: full-text search of the stored dialogue.

A line: {id, entity_id, lang, question, answer, evidence: [ids of turns]}. The questions are about
the packaged dialogue.

Invariants:
- A question counts as answered when a turn with its answer is among the first TOP hits.
"""

from dataclasses import dataclass
from typing import Any, Final

from amberdb import Collection
from amberdb.demo.data import packaged_lines

TOP: Final = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, its expected answer, and the turn that the search found."""

    lang: str
    question: str
    answer: str
    found: str | None
    """The text of the first hit that holds the answer."""
    rank: int | None
    """The rank of that hit, from 1."""


def read_questions() -> list[dict[str, Any]]:
    """The packaged questions."""
    return packaged_lines("questions.jsonl")


def ask(log: Collection, question: dict[str, Any]) -> Answer:
    """Searches the turns of the question's person for the words of the question."""
    hits = log.search(question["question"], where={"entity_id": question["entity_id"]}, limit=TOP)
    rank, found = next(
        (
            (rank, hit.document["content"])
            for rank, hit in enumerate(hits, 1)
            if hit.id in question["evidence"]
        ),
        (None, None),
    )
    return Answer(question["lang"], question["question"], question["answer"], found, rank)
