"""The engines of the quality runs: each returns the best documents of one group for a question.

Invariants:
- Any word of a question counts, in every engine.
- Memory.recall is used as an application does: every turn is an event of its dialogue, which is
  the entity. Its vectors are from WordLlama (`pip install wordllama`): 256 numbers looked up by
  token and averaged, trained on English.
"""

import re
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import amberdb
from amberdb import Database, Fusion, Neighbors, Ordered, Text, Vector
from amberdb.index.vector.vector import Embed
from amberdb.memory import Memory
from bench.engines.database import library
from bench.quality.datasets import Collection

DEPTH = 10


DIM = 256
"""Of WordLlama's vectors."""

Search: TypeAlias = Callable[[str, str], list[int]]
"""search(question, group) -> numbers of the best documents of that group, best first."""


def amberdb_search(docs: Collection, spec: Text, db: Database | None = None) -> Search:
    """In `db`, or in a database of its own that is left open."""
    db = db or amberdb.open(":memory:")
    memory = db.collection("turns", indexes=[Ordered("group"), spec])
    memory.put_many(
        [
            {"id": str(number), "text": text, "group": group}
            for number, (text, group) in enumerate(zip(docs.texts, docs.groups, strict=True))
        ]
    )

    def search(question: str, group: str) -> list[int]:
        hits = memory.search(question, where={"group": group}, limit=DEPTH)
        return [int(hit.id) for hit in hits]

    return search


def rankings() -> dict[str, Callable[[Collection], Search]]:
    """Ways to rank the turns of sessions: by text, and by text and vectors when wordllama is
    installed; each alone, and with neighbors."""
    beside = Neighbors(group="session", order="place")
    found: dict[str, Callable[[Collection], Search]] = {
        "text": ranked_search,
        "text, neighbors": lambda docs: ranked_search(docs, neighbors=beside),
    }
    embed = word_llama()
    if embed is not None:
        by_rank = Fusion(method="reciprocal_rank")
        ways: dict[str, dict[str, Any]] = {
            "vectors": {"text": False},
            "hybrid, convex": {},
            "hybrid, reciprocal rank": {"fusion": by_rank},
        }
        for name, way in ways.items():
            found[name] = partial(ranked_search, embed=embed, **way)
            found[f"{name}, neighbors"] = partial(
                ranked_search, embed=embed, neighbors=beside, **way
            )
    return found


def ranked_search(
    docs: Collection, *, embed: Embed | None = None, text: bool = True, **options: Any
) -> Search:
    turns = amberdb.open(":memory:").collection(
        "turns",
        indexes=[
            Ordered("session", "place"),
            Ordered("group"),
            Text("text"),
            Vector("vector", dim=DIM),
        ],
    )
    vectors = [None] * len(docs.texts) if embed is None else embed(docs.said)
    turns.put_many(
        {
            "id": str(place),
            "place": place,
            "session": f"{docs.groups[place]} {docs.sessions[place]}",
            "group": docs.groups[place],
            "text": docs.texts[place],
            "vector": vector,
        }
        for place, vector in enumerate(vectors)
    )

    def search(question: str, group: str) -> list[int]:
        hits = turns.search(
            text=question.replace('"', " ") if text else None,
            vector=None if embed is None else embed([question])[0],
            where={"group": group},
            limit=DEPTH,
            **options,
        )
        return [int(hit.id) for hit in hits]

    return search


def memories() -> dict[str, Callable[[Collection], Search]]:
    """Layered memory without vectors, and with them when wordllama is installed."""
    found: dict[str, Callable[[Collection], Search]] = {
        "Memory.recall": memory_search,
        "Memory.recall, neighbors": lambda docs: memory_search(docs, neighbors=True),
    }
    embed = word_llama()
    if embed is not None:
        found["Memory.recall, vectors"] = lambda docs: memory_search(docs, embed)
        found["Memory.recall, vectors 1/4"] = lambda docs: memory_search(docs, embed, 0.25)
    return found


def word_llama() -> Embed | None:
    try:
        package = library("wordllama")
    except ModuleNotFoundError:
        print("no vectors: wordllama is not installed")
        return None
    model = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    return lambda texts: model.embed(texts)


def memory_search(
    docs: Collection, embed: Embed | None = None, weight: float = 1.0, *, neighbors: bool = False
) -> Search:
    memory = Memory(
        amberdb.open(":memory:"),
        embed=embed,
        dim=None if embed is None else DIM,
        fusion=Fusion(weights={"embedding": weight}),
    )
    for number, (text, group) in enumerate(zip(docs.texts, docs.groups, strict=True)):
        memory.remember(group, text, memory_layer="event", metadata={"place": number})

    def search(question: str, group: str) -> list[int]:
        found = memory.recall(
            question, entity_id=group, layers=["event"], limit=DEPTH, neighbors=neighbors
        )
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
