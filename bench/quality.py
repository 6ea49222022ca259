"""`python -m bench.quality DATA`: what text search finds, beside SQLite's FTS5, in one run.

DATA is a folder with two public data sets, which are no part of this repository:

    locomo-two.json       two dialogues of LoCoMo (snap-research/LoCoMo): questions, and the turns
                          that are their evidence
    cmrc2018-trial.json   the trial set of CMRC 2018 (ymcui/cmrc2018): Chinese passages, and
                          questions about each

Invariants:
- Every engine gets the same documents and the same questions, and any word of a question counts.
- `Memory.recall` is the layered memory as it is used: every turn an event of its dialogue, which is
  the entity. Its vectors are of WordLlama (`pip install wordllama`), 256 numbers looked up by token
  and averaged: small, and trained on English.
- An interval is the 95 % range of a paired bootstrap over questions, with a fixed seed: of the
  difference to the engine that is named, question by question.
"""

import argparse
import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import amberdb
from amberdb import Fusion, Ordered, Text
from amberdb.index.vector.vector import Embed
from amberdb.memory import Memory
from bench.search_engine import library

DEPTH = 10
RESAMPLES = 10_000
SEED = 20_261_124
DIM = 256
"""Of WordLlama's vectors."""

Search: TypeAlias = Callable[[str, str], list[int]]
"""search(question, group) -> places of the best documents of that group, best first."""
Scores: TypeAlias = dict[str, list[float]]
"""Per engine one figure for each question."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    group: str
    answers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, each of a group (a dialogue), and questions, each to one group."""

    texts: list[str]
    groups: list[str]
    questions: list[Question]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder with the data sets")
    options = parser.parse_args(arguments)
    dialogues = locomo(json.loads((options.data / "locomo-two.json").read_text("utf-8")))
    passages = cmrc(json.loads((options.data / "cmrc2018-trial.json").read_text("utf-8")))
    english: dict[str, Callable[[Collection], Search]] = {
        "amberdb": lambda docs: amberdb_search(docs, Text("text")),
        "amberdb, stop words kept": lambda docs: amberdb_search(
            docs, Text("text", stop_words=False)
        ),
        "amberdb, plain words": lambda docs: amberdb_search(docs, Text("text", language=None)),
        "fts5 porter": lambda docs: fts5_search(docs, "porter unicode61", words),
        "fts5 unicode61": lambda docs: fts5_search(docs, "unicode61", words),
        "fts5 trigram": lambda docs: fts5_search(docs, "trigram", trigrams),
    }
    chinese: dict[str, Callable[[Collection], Search]] = {
        "amberdb": lambda docs: amberdb_search(docs, Text("text")),
        "amberdb, jieba": lambda docs: amberdb_search(docs, Text("text", segmenter="jieba")),
        "fts5 trigram": lambda docs: fts5_search(docs, "trigram", trigrams),
        "fts5 unicode61": lambda docs: fts5_search(docs, "unicode61", words),
    }
    english |= memories()
    chinese |= memories()
    names = list(dict.fromkeys(dialogues.groups))
    apart: Scores = {name: [] for name in english}
    for name in names:
        part = only(dialogues, name)
        figures = {engine: recalls(part, make(part)) for engine, make in english.items()}
        report(f"dialogue {name}, evidence recall@{DEPTH}", figures, "fts5 porter")
        for engine, values in figures.items():
            apart[engine] += values
    report(f"dialogues apart, evidence recall@{DEPTH}", apart, "fts5 porter")
    shared = {engine: recalls(dialogues, make(dialogues)) for engine, make in english.items()}
    report(f"one store, filtered, evidence recall@{DEPTH}", shared, "fts5 porter")
    found = {engine: answers(passages, make(passages)) for engine, make in chinese.items()}
    for title, measure in (("recall@1", first), ("MRR", reciprocal), ("recall@10", recall)):
        figures = {engine: [measure(*pair) for pair in pairs] for engine, pairs in found.items()}
        report(f"Chinese passages, {title}", figures, "fts5 trigram")
    return 0


# -- data ------------------------------------------------------------------------------------


def locomo(samples: list[Any]) -> Collection:
    """Turns as documents, what was said alone; and the questions with evidence among them."""
    result = Collection([], [], [])
    for sample in samples:
        places: dict[str, int] = {}
        for name, turns in sample["conversation"].items():
            if re.fullmatch(r"session_\d+", name):
                for turn in turns:
                    places[turn["dia_id"]] = len(result.texts)
                    result.texts.append(turn["text"])
                    result.groups.append(sample["sample_id"])
        for asked in sample["qa"]:
            answers = frozenset(places[turn] for turn in asked["evidence"] if turn in places)
            if answers:
                result.questions.append(Question(asked["question"], sample["sample_id"], answers))
    return result


def cmrc(data: dict[str, Any]) -> Collection:
    """Passages as documents; each question belongs to its passage."""
    result = Collection([], [], [])
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            place = frozenset([len(result.texts)])
            result.texts.append(paragraph["context"])
            result.groups.append("all")
            result.questions.extend(
                Question(asked["question"], "all", place)
                for asked in paragraph["qas"]
                if asked["question"].strip()
            )
    return result


def only(whole: Collection, group: str) -> Collection:
    """One group, with places of its own."""
    kept = [place for place, of in enumerate(whole.groups) if of == group]
    moved = {place: at for at, place in enumerate(kept)}
    return Collection(
        [whole.texts[place] for place in kept],
        [group] * len(kept),
        [
            Question(asked.text, group, frozenset(moved[place] for place in asked.answers))
            for asked in whole.questions
            if asked.group == group
        ],
    )


# -- engines ---------------------------------------------------------------------------------


def amberdb_search(docs: Collection, spec: Text) -> Search:
    memory = amberdb.open(":memory:").collection("turns", indexes=[Ordered("group"), spec])
    memory.put_many(
        [
            {"id": str(place), "text": text, "group": group}
            for place, (text, group) in enumerate(zip(docs.texts, docs.groups, strict=True))
        ]
    )

    def search(question: str, group: str) -> list[int]:
        plain = question.replace('"', " ")
        hits = memory.search(text=plain, where={"group": group}, limit=DEPTH)
        return [int(hit.id) for hit in hits]

    return search


def memories() -> dict[str, Callable[[Collection], Search]]:
    """With vectors too, where there is something to make them."""
    found: dict[str, Callable[[Collection], Search]] = {"Memory.recall": memory_search}
    embed = word_llama()
    if embed is not None:
        found["Memory.recall, vectors"] = lambda docs: memory_search(docs, embed)
        found["Memory.recall, vectors 1/4"] = lambda docs: memory_search(docs, embed, 0.25)
    return found


def word_llama() -> Embed | None:
    try:
        package = library("wordllama")
    except ModuleNotFoundError:
        print("without vectors: wordllama is not installed")
        return None
    model = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    return lambda texts: model.embed(texts)


def memory_search(docs: Collection, embed: Embed | None = None, weight: float = 1.0) -> Search:
    memory = Memory(
        amberdb.open(":memory:"),
        embed=embed,
        dim=None if embed is None else DIM,
        fusion=Fusion(weights={"embedding": weight}),
    )
    for place, (text, group) in enumerate(zip(docs.texts, docs.groups, strict=True)):
        memory.remember(group, text, memory_layer="event", metadata={"place": place})

    def search(question: str, group: str) -> list[int]:
        found = memory.recall(question, entity_id=group, layers=["event"], limit=DEPTH)
        return [each.document["metadata"]["place"] for each in found]

    return search


def fts5_search(docs: Collection, tokenizer: str, split: Callable[[str], list[str]]) -> Search:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        f"CREATE VIRTUAL TABLE docs USING fts5(text, grp UNINDEXED, tokenize = '{tokenizer}')"
    )
    connection.executemany(
        "INSERT INTO docs (rowid, text, grp) VALUES (?, ?, ?)",
        [(at, *row) for at, row in enumerate(zip(docs.texts, docs.groups, strict=True))],
    )

    def search(question: str, group: str) -> list[int]:
        terms = list(dict.fromkeys(split(question)))
        if not terms:
            return []
        match = " OR ".join(f'"{term}"' for term in terms)
        rows = connection.execute(
            "SELECT rowid FROM docs WHERE docs MATCH ? AND grp = ? ORDER BY rank, rowid LIMIT ?",
            (match, group, DEPTH),
        )
        return [row[0] for row in rows]

    return search


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def trigrams(text: str) -> list[str]:
    return [word[at : at + 3] for word in words(text) for at in range(len(word) - 2)]


# -- figures ---------------------------------------------------------------------------------


def recall(question: Question, found: Sequence[int]) -> float:
    return len(question.answers.intersection(found)) / len(question.answers)


def first(question: Question, found: Sequence[int]) -> float:
    return recall(question, found[:1])


def reciprocal(question: Question, found: Sequence[int]) -> float:
    places = [at for at, place in enumerate(found, 1) if place in question.answers]
    return 1 / places[0] if places else 0.0


def answers(docs: Collection, search: Search) -> list[tuple[Question, list[int]]]:
    return [(asked, search(asked.text, asked.group)) for asked in docs.questions]


def recalls(docs: Collection, search: Search) -> list[float]:
    return [recall(*pair) for pair in answers(docs, search)]


def report(title: str, figures: Scores, beside: str) -> None:
    peer = np.array(figures[beside])
    draw = np.random.default_rng(SEED).integers(0, len(peer), (RESAMPLES, len(peer)))
    print(f"\n{title}, {len(peer)} questions\n")
    for engine, values in figures.items():
        line = f"  {engine:26} {np.mean(values):.3f}"
        if engine != beside:
            low, high = np.percentile((np.array(values) - peer)[draw].mean(axis=1), [2.5, 97.5])
            gain = np.mean(values) - peer.mean()
            line += f"   {gain:+.3f}  [{low:+.3f}, {high:+.3f}]  to {beside}"
        print(line)


if __name__ == "__main__":
    raise SystemExit(main())
