"""Damage inside data.mdb, sampled: what reads, `amberdb check` and `amberdb repair` make of it.

PYTHONPATH=tests python tests/crash/damage_pages.py --each 400 --json PATH --scratch /dev/shm/pages
"""

import argparse
import json
import platform
import random
import shutil
import sys
import time
from pathlib import Path

from support.page_damage import KINDS, PageDamage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=400, help="damages of each kind")
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    scratch: Path = options.scratch
    scratch.mkdir(parents=True)
    began = time.monotonic()
    work = PageDamage(scratch, documents=options.documents)
    rng = random.Random(options.seed)
    for number in range(options.each):
        for kind in KINDS:
            work.one(kind, rng)
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {options.each}", end="", file=sys.stderr)
    shutil.rmtree(scratch)
    result = {
        "command": "tests/crash/damage_pages.py "
        f"--each {options.each} --documents {options.documents} --seed {options.seed}",
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - began, 1),
        **work.table.rows(),
        "wrong": work.table.wrong,
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.json is not None:
        options.json.write_text(text)
    print(text)
    return 1 if work.table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
