"""Rows about AmberDB's cost to its host application: start time, threads, memory.

Invariants:
- Each figure comes from fresh processes; the baseline is measured in the same round.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.process import ROOT, child, with_byte_code
from bench.harness.row import Row

_WATCHED = ("numpy", "typer", "rich", "asyncio", "sqlite3", "lmdb", "msgspec")


def imports(context: Context) -> Iterator[Line]:
    """`python -c "import amberdb"` minus `python -c pass`, in turns."""
    measured = Measured()
    environment = with_byte_code(context.directory)
    _start_ms("import amberdb", environment)
    for _ in range(context.scale.starts):
        bare = _start_ms("pass", environment)
        measured.rounds.append(_start_ms("import amberdb", environment) - bare)
    measured.operations = context.scale.starts
    loaded = child("modules", *_WATCHED)
    notes = {"loaded with it": ", ".join(loaded["loaded"]) or "none", "watched": list(_WATCHED)}
    budget = Budget(100, against="", kind="at most")
    yield Line(
        "import", "import amberdb, less a bare start", "ms", {AMBER: measured}, budget, notes
    )


def _start_ms(code: str, environment: dict[str, str]) -> float:
    before = perf_counter_ns()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment)
    return (perf_counter_ns() - before) / 1e6


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
    Row("import", "time of `import amberdb`, and the modules it loads", imports),
    Row("idle", "threads and wakeups of an open idle database", idle),
    Row(
        "memory",
        "anonymous memory after open of --size documents, and during a load",
        memory,
    ),
)
