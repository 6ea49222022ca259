"""Kills writers until there were enough kills or the time is over, and prints what came of it.

    python tests/crash/campaign.py [--kills N] [--seconds S] [--seed X] [--json PATH]

One database per seed and class of durability, with 50 rounds each. Only kills during a commit,
a checkpoint, a rotation, an index build or a recovery count. A failure leaves its directory, and
names the seed. On a file system in memory (--directory /dev/shm) it is several times faster.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.killing import SYNCS, TARGETS, Figures, Killer

ROUNDS_EACH = 50


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 campaign")
    parser.add_argument("--kills", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    first = random.randrange(1 << 30) if options.seed is None else options.seed
    seconds = 600.0 if options.seconds is None and options.kills is None else options.seconds
    began = time.monotonic()
    figures = Figures()
    databases = 0

    def is_over() -> bool:
        enough = options.kills is not None and figures.counted >= options.kills
        return enough or (seconds is not None and time.monotonic() - began >= seconds)

    print(f"first seed {first}", flush=True)
    while not is_over():
        seed, sync = first + databases // len(SYNCS), SYNCS[databases % len(SYNCS)]
        directory = Path(tempfile.mkdtemp(prefix="amberdb-kill-", dir=options.directory))
        killer = Killer(directory / "t.amber", seed, sync, figures)
        databases += 1
        try:
            for _ in range(ROUNDS_EACH):
                if not is_over():
                    killer.round()
        except BaseException:
            print(f"FAILED: seed {seed}, sync={sync}, commit {killer.number}: {directory}")
            raise
        shutil.rmtree(directory)
    report = _report(figures, first, databases, time.monotonic() - began)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 0


def _report(figures: Figures, seed: int, databases: int, seconds: float) -> dict[str, object]:
    kills = figures.kills
    counted = [name for name in TARGETS if not name.startswith(("close", "create", "purge"))]
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "databases": databases,
        "kills": figures.counted,
        "kills_elsewhere": figures.elsewhere.total(),
        "verified_opens": figures.verified,
        "clean_closes": figures.closed,
        "commits_acknowledged": figures.acknowledged,
        "commits_lost": 0,  # the first one ends the campaign
        "commits_kept_unacknowledged": figures.unacknowledged,
        "torn_tails_cut": figures.cuts,
        "records_replayed": figures.replayed,
        "open_ms_max": round(figures.open_ms_max, 1),
        "kills_by_way": dict(sorted(figures.ways.items())),
        "kills_by_place": {name: kills[name] for name in sorted({*counted, *kills})},
        "kills_elsewhere_by_place": dict(sorted(figures.elsewhere.items())),
    }


if __name__ == "__main__":
    sys.exit(main())
