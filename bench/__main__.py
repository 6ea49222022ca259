"""`python -m bench`: runs rows and prints the report; see bench/README.md.

Invariants:
- Progress goes to stderr, the report to stdout; the raw result is written after every row, so an
  interrupted run keeps the rows that ended.
- The databases are made in a temporary directory that the run removes.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.harness import report
from bench.harness.context import Context
from bench.harness.line import Line
from bench.harness.machine import machine, machine_line
from bench.harness.row import Row
from bench.harness.scale import QUICK, Scale
from bench.rows.registry import all_rows

RESULTS = Path(__file__).parent / "results"
LOCAL_RESULTS = RESULTS / "local"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    known = all_rows()
    if options.list:
        print("\n".join(f"{row.name:10} {row.about}" for row in known.values()))
        return 0
    scale = scale_of(options)
    parent = options.dir or LOCAL_RESULTS
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="databases-", dir=parent))
    try:
        return run([known[name] for name in options.rows or known], directory, scale, options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = list(all_rows())
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--rounds", type=int, help="rounds of each row")
    parser.add_argument("--size", type=int, help="documents of the growth and memory rows")
    parser.add_argument(
        "--quick", action="store_true", help="run every row in a small size; no figure counts"
    )
    parser.add_argument("--dir", type=Path, help="directory for the databases; choose a real disk")
    parser.add_argument("--json", type=Path, help="file for the raw result")
    parser.add_argument("--list", action="store_true", help="list the rows and exit")
    return parser.parse_args(arguments)


def scale_of(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else Scale()
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, builds=min(scale.builds, options.rounds))
    if options.size:
        scale = replace(scale, large=options.size)
    return scale


def run(chosen: Sequence[Row], directory: Path, scale: Scale, options: argparse.Namespace) -> int:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", file=sys.stderr, flush=True)

    facts = machine(directory)
    print(machine_line(facts))
    if not facts["durable"]:
        say(f"WARNING: {facts['file_system']} is in memory: figures of durable rows are void")
    moment = datetime.now(UTC)
    target = options.json or LOCAL_RESULTS / f"{moment:%Y-%m-%d-%H%M%S}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines: list[Line] = []
    failed: dict[str, str] = {}
    context = Context(directory, scale, say=say)
    try:
        for row in chosen:
            say(f"row {row.name}: {row.about}")
            try:
                lines += row.run(context)
            except Exception as error:  # the other rows still run
                failed[row.name] = f"{type(error).__name__}: {error}"
                say(f"row {row.name} FAILED: {failed[row.name]}")
            target.write_text(as_json(facts, moment, scale, lines, failed))
    finally:
        context.close()
    print_report(lines, failed)
    say(f"raw result: {target}")
    return 1 if failed else 0


def as_json(
    facts: dict[str, Any],
    moment: datetime,
    scale: Scale,
    lines: Sequence[Line],
    failed: dict[str, str],
) -> str:
    result = {
        "machine": facts,
        "started": moment.isoformat(timespec="seconds"),
        "scale": asdict(scale),
        "lines": [line.as_json() for line in lines],
        "failed": failed,
    }
    return json.dumps(result, indent=1, ensure_ascii=False) + "\n"


def print_report(lines: Sequence[Line], failed: dict[str, str]) -> None:
    print(f"\n{report.table(lines)}\n\n{report.latency_table(lines)}\n")
    if notes := report.notes(lines):
        print(f"{notes}\n")
    for name, error in failed.items():
        print(f"{name} FAILED: {error}")


if __name__ == "__main__":
    sys.exit(main())
