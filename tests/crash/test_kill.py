"""kill -9 at random and at chosen places: nothing acknowledged is lost, and nothing is halved.

`make crash` runs the same for as long as wished, and prints figures: tests/crash/campaign.py.
"""

from pathlib import Path

import pytest

from amberdb import Sync
from support.killing import SYNCS, Killer

KILLS = 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("sync", SYNCS)
def test_what_was_acknowledged_survives_kill(tmp_path: Path, sync: Sync, seed: int) -> None:
    killer = Killer(tmp_path / "t.amber", seed, sync)
    for _ in range(KILLS if seed == 1 else KILLS // 2):
        killer.round()
    assert killer.acknowledged > killer.kills
