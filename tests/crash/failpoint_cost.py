"""What the named places cost while nothing is installed: a put with them against one without.

    python tests/crash/failpoint_cost.py [--sets N] [--rounds N] [--json PATH]

Each set is a fresh process that holds three copies of the package and lets them take turns: as it
is, with every `if failpoints.on` taken out of its syntax trees, and once more as it is, which
shows the noise. A put is small, durable, in memory (so the sync costs next to nothing), and is
timed by its thread's own processor time. A set's ratio is that of the medians of its rounds; the
figure is the median of the sets.
"""

import argparse
import ast
import gc
import importlib
import importlib.machinery
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PUTS = 100
WARM_UP = 10
DOC = {"id": "x", "text": "下午和小王开会", "number": 7}
Loader = importlib.machinery.SourceFileLoader


class _Stripper(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        self.generic_visit(node)
        return None if ast.unparse(node.test) == "failpoints.on" else node


def package(*, stripped: bool) -> Any:
    """A copy of amberdb that shares no module with the others."""
    compile_as_it_is = Loader.source_to_code

    def compile_module(self: Any, data: Any, path: Any, **more: Any) -> Any:
        tree = ast.parse(data)
        if stripped:
            tree = ast.fix_missing_locations(_Stripper().visit(tree))
        return compile_as_it_is(self, tree, path, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == "amberdb"]:
        del sys.modules[name]
    Loader.source_to_code = compile_module  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as empty:
        sys.pycache_prefix = empty  # what is compiled already has the places
        try:
            return importlib.import_module("amberdb")
        finally:
            Loader.source_to_code = compile_as_it_is  # type: ignore[method-assign]


def one_set(rounds: int, without: int) -> list[float]:
    """The median nanoseconds of a put: with, without, with again. `without` is the place of the
    stripped copy among the three, since the first one made is not quite like the later ones."""
    copies = [package(stripped=place == without) for place in range(3)]
    databases = [copy.open(":memory:", background=False) for copy in copies]
    puts: list[Callable[[Any], Any]] = [db.collection("notes").put for db in databases]
    times: list[list[float]] = [[] for _ in puts]
    turns = list(itertools.permutations(range(len(puts))))
    gc.disable()
    for number in range(rounds + WARM_UP):
        for which in turns[number % len(turns)]:
            put = puts[which]
            began = time.thread_time_ns()
            for _ in range(PUTS):
                put(DOC)
            times[which].append((time.thread_time_ns() - began) / PUTS)
        if number % 20 == 0:
            for db in databases:
                db.checkpoint()
            gc.collect()
    for db in databases:
        db.close()
    medians = [statistics.median(found[WARM_UP:]) for found in times]
    middle = medians.pop(without)
    return [medians[0], middle, medians[1]]


def main() -> int:
    parser = argparse.ArgumentParser(description="the cost of named places")
    parser.add_argument("--sets", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--without", type=int, default=None, help="one set, in this process")
    options = parser.parse_args()
    if options.without is not None:
        print(json.dumps(one_set(options.rounds, options.without)))
        return 0
    sets: list[tuple[float, float, float]] = []
    command = [sys.executable, __file__, "--rounds", str(options.rounds), "--without"]
    for number in range(options.sets):
        sets.append(json.loads(subprocess.check_output([*command, str(number % 3)])))
        print(number, [round(value) for value in sets[-1]], flush=True)
    costs = sorted((found + again) / 2 / without for found, without, again in sets)
    noise = sorted(again / found for found, _, again in sets)
    report = {
        "command": " ".join(["tests/crash/failpoint_cost.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        "sets": options.sets,
        "rounds_each": options.rounds,
        "puts_per_round": PUTS,
        "put_ns": round(statistics.median(found for found, _, _ in sets)),
        "with_over_without": round(statistics.median(costs), 4),
        "with_over_without_by_set": [round(ratio, 4) for ratio in costs],
        "with_over_itself": round(statistics.median(noise), 4),
        "with_over_itself_by_set": [round(ratio, 4) for ratio in noise],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
