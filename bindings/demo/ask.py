"""The demo's questions: asked of the stored dialogue by their words alone.

A line: {id, entity_id, lang, question, answer, evidence: [ids of turns]}; they belong to the
packaged dialogue.

Invariants:
- A question counts as answered when a turn that holds its answer is among the first TOP hits.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from amberdb._jsonl.text import loads
from amberdb.engine.database.collection import Collection

TOP: Final = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and what came of it."""

    lang: str
    question: str
    answer: str
    found: str | None
    """The text of the first turn that holds the answer."""
    place: int | None
    """Of that turn among the hits, from 1."""


def read_questions() -> list[dict[str, Any]]:
    packaged = files("amberdb.demo") / "questions.jsonl"
    return [loads(line) for line in packaged.read_bytes().splitlines() if line.strip()]


def ask(log: Collection, question: dict[str, Any]) -> Asked:
    """The question's words, put to what was said by or to its person."""
    hits = log.search(question["question"], where={"entity_id": question["entity_id"]}, limit=TOP)
    place, found = next(
        (
            (place, hit.document["content"])
            for place, hit in enumerate(hits, 1)
            if hit.id in question["evidence"]
        ),
        (None, None),
    )
    return Asked(question["lang"], question["question"], question["answer"], found, place)
