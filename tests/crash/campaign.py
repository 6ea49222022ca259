"""Kills databases for a given time and prints what came of it.

    PYTHONPATH=tests python tests/crash/campaign.py --seconds 600 [--seed N]

One database per seed and class of durability; each is killed 25 times. A failure leaves its
directory, and names the seed.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from support.killing import SYNCS, Killer

KILLS_EACH = 25


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 campaign")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    first = random.randrange(1 << 30) if options.seed is None else options.seed
    end = time.monotonic() + options.seconds
    done: list[Killer] = []
    seed = first
    print(f"first seed {first}", flush=True)
    while time.monotonic() < end:
        for sync in SYNCS:
            directory = Path(tempfile.mkdtemp(prefix="amberdb-kill-"))
            killer = Killer(directory / "t.amber", seed, sync)
            done.append(killer)
            try:
                while killer.kills < KILLS_EACH and time.monotonic() < end:
                    killer.round()
            except BaseException:
                print(f"FAILED: seed {seed}, sync={sync}, kill {killer.kills}: {directory}")
                raise
            shutil.rmtree(directory)
        seed += 1
        print(_figures(done), flush=True)
    return 0


def _figures(done: list[Killer]) -> str:
    return (
        f"{len(done)} databases, {sum(k.kills for k in done)} kills, "
        f"{sum(k.acknowledged for k in done)} commits acknowledged, 0 lost, 0 holes; "
        f"{sum(k.unacknowledged for k in done)} kept without acknowledgement, "
        f"{sum(k.cuts for k in done)} torn tails cut, "
        f"{sum(k.replayed for k in done)} records replayed, "
        f"longest open {max(k.open_ms_max for k in done):.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
