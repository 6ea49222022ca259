"""Power loss after every file operation of short workloads, in ten modes: a slice of the campaign
in sweep.py, which takes all sequences of up to three steps."""

from itertools import product

import pytest

from support.images import MODES
from support.sweep import Figures, Sweep
from support.workload import (
    ALPHABET,
    SEARCH_ALPHABET,
    crowd,
    follow,
    prepare,
    prepare_search,
)

PAIRS = [tuple(pair) for pair in product(ALPHABET, repeat=2)]


@pytest.mark.slow
@pytest.mark.parametrize("first", ALPHABET)
def test_every_pair_of_steps(first: str) -> None:
    figures = Figures()
    for pair in PAIRS:
        if pair[0] == first:
            steps = [prepare, *(ALPHABET[name] for name in pair)]
            Sweep(figures, "+".join(pair), steps).run(recoveries=0.01)
    assert figures.points > 500
    assert all(figures.images[mode] for mode in MODES), figures.line()


def test_a_delete_of_what_is_gone() -> None:
    """It wrote nothing, and is acknowledged as of class `always` all the same."""
    steps = [prepare, ALPHABET["delete"], ALPHABET["delete"], ALPHABET["put"]]
    Sweep(Figures(), "delete+delete+put", steps).run()


@pytest.mark.slow
@pytest.mark.parametrize("first", SEARCH_ALPHABET)
def test_every_pair_of_steps_with_text_indexes(first: str) -> None:
    figures = Figures()
    for second in SEARCH_ALPHABET:
        steps = [prepare_search, SEARCH_ALPHABET[first], SEARCH_ALPHABET[second]]
        Sweep(figures, f"{first}+{second}", steps).run(recoveries=0.01)
    assert figures.points > 300


@pytest.mark.slow
def test_commits_of_eight_threads() -> None:
    steps = [prepare, crowd, ALPHABET["checkpoint"], crowd]
    Sweep(Figures(), "crowd", steps).run(recoveries=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_openings_of_openings(seed: int) -> None:
    """The opening of a crashed database is crashed, and so is the next one."""
    figures = Figures()
    names = ("burst", "big_put", "index", "big_put", "expire", "burst")
    steps = [prepare, follow, *(ALPHABET[name] for name in names)]
    Sweep(figures, "openings", steps, seed=seed).run(recoveries=0.3)
    assert figures.inner_traces > 30
