"""The data sets of the quality runs, as documents and questions: public ones of other projects, and
typed.jsonl, which is kept here: texts as people write them, and what somebody types who looks for
one of them. Each line is a text, its kind, and its queries."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TYPED = Path(__file__).with_name("typed.jsonl")


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    group: str
    answers: frozenset[int]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, each in a group (a dialogue), and questions, each about one group."""

    texts: list[str]
    groups: list[str]
    questions: list[Question]
    sessions: list[int]
    """Of each document: those of one session follow one another."""
    said: list[str]
    """The text to embed: that of a turn with its speaker, who is often asked about."""


def locomo(samples: list[Any]) -> Collection:
    """The texts of the turns as documents, and the questions that have evidence among them."""
    result = Collection([], [], [], [], [])
    for sample in samples:
        numbers: dict[str, int] = {}
        for name, turns in sample["conversation"].items():
            if re.fullmatch(r"session_\d+", name):
                for turn in turns:
                    numbers[turn["dia_id"]] = len(result.texts)
                    result.texts.append(turn["text"])
                    result.said.append(f"{turn['speaker']}: {turn['text']}")
                    result.sessions.append(int(name.removeprefix("session_")))
                    result.groups.append(sample["sample_id"])
        for asked in sample["qa"]:
            answers = frozenset(numbers[turn] for turn in asked["evidence"] if turn in numbers)
            if answers:
                result.questions.append(Question(asked["question"], sample["sample_id"], answers))
    return result


def cmrc(data: dict[str, Any]) -> Collection:
    """Passages as documents; the answer to a question is its passage."""
    result = Collection([], [], [], [], [])
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            number = frozenset([len(result.texts)])
            result.texts.append(paragraph["context"])
            result.said.append(paragraph["context"])
            result.sessions.append(0)
            result.groups.append("all")
            result.questions.extend(
                Question(asked["question"], "all", number)
                for asked in paragraph["qas"]
                if asked["question"].strip()
            )
    return result


def typed() -> Collection:
    """The texts of typed.jsonl; each query has one answer."""
    result = Collection([], [], [], [], [])
    for line in TYPED.read_text("utf-8").splitlines():
        kept = json.loads(line)
        number = frozenset([len(result.texts)])
        result.texts.append(kept["text"])
        result.said.append(kept["text"])
        result.sessions.append(0)
        result.groups.append("all")
        result.questions.extend(
            Question(query, "all", number, kept["kind"]) for query in kept["queries"]
        )
    return result


def only(whole: Collection, group: str) -> Collection:
    """The documents and questions of one group, renumbered."""
    kept = [number for number, owner in enumerate(whole.groups) if owner == group]
    renumbered = {old: new for new, old in enumerate(kept)}
    return Collection(
        [whole.texts[number] for number in kept],
        [group] * len(kept),
        [
            Question(asked.text, group, frozenset(renumbered[number] for number in asked.answers))
            for asked in whole.questions
            if asked.group == group
        ],
        [whole.sessions[number] for number in kept],
        [whole.said[number] for number in kept],
    )
