"""Records and judges histories of concurrent threads for a given time, and prints the figures.

    PYTHONPATH=tests python tests/crash/histories.py --seconds 300 [--seed N] [--json PATH]

One database per seed. A failure names its seed and leaves its directory; the seed repeats the
load, while the schedule is the machine's.
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

from support.concurrent import Round


def main() -> int:
    parser = argparse.ArgumentParser(description="histories of concurrent threads")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    first = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"first seed {first}", flush=True)
    began = time.monotonic()
    figures: Counter[str] = Counter()
    places: Counter[str] = Counter()
    while time.monotonic() - began < options.seconds:
        seed = first + figures["histories"]
        directory = Path(tempfile.mkdtemp(prefix="amberdb-history-"))
        done = Round(str(directory / "t.amber"), seed)
        try:
            done.run()
        except BaseException:
            print(f"FAILED: seed {seed}: {directory}")
            raise
        shutil.rmtree(directory)
        _count(figures, done)
        places += done.yields.at_places
        if figures["histories"] % 50 == 0:
            print(dict(figures), flush=True)
    kept = {
        "command": f"tests/crash/histories.py --seconds {options.seconds:g} --seed {first}",
        "seconds": round(time.monotonic() - began),
        "python": platform.python_version(),
        "violations": 0,
        **figures,
        "yields_at_place": dict(sorted(places.items())),
    }
    print(kept)
    if options.json is not None:
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


def _count(figures: Counter[str], done: Round) -> None:
    operations = done.history.operations
    figures["histories"] += 1
    figures["transactions"] += sum(operation.kind == "commit" for operation in operations)
    figures["snapshots"] += sum(operation.kind == "snapshot" for operation in operations)
    figures["bare_reads"] += sum(operation.kind == "read" for operation in operations)
    figures["reads"] += done.history.reads
    figures["changes_told"] += len(done.history.told)
    figures["yields_at_file_calls"] += done.yields.at_calls
    figures["yields_at_reads"] += done.yields.at_reads
    figures["yields_at_places"] += done.yields.at_places.total()


if __name__ == "__main__":
    sys.exit(main())
