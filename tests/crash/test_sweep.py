"""Power loss after every file operation of short workloads, in ten modes: a slice of the campaign
in sweep.py, which takes all sequences of up to three steps.

In `make test` every second step of an alphabet comes first in one pair, and the longer sweeps crash
after every second operation; all pairs and all operations are in `make test-all`.
"""

from collections.abc import Iterable

import pytest

from amberdb.index.vector.hnsw import library
from support import slices
from support.images import MODES
from support.sweep import Figures, Sweep
from support.workload import (
    ALPHABET,
    ALPHABETS,
    BESIDE_ALPHABET,
    SCHEMA_ALPHABET,
    TEXT_ALPHABET,
    compact,
    erase,
    follow,
    prepare,
    sequence,
)

STEP = slices.size(1, 2)
"""The longer sweeps crash after each STEP-th operation."""


def seconds(alphabet: Iterable[str], first: str) -> list[str]:
    """The steps to come behind this one."""
    names = list(alphabet)
    return names if slices.IS_WHOLE else [names[(names.index(first) + 3) % len(names)]]


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("first", slices.parameters(2, ALPHABET))
def test_every_pair_of_steps(first: str) -> None:
    figures = Figures()
    for second in seconds(ALPHABET, first):
        steps = sequence("plain", (first, second))
        Sweep(figures, f"{first}+{second}", steps).run(recoveries=0.01)
    assert figures.points > slices.size(500, 40)
    assert all(figures.images[mode] for mode in MODES), figures.line()


def test_a_delete_of_what_is_gone() -> None:
    """It wrote nothing, and is acknowledged as of class `always` all the same."""
    names = ("delete", "delete", "put")
    Sweep(Figures(), "+".join(names), sequence("plain", names)).run()


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("first", slices.parameters(2, TEXT_ALPHABET))
def test_every_pair_of_steps_with_text_indexes(first: str) -> None:
    figures = Figures()
    for second in seconds(TEXT_ALPHABET, first):
        steps = sequence("text", (first, second))
        sweep = Sweep(figures, f"{first}+{second}", steps)
        sweep.run(recoveries=0.01, step=STEP)
    assert figures.points > slices.size(300, 20)
    assert figures.searches["text"] > slices.size(1000, 80)


@pytest.mark.slow
@pytest.mark.sliced
def test_vectors_their_graphs_and_their_files() -> None:
    figures = Figures()
    workloads = (("build+churn+reopen", 3), ("embed+expire_vectors+search", 2))
    for names, since in workloads[: slices.size(2, 1)]:
        steps = sequence("vectors", names.split("+"))
        sweep = Sweep(figures, names, steps, variants=1)
        sweep.run(recoveries=0.02, since=slices.size(0, since), step=slices.size(1, 6))
    assert all(figures.images[mode] or mode == "rename lost" for mode in MODES), figures.line()
    assert figures.images["rename lost"] or not slices.IS_WHOLE, figures.line()
    assert figures.caches["used"] > slices.size(50, 10), figures.line()
    assert library() is None or figures.searches["graph"] > slices.size(200, 40), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
def test_compaction() -> None:
    figures = Figures()
    workloads = (
        ("plain", "big_put+compact+put", 0),
        ("plain", "follow+burst+index+compact+burst+reopen+delete+compact", 8),
        ("text", "text_index+transaction+compact+overwrite+compact+put", 5),
        ("vectors", "build+churn+compact+embed+reopen", 3),
    )
    for alphabet, names, since in workloads[: slices.size(4, 3)]:
        letters = {**ALPHABETS[alphabet][1], "compact": compact}
        steps = [ALPHABETS[alphabet][0], *(letters[name] for name in names.split("+"))]
        sweep = Sweep(figures, names, steps, variants=1)
        sweep.run(recoveries=0.02, since=slices.size(0, since), step=STEP)
    assert all(figures.images[mode] for mode in MODES), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
def test_the_way_from_format_1() -> None:
    """Of a database that was closed by the older program, or was not."""
    figures = Figures()
    workloads = (
        ("put+checkpoint+index+burst+open_newer+put+upgrade+delete", 5),
        ("follow+burst+checkpoint+put+open_newer+text_index+put+checkpoint+upgrade+put+reopen", 5),
        ("vector_index+checkpoint+open_newer+vector_index+put+checkpoint+reopen", 3),
        ("burst+expire+open_newer+delete+reopen+burst+checkpoint+compact+transaction+upgrade", 3),
    )
    for names, since in workloads[: slices.size(4, 3)]:
        steps = sequence("older", names.split("+"))
        sweep = Sweep(figures, names, steps, variants=1)
        sweep.run(recoveries=0.02, since=slices.size(0, since), step=STEP)
    assert all(figures.images[mode] for mode in MODES), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("first", slices.parameters(2, SCHEMA_ALPHABET))
def test_every_pair_of_steps_that_change_the_catalog(first: str) -> None:
    figures = Figures()
    for second in seconds(SCHEMA_ALPHABET, first):
        steps = sequence("schema", (first, second))
        Sweep(figures, f"{first}+{second}", steps, variants=1).run(recoveries=0.01)
    assert figures.points > slices.size(200, 20), figures.line()
    assert all(figures.images[mode] for mode in MODES), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize(
    "first",
    slices.parameters(2, [name for name in BESIDE_ALPHABET if name.endswith("beside")]),
)
def test_every_declaration_beside_a_checkpoint(first: str) -> None:
    """The declaration is lost and the checkpoint kept: what it wrote is whole without the other."""
    figures = Figures()
    for second in seconds(BESIDE_ALPHABET, first):
        steps = sequence("beside", (first, second))
        sweep = Sweep(figures, f"{first}+{second}", steps, variants=1)
        sweep.run(recoveries=0.01, since=1, step=STEP)
    assert figures.points > slices.size(200, 8), figures.line()
    assert figures.searches["text"] > slices.size(1000, 100), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
def test_erasure() -> None:
    """A receipt that is complete is true in every image; one that is not is completed."""
    figures = Figures()
    workloads = (
        ("plain", "follow+erase+put+reopen+erase", 5),
        ("text", "text_index+overwrite+erase+transaction", 3),
        ("vectors", "build+erase+embed+reopen", 2),
    )
    for alphabet, names, since in workloads[: slices.size(3, 2)]:
        letters = {**ALPHABETS[alphabet][1], "erase": erase}
        steps = [ALPHABETS[alphabet][0], *(letters[name] for name in names.split("+"))]
        sweep = Sweep(figures, names, steps, variants=1)
        sweep.run(recoveries=0.02, since=slices.size(0, since), step=STEP)
    assert all(figures.images[mode] for mode in MODES), figures.line()
    assert figures.erasures > slices.size(100, 10), figures.line()
    assert figures.resumed > slices.size(100, 10), figures.line()


@pytest.mark.slow
@pytest.mark.sliced
def test_commits_of_eight_threads() -> None:
    steps = sequence("plain", ("crowd", "checkpoint", "crowd"))
    Sweep(Figures(), "crowd", steps).run(recoveries=0.02, step=STEP)


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.campaign)])
def test_openings_of_openings(seed: int) -> None:
    """The opening of a crashed database is crashed, and so is the next one."""
    figures = Figures()
    names = ("burst", "big_put", "index", "big_put", "expire", "burst")
    steps = [prepare, follow, *(ALPHABET[name] for name in names)]
    Sweep(figures, "openings", steps, seed=seed).run(recoveries=0.3, since=slices.size(0, 7))
    assert figures.inner_traces > slices.size(30, 10)
