"""Kills writers until there were enough kills or the time is over, and prints what came of it.

    PYTHONPATH=tests python tests/crash/campaign.py [--kills N] [--each N] [--seconds S]
        [--seed X] [--readers N] [--json PATH] [--directory DIR]

One database per seed and class of durability, with 15 rounds each. Only kills during a commit,
a checkpoint, a rotation, an index build, a merge, a build of vectors, a recovery, an expiry or a
close count; `--each` goes on until each named place was hit so often. With `--readers` other
processes read meanwhile, and are killed too. A failure leaves its directory, and names the seed. On
a file system in memory (--directory /dev/shm) it is several times faster.
"""

import argparse
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from support.killing import PHASES, SYNCS, Figures, Killer
from support.watching import Watchers

ROUNDS_EACH = 15
TELL_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 campaign")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--each", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    first = random.randrange(1 << 30) if options.seed is None else options.seed
    is_endless = not options.kills and not options.each
    seconds = 600.0 if options.seconds is None and is_endless else options.seconds
    began = time.monotonic()
    figures = Figures()
    databases = 0
    seen: Counter[str] = Counter()

    def is_over() -> bool:
        enough = figures.counted >= options.kills and figures.least()[0][0] >= options.each
        late = seconds is not None and time.monotonic() - began >= seconds
        return late or (enough and not is_endless)

    print(f"first seed {first}", flush=True)
    told = began
    while not is_over():
        seed, sync = first + databases // len(SYNCS), SYNCS[databases % len(SYNCS)]
        directory = Path(tempfile.mkdtemp(prefix="amberdb-kill-", dir=options.directory))
        killer = Killer(directory / "t.amber", seed, sync, figures)
        databases += 1
        try:
            with Watchers(killer, options.readers, seen) as watchers:
                for _ in range(ROUNDS_EACH):
                    if not is_over():
                        killer.round()
                        watchers.next_round()
                    if time.monotonic() - told >= TELL_S:
                        told = time.monotonic()
                        _tell(figures, told - began)
        except BaseException:
            print(f"FAILED: seed {seed}, sync={sync}, commits {killer.numbers}: {directory}")
            raise
        shutil.rmtree(directory)
    report = _report(figures, first, databases, time.monotonic() - began)
    if options.readers:
        report["readers"] = {"at_once": options.readers, **dict(sorted(seen.items()))}
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 0


def _tell(figures: Figures, seconds: float) -> None:
    phases = ", ".join(f"{name} {count}" for name, count in figures.phases.most_common())
    least = ", ".join(f"{name} {count}" for count, name in figures.least()[:3])
    print(f"{seconds:.0f} s: {figures.counted} kills ({phases}); least: {least}", flush=True)


def _report(figures: Figures, seed: int, databases: int, seconds: float) -> dict[str, object]:
    phases = figures.phases
    return {
        "command": " ".join(["tests/crash/campaign.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "databases": databases,
        "kills": figures.counted,
        "kills_among_threads": figures.among_threads,
        "kills_elsewhere": phases.total() - figures.counted,
        "verified_opens": figures.verified,
        "clean_closes": figures.closed,
        "commits_acknowledged": figures.acknowledged,
        "commits_lost": 0,  # the first one ends the campaign
        "commits_kept_unacknowledged": figures.unacknowledged,
        "torn_tails_cut": figures.cuts,
        "records_replayed": figures.replayed,
        "searches_compared": dict(sorted(figures.searches.items())),
        "files_in_cache_used": figures.caches,
        "backups_verified": figures.backups,
        "open_ms_max": round(figures.open_ms_max, 1),
        "kills_by_way": dict(sorted(figures.ways.items())),
        "kills_by_phase": {phase: phases[phase] for phase in PHASES},
        "kills_elsewhere_by_phase": {
            phase: phases[phase] for phase in sorted(phases) if phase not in PHASES
        },
        "kills_at_place_least": figures.least()[0][0],
        "kills_at_place": {name: count for count, name in sorted(figures.least(), key=_by_name)},
    }


def _by_name(found: tuple[int, str]) -> str:
    return found[1]


if __name__ == "__main__":
    sys.exit(main())
