"""The full sweep: every sequence of up to three steps, crashed after every file operation.

    PYTHONPATH=tests python tests/crash/sweep.py [--length 3] [--jobs 2] [--seeds 1] [--json PATH]

Prints its figures; a broken promise ends it, naming workload, operation, mode and seed.
`--only put+burst+reopen --seed 0` runs one sequence again.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import amberdb
from support.images import MODES
from support.sweep import Figures, Sweep
from support.workload import ALPHABET, crowd, follow, prepare

_Job = tuple[tuple[str, ...], int]
_STEPS = {**ALPHABET, "crowd": crowd, "follow": follow}
_LONG: tuple[tuple[str, ...], ...] = (
    ("crowd", "checkpoint", "crowd", "reopen"),
    ("burst", "big_put", "index", "big_put", "expire", "burst", "follow"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="crash sweep")
    parser.add_argument("--length", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="of each sequence")
    parser.add_argument("--only", help="one sequence: names joined by +")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs = list(_jobs(options.length, range(options.seed, options.seed + options.seeds)))
    if options.only:
        jobs = [(tuple(options.only.split("+")), options.seed)]
    total = Figures()
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for done, figures in enumerate(pool.imap_unordered(_run, jobs, chunksize=4), 1):
            total.add(figures)
            if done % 100 == 0:
                print(f"{done}/{len(jobs)}: {total.line()}", flush=True)
    took_s = time.monotonic() - began
    print(f"{total.line()}; 0 lost, 0 holes; {took_s:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(_report(total, took_s), indent=1) + "\n")
    return 0


def _jobs(length: int, seeds: range) -> Iterator[_Job]:
    for seed in seeds:
        for names in _LONG:
            yield names, seed
        for size in range(1, length + 1):
            for names in product(ALPHABET, repeat=size):
                yield names, seed


def _run(job: _Job) -> Figures:
    names, seed = job
    figures = Figures()
    steps = [prepare, *(_STEPS[name] for name in names)]
    recoveries = 0.1 if len(names) > 3 else 0.005
    Sweep(figures, "+".join(names), steps, seed=seed, variants=3).run(recoveries=recoveries)
    return figures


def _report(total: Figures, took_s: float) -> dict[str, object]:
    count = sum(total.images.values())
    return {
        "command": "python " + " ".join(sys.argv),
        "took_s": round(took_s),
        "python": platform.python_version(),
        "system": platform.platform(),
        "amberdb": amberdb.__version__,
        "workloads": total.workloads,
        "crash_points": total.points,
        "images": count,
        "images_per_mode": {mode: total.images[mode] for mode in MODES},
        "share_per_mode": {mode: round(total.images[mode] / count, 4) for mode in MODES},
        "generated": total.generated,
        "opened": total.opened,
        "tails_cut": total.cut,
        "openings_swept": total.inner_traces,
        "lost": 0,
        "holes": 0,
    }


if __name__ == "__main__":
    sys.exit(main())
