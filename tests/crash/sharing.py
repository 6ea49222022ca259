"""The campaign of sharing: SIGKILL for leaders of 3 to 8 processes, until there were enough.

    PYTHONPATH=tests python tests/crash/sharing.py [--kills N] [--seed X] [--json PATH]
        [--directory DIR]

In each round some processes write and read one database, 20 of those that lead are killed, and all
that was told is judged as one history: tests/support/sharing_history.py.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from support.sharing_history import Workers

KILLS: Final = 20
"""In one round."""


def campaign(kills: int, seed: int, directory: Path) -> dict[str, Any]:
    """The result. Raises what the judge raises."""
    rng = random.Random(seed)
    began = time.monotonic()
    total: Counter[str] = Counter(seed=seed)
    while total["kills"] < kills:
        path = Path(tempfile.mkdtemp(dir=directory))
        workers = Workers(path / "t.amber", rng)
        processes = rng.randint(3, 8)
        workers.run(processes, KILLS)
        total.update(
            rounds=1,
            kills=workers.kills,
            operations=workers.operations,
            commits_that_were_not_told=workers.untold,
        )
        shutil.rmtree(path)
        print(f"round {total['rounds']}: {processes} processes, {total['kills']} kills", flush=True)
    return {**total, "violations": 0, "seconds": round(time.monotonic() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    result = campaign(given.kills, given.seed, given.directory)
    print(json.dumps(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
