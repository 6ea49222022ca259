"""The full sweep: every sequence of up to three steps, with search indexes of up to two, crashed
after every file operation.

    PYTHONPATH=tests python tests/crash/sweep.py [--alphabet plain|text|vectors|store|schema|beside]
        [--length 3] [--jobs 2] [--seeds 1] [--json PATH]

With `--preload` the system calls of a child process are recorded, those of LMDB among them, over
every sequence of up to two of the steps that make LMDB work.

Prints its figures; a broken promise ends it, naming workload, operation, mode and seed.
`--alphabet plain --only put+burst+reopen --seed 0` runs one sequence again.
"""

import argparse
import contextlib
import faulthandler
import json
import logging
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

import amberdb
from support.images import MODES
from support.preload import PreloadRecorder
from support.sweep import Figures, Sweep
from support.workload import ALPHABETS, sequence

_Job = tuple[str, tuple[str, ...], int]
_CHUNK = 4
_LENGTHS = {"plain": 3, "store": 0, "text": 2, "vectors": 2, "schema": 2, "beside": 2, "older": 2}
"""0: only the long ones."""
_LENGTHS_PRELOAD = {"store": 2, "plain": 0}
_LONG: dict[str, tuple[str, ...]] = {
    "plain": (
        "crowd+checkpoint+crowd+reopen",
        "burst+big_put+index+big_put+expire+burst+follow",
    ),
    "store": ("grow+index+shrink+purge+grow+crowd_at_checkpoints+shrink",),
    "text": ("put+text_index+transaction+checkpoint+expire+overwrite+checkpoint+reopen",),
    "schema": (
        "text_index+drop+rename+checkpoint+drop+follow+compact+rename+reopen",
        "migrate+text_index+migrate+reopen+rename+migrate+compact+migrate",
    ),
    "beside": (
        "drop_index_beside+text_index+declare_beside+checkpoint+drop_beside+rename_beside",
        "declare_beside+migrate_beside+compact+drop_index_beside+reopen+drop_beside+checkpoint",
    ),
    "older": (
        "follow+burst+checkpoint+open_newer+upgrade+text_index+put+checkpoint+upgrade+put+reopen",
        "burst+index+open_newer+burst+checkpoint+delete+upgrade+expire+reopen+compact",
        "vector_index+checkpoint+vector_index+open_newer+vector_index+upgrade+vector_index+reopen",
    ),
    "vectors": (
        "build+fresh_burst+build+churn+checkpoint+build+reopen",
        "build+churn+embed+build+drop_index+declare+expire_vectors+reopen",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="crash sweep")
    parser.add_argument("--alphabet", choices=ALPHABETS, help="only these steps")
    parser.add_argument("--length", type=int, help="3, with search indexes or --preload 2")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="of each sequence")
    parser.add_argument("--only", help="one sequence: names joined by +")
    parser.add_argument("--preload", action="store_true", help="record system calls")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    jobs = list(_jobs(options))
    total = Figures()
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs, initializer=faulthandler.enable) as pool:
        chunks = [jobs[at : at + _CHUNK] for at in range(0, len(jobs), _CHUNK)]
        running = [pool.submit(_run, chunk, options.preload) for chunk in chunks]
        for done in as_completed(running):
            total.add(done.result())
            if total.workloads % 100 < _CHUNK:
                print(f"{total.workloads}/{len(jobs)}: {total.line()}", flush=True)
    took_s = time.monotonic() - began
    print(f"{total.line()}; 0 lost, 0 holes; {took_s:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(_report(total, took_s), indent=1) + "\n")
    return 0


def _jobs(options: argparse.Namespace) -> Iterator[_Job]:
    lengths = _LENGTHS_PRELOAD if options.preload else _LENGTHS
    for seed in range(options.seed, options.seed + options.seeds):
        if options.only:
            alphabet = options.alphabet or next(iter(lengths))
            yield alphabet, tuple(options.only.split("+")), seed
            continue
        for alphabet in [options.alphabet] if options.alphabet else lengths:
            for long in _LONG[alphabet]:
                yield alphabet, tuple(long.split("+")), seed
            length = lengths.get(alphabet, 2)
            if length or options.alphabet:
                length = options.length or length
            for size in range(1, length + 1):
                for names in product(ALPHABETS[alphabet][1], repeat=size):
                    yield alphabet, names, seed


def _run(jobs: list[_Job], preload: bool) -> Figures:
    figures = Figures()
    logging.disable(logging.WARNING)  # of files in cache/ that are dropped
    with PreloadRecorder() if preload else contextlib.nullcontext() as recorder:
        for alphabet, names, seed in jobs:
            steps = sequence(alphabet, names)
            recoveries = 0.1 if len(names) > 3 else 0.005
            name = "+".join(names)
            sweep = Sweep(figures, name, steps, seed=seed, variants=3, recorder=recorder)
            sweep.run(recoveries=recoveries)
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
        "crash_points_inside_lmdb": total.inside,
        "images": count,
        "images_per_mode": {mode: total.images[mode] for mode in MODES},
        "share_per_mode": {mode: round(total.images[mode] / count, 4) for mode in MODES},
        "generated": total.generated,
        "opened": total.opened,
        "tails_cut": total.cut,
        "builds_continued": total.continued,
        "openings_swept": total.inner_traces,
        "searches_compared": dict(sorted(total.searches.items())),
        "files_in_cache": dict(sorted(total.caches.items())),
        "lost": 0,
        "holes": 0,
    }


if __name__ == "__main__":
    sys.exit(main())
