"""`python -m bench.care`: backup, restore and compaction of a large database.

    full         db.backup() of everything, raw and zstd; SQLite's backup API and VACUUM INTO
    beside       durable puts of one thread during a full backup, and without one
    increment    db.backup(base=...) after some changes; SQLite has to copy everything again
    restore      amberdb.restore() of the full backup and of the whole chain; SQLite: copied back
    points       restores at random commits after the full backup, all their changes compared
    compact      db.compact() and VACUUM after half of the documents were removed

Invariants:
- The result is one JSON object on stdout, and in --json; progress goes to stderr.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.care.databases import DOCUMENTS, Databases

PARTS = ("full", "beside", "chain", "compact")


def run(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    load = os.getloadavg()[0]
    began = time.monotonic()
    databases = Databases(root, options.documents, options.rounds)
    try:
        result: dict[str, Any] = {"loaded s": round(time.monotonic() - began)}
        if "full" in options.parts:
            result["full"] = databases.full()
        if "beside" in options.parts:
            result["beside"] = databases.beside(options.puts)
        if "chain" in options.parts:
            chain, history, result["increment"] = databases.increments(options.increments)
            result["restore"] = databases.restore(chain)
            result["points"] = databases.points(chain, history, options.points)
        if "compact" in options.parts:
            result["compact"] = databases.compact()
    finally:
        databases.close()
    return result | {
        "command": "python -m bench.care " + " ".join(sys.argv[1:]),
        "documents": options.documents,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.care", description="backup, restore and compaction"
    )
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--puts", type=int, default=5_000, help="puts per round, at least")
    parser.add_argument("--increments", type=int, default=5)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        result = run(Path(directory), options)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
