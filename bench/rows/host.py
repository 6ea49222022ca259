"""Rows about AmberDB's cost to its host application: start time, threads, memory.

Invariants:
- Each figure comes from fresh processes; the baseline is measured in the same round.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.process import ROOT, child, with_byte_code
from bench.harness.row import Row

_OPEN = """
import sys, amberdb
with amberdb.open(sys.argv[1]) as db:
    db.collection("note", indexes=[%s]).put({"id": "a", "content": "umbrellas in the car"})
"""
_STARTS = {
    "bare": "pass",
    "numpy": "import numpy",
    "import": "import amberdb",
    "put": _OPEN % "",
    "text": _OPEN % 'amberdb.Text("content")',
}
_WATCHED = ("numpy", "typer", "rich", "asyncio", "sqlite3", "lmdb", "msgspec")


def imports(context: Context) -> Iterator[Line]:
    """Fresh processes in turns, less a bare start: wall, and the processor's user and system time.

    Without `site`, so that nothing is loaded beforehand: an editable install loads a finder.
    """
    environment = with_byte_code(context.directory)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    measured = {name: Measured(operations=context.scale.starts) for name in _STARTS}
    for number in range(-1, context.scale.starts):  # the first round writes the byte code
        took: dict[str, tuple[float, float]] = {}
        for name, code in _STARTS.items():
            path = context.directory / f"start-{number}-{name}"
            took[name] = _start_ms(code, path, environment)
            shutil.rmtree(path, ignore_errors=True)
        for name, (wall, cpu) in took.items() if number >= 0 else ():
            measured[name].rounds.append(wall - took["bare"][0])
            measured[name].cpu.append(cpu - took["bare"][1])
    loaded = child("modules", *_WATCHED)
    notes = {"loaded with it": ", ".join(loaded["loaded"]) or "none", "watched": list(_WATCHED)}
    budget = Budget(0.5, against="numpy", kind="at most")
    both = {AMBER: measured["import"], "numpy": measured["numpy"]}
    yield Line("import", "import, less a bare start", "ms", both, budget, notes)
    for name, title in (("put", "a first put"), ("text", "a first put with a text index")):
        title = f"import, open, {title} and close, less a bare start"
        yield Line("import", title, "ms", {AMBER: measured[name]})


def _start_ms(code: str, path: Path, environment: dict[str, str]) -> tuple[float, float]:
    command = [sys.executable, "-S", "-c", code, str(path)]
    used, before = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter_ns()
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    wall, now = perf_counter_ns() - before, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    return wall / 1e6, cpu * 1e3


def idle(context: Context) -> Iterator[Line]:
    """Context switches of the threads of an unused database."""
    path = context.directory / "idle"
    found = child("idle", str(path), str(context.scale.idle_s))
    for state in ("opened", "written"):
        facts: dict[str, Any] = found[state]
        per_second = Measured([facts["switches"] / context.scale.idle_s], 1)
        title = f"wakeups per second of an idle database, {facts['title']}"
        notes = {"threads besides the main one": facts["threads"]}
        budget = Budget(0, against="", kind="at most")
        yield Line("idle", title, "1/s", {AMBER: per_second}, budget, notes)


def memory(context: Context) -> Iterator[Line]:
    """RssAnon after open and 1,000 gets, minus that of a process with numpy and the same stdlib."""
    scale = context.scale
    path = context.large_amber()
    beside_numpy = Measured()
    beside_bare = Measured()
    for _ in range(scale.rounds):
        own = child("memory", str(path), str(scale.large))
        modules = own["stdlib"]
        with_numpy = child("bare", "numpy", *modules)["anon_kib"]
        without = child("bare", *modules)["anon_kib"]
        beside_numpy.rounds.append((own["anon_kib"] - with_numpy) / 1024)
        beside_bare.rounds.append((own["anon_kib"] - without) / 1024)
    title = f"RssAnon after open of {scale.large:,} documents and 1,000 gets"
    budget = Budget(30, against="", kind="at most")
    yield Line("memory", f"{title}, over Python + numpy", "MiB", {AMBER: beside_numpy}, budget)
    yield Line("memory", "  the same, over Python alone", "MiB", {AMBER: beside_bare})
    for title, count, dim in (
        ("{:,} puts in batches", scale.full, 0),
        ("{:,} puts with texts and vectors", scale.killed, scale.dim),
    ):
        yield _memory_of_load(context, title.format(count), count, dim)


def _memory_of_load(context: Context, title: str, count: int, dim: int) -> Line:
    """Less that of a process that makes the same documents."""
    measured = Measured()
    for number in range(context.scale.builds):
        path = context.directory / f"load-memory-{number}"
        own, made = (
            child("load_memory", where, str(count), str(dim))["anon_kib"]
            for where in (str(path), "-")
        )
        shutil.rmtree(path)
        measured.rounds.append((own - made) / 1024)
    measured.operations = count
    return Line("memory", f"most RssAnon during {title}", "MiB", {AMBER: measured})


ROWS = (
    Row("import", "time of `import amberdb` and of a first put, and the modules loaded", imports),
    Row("idle", "threads and wakeups of an open idle database", idle),
    Row(
        "memory",
        "anonymous memory after open of --size documents, and during a load",
        memory,
    ),
)
