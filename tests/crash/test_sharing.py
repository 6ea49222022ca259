"""Several processes share a database, and the one that leads is killed again and again: the history
of all processes is strictly serializable, and nothing was done twice."""

import random
import sys
from pathlib import Path

import pytest

from crash.sharing import campaign
from support import slices
from support.sharing_history import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux")


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.timeout(600)
@pytest.mark.parametrize("processes", slices.parameters(3, (3, 5, 8)))
def test_leaders_that_are_killed_leave_one_history(tmp_path: Path, processes: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    workers = Workers(tmp_path / "t.amber", random.Random(seed))
    workers.run(processes, kills=slices.size(40, 5))
    assert workers.operations > workers.kills


@pytest.mark.slow
@pytest.mark.campaign
def test_the_campaign(tmp_path: Path) -> None:
    result = campaign(kills=10, seed=1, directory=tmp_path)
    assert (result["kills"], result["rounds"]) == (20, 1)
    assert not list(tmp_path.iterdir())
