"""kill -9 at named places, at calls of the file seam and at any time: nothing acknowledged is
lost, and nothing is halved.

`python tests/crash/campaign.py` runs the same for as long as wished, and prints figures.
"""

from pathlib import Path

import pytest

from amberdb.index.hnsw import library
from support.killing import PHASES, SYNCS, Figures, Killer

KILLS = 60


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    figures = Figures()
    killers = [
        Killer(tmp_path / f"{sync}.amber", seed, sync, figures)
        for seed, sync in enumerate(SYNCS, start=1)
    ]
    while figures.counted < KILLS or not all(figures.phases[phase] for phase in PHASES):
        assert figures.counted < 5 * KILLS, f"only {figures.phases} were hit"
        for killer in killers:
            killer.round()
    assert figures.acknowledged > KILLS
    assert figures.among_threads
    assert figures.caches
    assert figures.searches["text"] > KILLS
    assert library() is None or figures.searches["graph"] > KILLS
