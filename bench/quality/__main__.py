"""`python -m bench.quality DATA`: what text search finds, compared with SQLite's FTS5 in one run.

DATA is a folder with two public data sets, which are not part of this repository:

    locomo-two.json       two dialogues of LoCoMo (snap-research/LoCoMo): questions, and the turns
                          that are their evidence
    cmrc2018-trial.json   the trial set of CMRC 2018 (ymcui/cmrc2018): Chinese passages, and
                          questions about each

The typed queries of bench/quality/typed.jsonl come in addition, by their kinds: identifiers, signs,
paths, accents, emoji, mixed scripts, typos, stop words.

Invariants:
- Every engine gets the same documents and the same questions.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from amberdb import Text
from bench.quality.datasets import Collection, cmrc, locomo, only, typed
from bench.quality.scores import Scores, answers, first, recall, recalls, reciprocal, report
from bench.quality.searches import (
    DEPTH,
    Search,
    amberdb_search,
    fts5_search,
    memories,
    rankings,
    trigrams,
    words,
)


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
    parts = [only(dialogues, name) for name in names]
    ranked = {
        way: [each for part in parts for each in recalls(part, make(part))]
        for way, make in rankings().items()
    }
    report(f"dialogues apart, ways to rank, evidence recall@{DEPTH}", ranked, "text")
    pairs = [(way, f"{way}, neighbors") for way in ranked if f"{way}, neighbors" in ranked]
    by_rank = "hybrid, reciprocal rank"
    pairs += [
        (f"{by_rank}{end}", f"hybrid, convex{end}")
        for end in ("", ", neighbors")
        if by_rank in ranked
    ]
    for beside, way in pairs:
        report(f"{way} to {beside}", {beside: ranked[beside], way: ranked[way]}, beside)
    shared = {engine: recalls(dialogues, make(dialogues)) for engine, make in english.items()}
    report(f"one store, filtered, evidence recall@{DEPTH}", shared, "fts5 porter")
    found = {engine: answers(passages, make(passages)) for engine, make in chinese.items()}
    for title, measure in (("recall@1", first), ("MRR", reciprocal), ("recall@10", recall)):
        figures = {engine: [measure(*pair) for pair in pairs] for engine, pairs in found.items()}
        report(f"Chinese passages, {title}", figures, "fts5 trigram")
    _report_typed()
    return 0


def _report_typed() -> None:
    kept = typed()
    engines = {
        "amberdb": amberdb_search(kept, Text("text")),
        "fts5 porter": fts5_search(kept, "porter unicode61", words),
        "fts5 trigram": fts5_search(kept, "trigram", trigrams),
    }
    found = {engine: answers(kept, search) for engine, search in engines.items()}
    for title, measure in (("recall@1", first), ("MRR", reciprocal)):
        figures = {engine: [measure(*pair) for pair in pairs] for engine, pairs in found.items()}
        report(f"typed queries, {title}", figures, "fts5 porter")
    for kind in dict.fromkeys(question.kind for question in kept.questions):
        figures = {
            engine: [first(*pair) for pair in pairs if pair[0].kind == kind]
            for engine, pairs in found.items()
        }
        report(f"typed queries, {kind}, recall@1", figures, "fts5 porter")


if __name__ == "__main__":
    raise SystemExit(main())
