"""The flip table: MANIFEST and a small log, each byte in several patterns, in whole opens.

python tests/crash/damage.py --opens 20000 --json PATH --scratch /dev/shm/flips
"""

import argparse
import itertools
import json
import platform
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.damage import FlipTable, make_database, open_flipped, targets

MASKS = (0xFF, 0x01, 0x80, 0x10)


def run(opens: int, scratch: Path, *, clean: bool) -> tuple[FlipTable, int]:
    """The first `opens` flips: all places in one pattern before any in the next."""
    pristine = scratch / "pristine"
    make_database(scratch / "t.amber", pristine, clean=clean)
    places = [
        (kind, name, offset, mask)
        for mask in MASKS
        for kind, name in targets(pristine)
        for offset in range((pristine / name).stat().st_size)
    ]
    table = FlipTable()
    done = 0
    for kind, name, offset, mask in itertools.islice(places, opens):
        outcome = open_flipped(pristine, scratch / "flipped", name, offset, mask, clean=clean)
        table.add(kind, outcome, f"{name} at {offset} ^ {mask:#x}")
        done += 1
    return table, done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opens", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, object] = {"python": platform.python_version(), "masks": MASKS}
    failed = False
    for state in ("closed", "crashed"):
        scratch: Path = options.scratch / state
        scratch.mkdir(parents=True)
        began = time.monotonic()
        table, done = run(options.opens // 2, scratch, clean=state == "closed")
        shutil.rmtree(scratch)
        failed = failed or bool(table.undetected)
        result[state] = {
            "opens": done,
            "seconds": round(time.monotonic() - began, 1),
            "rows": table.rows(),
            "undetected": table.undetected,
        }
    text = json.dumps(result, indent=2) + "\n"
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)
    print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
