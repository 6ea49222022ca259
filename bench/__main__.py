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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from bench.harness import report
from bench.harness.context import Context
from bench.harness.line import Line, find_worst
from bench.harness.machine import machine, machine_line
from bench.harness.measure import timed
from bench.harness.row import Row
from bench.harness.scale import QUICK, Scale
from bench.harness.state import STATES, State
from bench.rows.registry import all_rows

RESULTS = Path(__file__).parent / "results"
LOCAL_RESULTS = RESULTS / "local"
_ALL_STATES = [state.name for state in STATES]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    known = all_rows()
    if options.list:
        print(listing(known))
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
    states = [state.name for state in STATES]
    parser.add_argument(
        "--states", nargs="+", choices=states, metavar="STATE", help=", ".join(states)
    )
    parser.add_argument("--base", type=int, help="documents of the rows about events")
    parser.add_argument("--rounds", type=int, help="rounds of each row")
    parser.add_argument("--size", type=int, help="documents of the growth and memory rows")
    parser.add_argument(
        "--quick", action="store_true", help="run every row in a small size; no figure counts"
    )
    parser.add_argument("--dir", type=Path, help="directory for the databases; choose a real disk")
    parser.add_argument("--json", type=Path, help="file for the raw result")
    parser.add_argument("--list", action="store_true", help="list rows and states, and exit")
    return parser.parse_args(arguments)


def listing(known: Mapping[str, Row]) -> str:
    """The rows, with the states of those that have them, and the states."""
    out = ["rows:"]
    for row in known.values():
        names = {state.name for one in row.operations for state in one.states}
        states = " ".join(state.name for state in STATES if state.name in names)
        out.append(f"  {row.name:16} {row.about}{f' [{states}]' if states else ''}")
    return "\n".join([*out, "states:", *(f"  {one.name:16} {one.about}" for one in STATES)])


def scale_of(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else Scale()
    if options.rounds:
        scale = replace(
            scale,
            rounds=options.rounds,
            search_rounds=options.rounds,
            process_rounds=options.rounds,
            builds=min(scale.builds, options.rounds),
        )
    if options.base:
        scale = replace(scale, base=options.base)
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
    context = Context(directory, scale, wanted=wanted(chosen), say=say)
    states = [state for state in STATES if state.name in (options.states or _ALL_STATES)]
    try:
        for name, measure in measures(chosen, states, context):
            try:
                lines += measure()
            except Exception as error:  # the other rows still run
                failed[name] = f"{type(error).__name__}: {error}"
                say(f"{name} FAILED: {failed[name]}")
            lines = in_order(lines, chosen)
            find_worst(lines)
            target.write_text(as_json(facts, moment, scale, lines, failed))
    finally:
        context.close()
    print_report(lines, failed)
    say(f"raw result: {target}")
    return 1 if failed else 0


def measures(
    chosen: Sequence[Row], states: Sequence[State], context: Context
) -> Iterator[tuple[str, Callable[[], Iterable[Line]]]]:
    """What is measured, by name, in its order: by state and family, so that the databases are
    brought into a state once for all rows; then the rows that have no states."""
    placed = [(row, place) for row in chosen for place in range(len(row.operations))]
    families = dict.fromkeys(row.operations[place].family.name for row, place in placed)
    for state, family in product(states, families):
        for row, place in placed:
            operation = row.operations[place]
            if operation.family.name == family and state in operation.states:
                yield f"{row.name}, {state.name}", partial(_one, context, row, place, state)
    context.leave_stage()
    for row in chosen:
        if row.run is not None:
            context.say(f"row {row.name}: {row.about}")
            yield row.name, partial(row.run, context)


def _one(context: Context, row: Row, place: int, state: State) -> list[Line]:
    return [timed(context, row, place, state)]


def wanted(chosen: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """By family: the engines that its operations need; () for all."""
    names: dict[str, set[str]] = {}
    for operation in (one for row in chosen for one in row.operations):
        kinds = operation.kinds or [kind.name for kind in operation.family.kinds]
        names.setdefault(operation.family.name, set()).update(kinds)
    return {family: tuple(found) for family, found in names.items()}


def in_order(lines: Sequence[Line], chosen: Sequence[Row]) -> list[Line]:
    """The lines by row, then by measure, so that the states of one stand together."""
    rows = [row.name for row in chosen]
    titles = list(dict.fromkeys(line.title for line in lines))
    return sorted(lines, key=lambda line: (rows.index(line.row), titles.index(line.title)))


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
