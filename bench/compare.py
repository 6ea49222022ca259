"""Compares two raw results row by row: `python -m bench.compare base.json head.json`.

Invariants:
- AmberDB's own figures are compared, and its ratio to each peer: when machines or times differ,
  only the ratio is meaningful.
- Lower is better in every figure: change = head / base below 1 is an improvement.
- Rows that only one result has are listed.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness.line import AMBER
from bench.harness.report import aligned, number

Key = tuple[str, str, str]

_NOISE = 0.05
"""Smaller relative changes get no mark."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("head", type=Path)
    options = parser.parse_args(arguments)
    base, head = (json.loads(path.read_text()) for path in (options.base, options.head))
    print(compare(base, head))
    return 0


def compare(base: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """The table, then how the machines differ, then the rows of one result only."""
    before, after = _by_key(base), _by_key(head)
    cells = [
        ["row", "measure", "state", "unit", "base", "head", "change", "", "ratios base -> head"]
    ]
    cells += [_row(key, before[key], after[key]) for key in before if key in after]
    out = [aligned(cells, left=(0, 1, 2, 3, 7, 8))]
    for fact, value in base["machine"].items():
        if fact != "load_1min" and head["machine"].get(fact) != value:
            out.append(f"differs: {fact}: {value} -> {head['machine'].get(fact)}")
    if base["scale"] != head["scale"]:
        out.append("differs: scale, so sizes and loads are not the same work")
    for name, keys in (("base", before.keys() - after.keys()), ("head", after.keys() - before)):
        for row, title, state in sorted(keys):
            out.append(f"only in {name}: {row}: {title}{f', {state}' if state else ''}")
    return "\n".join(out)


def _by_key(result: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {
        (line["row"], line["title"], line.get("state", "")): line
        for line in result["lines"]
        if AMBER in line["engines"]
    }


def _row(key: Key, base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    own_base, own_head = base["engines"][AMBER], head["engines"][AMBER]
    change = own_head["value"] / own_base["value"] if own_base["value"] else None
    ratios = [
        f"{peer} {number(base['ratios'][peer]['ratio'])} -> {number(facts['ratio'])}"
        for peer, facts in head["ratios"].items()
        if peer in base["ratios"]
    ]
    return [
        *key,
        base["unit"],
        number(own_base["value"]),
        number(own_head["value"]),
        "" if change is None else f"{number(change)}x",
        "" if change is None else _mark(change, own_base["rounds"], own_head["rounds"]),
        ", ".join(ratios),
    ]


def _mark(change: float, base: Sequence[float], head: Sequence[float]) -> str:
    """better or worse when the rounds of the results do not overlap; noise when they do."""
    if abs(change - 1) < _NOISE:
        return ""
    if max(head) < min(base):
        return "better"
    return "worse" if min(head) > max(base) else "noise"


if __name__ == "__main__":
    sys.exit(main())
