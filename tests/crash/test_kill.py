"""kill -9 at named places, at calls of the file seam and at any time: nothing acknowledged is
lost, and nothing is halved.

`python tests/crash/campaign.py` runs the same for as long as wished, and prints figures.
"""

from collections import Counter
from pathlib import Path

import pytest

from amberdb.index.vector.hnsw import library
from support import slices
from support.killing import PHASES, SYNCS, Figures, Killer
from support.watching import COUNTS, Watchers

KILLS = slices.size(60, 20)
ROUNDS = slices.size(6, 2)


@pytest.mark.slow
@pytest.mark.sliced
def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    figures = Figures()
    killers = [
        Killer(tmp_path / f"{sync}.amber", seed, sync, figures)
        for seed, sync in enumerate(SYNCS, start=1)
    ]
    while figures.counted < KILLS or not (
        all(figures.phases[phase] for phase in PHASES) or not slices.IS_WHOLE
    ):
        assert figures.counted < 5 * KILLS, f"only {figures.phases} were hit"
        for killer in killers:
            killer.round()
    assert figures.acknowledged > KILLS
    assert figures.among_threads
    assert figures.caches
    assert figures.searches["text"] > KILLS
    assert library() is None or figures.searches["graph"] > KILLS


@pytest.mark.slow
@pytest.mark.sliced
def test_readers_beside_writers_that_are_killed(tmp_path: Path) -> None:
    """Every view of every reader is the state after whole commits: all that was acknowledged before
    it, and nothing that a death takes back."""
    figures, seen = Figures(), Counter[str]()
    killers = [
        Killer(tmp_path / f"{sync}.amber", seed, sync, figures)
        for seed, sync in enumerate(SYNCS, start=3)
    ]
    for killer in killers:
        with Watchers(killer, 2, seen) as watchers:
            for _ in range(ROUNDS):
                killer.round()
                watchers.next_round()
    assert figures.counted > 2 * ROUNDS
    assert seen["killed"]
    assert all(seen[what] > 0 for what in COUNTS), seen
