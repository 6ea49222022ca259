"""Power loss after every file operation of short workloads, in ten modes: a slice of the campaign
in sweep.py, which takes all sequences of up to three steps."""

from itertools import product

import pytest

from amberdb.index.vector.hnsw import library
from support.images import MODES
from support.sweep import Figures, Sweep
from support.workload import (
    ALPHABET,
    ALPHABETS,
    SCHEMA_ALPHABET,
    TEXT_ALPHABET,
    compact,
    erase,
    follow,
    prepare,
    sequence,
)

PAIRS = [tuple(pair) for pair in product(ALPHABET, repeat=2)]


@pytest.mark.slow
@pytest.mark.parametrize("first", ALPHABET)
def test_every_pair_of_steps(first: str) -> None:
    figures = Figures()
    for pair in PAIRS:
        if pair[0] == first:
            Sweep(figures, "+".join(pair), sequence("plain", pair)).run(recoveries=0.01)
    assert figures.points > 500
    assert all(figures.images[mode] for mode in MODES), figures.line()


def test_a_delete_of_what_is_gone() -> None:
    """It wrote nothing, and is acknowledged as of class `always` all the same."""
    names = ("delete", "delete", "put")
    Sweep(Figures(), "+".join(names), sequence("plain", names)).run()


@pytest.mark.slow
@pytest.mark.parametrize("first", TEXT_ALPHABET)
def test_every_pair_of_steps_with_text_indexes(first: str) -> None:
    figures = Figures()
    for second in TEXT_ALPHABET:
        steps = sequence("text", (first, second))
        Sweep(figures, f"{first}+{second}", steps).run(recoveries=0.01)
    assert figures.points > 300
    assert figures.searches["text"] > 1000


@pytest.mark.slow
def test_vectors_their_graphs_and_their_files() -> None:
    figures = Figures()
    for names in ("build+churn+reopen", "embed+expire_vectors+search"):
        steps = sequence("vectors", names.split("+"))
        Sweep(figures, names, steps, variants=1).run(recoveries=0.02)
    assert all(figures.images[mode] for mode in MODES), figures.line()
    assert figures.caches["used"] > 50, figures.line()
    assert library() is None or figures.searches["graph"] > 200, figures.line()


@pytest.mark.slow
def test_compaction() -> None:
    figures = Figures()
    for alphabet, names in (
        ("plain", "big_put+compact+put"),
        ("plain", "follow+burst+index+compact+burst+reopen+delete+compact"),
        ("text", "text_index+transaction+compact+overwrite+compact+put"),
        ("vectors", "build+churn+compact+embed+reopen"),
    ):
        letters = {**ALPHABETS[alphabet][1], "compact": compact}
        steps = [ALPHABETS[alphabet][0], *(letters[name] for name in names.split("+"))]
        Sweep(figures, names, steps, variants=1).run(recoveries=0.02)
    assert all(figures.images[mode] for mode in MODES), figures.line()


@pytest.mark.slow
@pytest.mark.parametrize("first", SCHEMA_ALPHABET)
def test_every_pair_of_steps_that_change_the_catalog(first: str) -> None:
    figures = Figures()
    for second in SCHEMA_ALPHABET:
        steps = sequence("schema", (first, second))
        Sweep(figures, f"{first}+{second}", steps, variants=1).run(recoveries=0.01)
    assert figures.points > 200, figures.line()
    assert all(figures.images[mode] for mode in MODES), figures.line()


@pytest.mark.slow
def test_erasure() -> None:
    """A receipt that is complete is true in every image; one that is not is completed."""
    figures = Figures()
    for alphabet, names in (
        ("plain", "follow+erase+put+reopen+erase"),
        ("text", "text_index+overwrite+erase+transaction"),
        ("vectors", "build+erase+embed+reopen"),
    ):
        letters = {**ALPHABETS[alphabet][1], "erase": erase}
        steps = [ALPHABETS[alphabet][0], *(letters[name] for name in names.split("+"))]
        Sweep(figures, names, steps, variants=1).run(recoveries=0.02)
    assert all(figures.images[mode] for mode in MODES), figures.line()
    assert figures.erasures > 100, figures.line()
    assert figures.resumed > 100, figures.line()


@pytest.mark.slow
def test_commits_of_eight_threads() -> None:
    steps = sequence("plain", ("crowd", "checkpoint", "crowd"))
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
