"""Scores of the quality runs, and their report.

Invariants:
- An interval is the 95 % range of a paired bootstrap over questions, with a fixed seed, of the
  difference to the engine that is named.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from bench.quality.datasets import Collection, Question
from bench.quality.searches import Search

RESAMPLES = 10_000
SEED = 20_261_124


Scores: TypeAlias = dict[str, list[float]]
"""By engine, one figure for each question."""


def recall(question: Question, found: Sequence[int]) -> float:
    return len(question.answers.intersection(found)) / len(question.answers)


def first(question: Question, found: Sequence[int]) -> float:
    return recall(question, found[:1])


def reciprocal(question: Question, found: Sequence[int]) -> float:
    ranks = [rank for rank, number in enumerate(found, 1) if number in question.answers]
    return 1 / ranks[0] if ranks else 0.0


def answers(docs: Collection, search: Search) -> list[tuple[Question, list[int]]]:
    return [(asked, search(asked.text, asked.group)) for asked in docs.questions]


def recalls(docs: Collection, search: Search) -> list[float]:
    return [recall(*pair) for pair in answers(docs, search)]


def report(title: str, figures: Scores, beside: str) -> None:
    peer = np.array(figures[beside])
    draw = np.random.default_rng(SEED).integers(0, len(peer), (RESAMPLES, len(peer)))
    print(f"\n{title}, {len(peer)} questions\n")
    for engine, values in figures.items():
        line = f"  {engine:36} {np.mean(values):.3f}"
        if engine != beside:
            low, high = np.percentile((np.array(values) - peer)[draw].mean(axis=1), [2.5, 97.5])
            gain = np.mean(values) - peer.mean()
            line += f"   {gain:+.3f}  [{low:+.3f}, {high:+.3f}]  to {beside}"
        print(line)
