"""`python -m bench.extraction [DATA]`: which facts RuleExtractor keeps, and what telling one costs.

    facts       the distinct facts of bench/extraction/facts.txt, told one by one to one entity
    dialogues   the turns of DATA/locomo-two.json, each speaker an entity: every stored memory that
                was updated or deleted later, with what changed it
    passages    the sentences of DATA/cmrc2018-trial.json, all of one entity, in the same way
    cost        remember(auto_extract=True) of an entity with 100,000 facts, and with 100, in turns

DATA is a folder with two public data sets, which are not part of this repository.

Invariants:
- A fact is kept when a memory with its text is there at the end, in either layer.
- The result is one JSON object on stdout, and in --json.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import amberdb
from amberdb.memory import Memory, RuleExtractor

FACTS = Path(__file__).with_name("facts.txt")
FEW, MANY = 100, 100_000
TOLD = 50
"""Facts that are told in each round of the cost."""


def kept(language: str) -> dict[str, Any]:
    """The facts of one language that are there after all were told."""
    lines = FACTS.read_text("utf-8").splitlines()
    facts = [text for name, _, text in (line.partition("|") for line in lines) if name == language]
    with amberdb.open(":memory:") as db:
        memory = Memory(db, extract=RuleExtractor())
        for fact in facts:
            memory.remember("u", fact, auto_extract=True)
        there = {
            each["content"] for each in (*memory.profile("u"), *memory.events("u", limit=1000))
        }
    lost = [fact for fact in facts if fact not in there]
    return {"kept": len(facts) - len(lost), "of": len(facts), "lost": lost}


def changed(told: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Tells texts of entities: the actions, and the memories that were changed by later ones."""
    actions: Counter[str] = Counter()
    pairs: list[dict[str, Any]] = []
    with amberdb.open(":memory:", background=False) as db:
        memory = Memory(db, extract=RuleExtractor())
        texts = 0
        for entity, text in told:
            texts += 1
            for outcome in memory.remember(entity, text, auto_extract=True):
                actions[outcome.action] += 1
                if outcome.action in ("update", "delete"):
                    entry = db.collection("log")[outcome.log_id]
                    then = entry["after"] or {"content": outcome.reason}
                    pairs.append(
                        {
                            "action": outcome.action,
                            "before": entry["before"]["content"],
                            "then": then["content"],
                        }
                    )
    return {"texts": texts, "actions": dict(actions), "changed": pairs}


def turns(path: Path) -> list[tuple[str, str]]:
    """The turns of the dialogues, with their speakers."""
    told: list[tuple[str, str]] = []
    for sample in json.loads(path.read_text("utf-8")):
        conversation: dict[str, Any] = sample["conversation"]
        for name, session in conversation.items():
            if re.fullmatch(r"session_\d+", name):
                told += [
                    (f"{sample['sample_id']} {turn['speaker']}", turn["text"]) for turn in session
                ]
    return [(entity, text) for entity, text in told if text.strip()]


def passages(path: Path) -> list[tuple[str, str]]:
    """The passages, as told by one entity."""
    articles = json.loads(path.read_text("utf-8"))["data"]
    return [("u", part["context"]) for article in articles for part in article["paragraphs"]]


def cost(rounds: int, many: int) -> dict[str, Any]:
    """The time of telling one fact to an entity that has many, over one that has few."""
    with tempfile.TemporaryDirectory() as directory, amberdb.open(Path(directory) / "db") as db:
        memory = Memory(db, extract=RuleExtractor())
        _fill(memory, "few", FEW)
        _fill(memory, "many", many)
        db.checkpoint()
        times: dict[str, list[float]] = {"few": [], "many": []}
        for turn in range(rounds):
            for entity in sorted(times, reverse=bool(turn % 2)):
                times[entity].append(_told(memory, entity, turn))
    low, high = median(times["few"]), median(times["many"])
    rates = [high / low for low, high in zip(times["few"], times["many"], strict=True)]
    return {
        f"with {FEW} facts ms": round(low * 1000, 3),
        f"with {many} facts ms": round(high * 1000, 3),
        "ratio": round(high / low, 2),
        "ratio of single rounds": [round(min(rates), 2), round(max(rates), 2)],
        "rounds": rounds,
    }


def _fill(memory: Memory, entity: str, count: int) -> None:
    for start in range(0, count, 1000):
        memory.remember_many(
            (
                {"entity_id": entity, "content": f"I like the number {number} of {entity}"}
                for number in range(start, min(start + 1000, count))
            ),
            memory_layer="profile",
        )


def _told(memory: Memory, entity: str, turn: int) -> float:
    """Seconds of one call: of new facts, known ones and contraries."""
    began = time.perf_counter()
    for number in range(TOLD):
        text = (
            f"I like the thing {turn}.{number} of {entity}",
            f"I like the number {number} of {entity}",
            f"I don't like the thing {turn}.{number - 2} of {entity}",
        )[number % 3]
        memory.remember(entity, text, auto_extract=True)
    return (time.perf_counter() - began) / TOLD


def run(options: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    result: dict[str, Any] = {"facts": {name: kept(name) for name in ("en", "zh")}}
    if options.data is not None:
        result["dialogues"] = changed(turns(options.data / "locomo-two.json"))
        result["passages"] = changed(passages(options.data / "cmrc2018-trial.json"))
    if options.rounds:
        result["cost"] = cost(options.rounds, options.many)
    return result | {
        "command": "python -m bench.extraction " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.extraction", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="the folder with the data sets")
    parser.add_argument("--rounds", type=int, default=9, help="of the cost; 0: not measured")
    parser.add_argument("--many", type=int, default=MANY, help="facts of the large entity")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(arguments)
    result = run(options)
    for name, each in result["facts"].items():
        print(f"facts kept of {each['of']}, {name}: {each['kept']}", file=sys.stderr)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
