"""Runs bench/harness/child.py in fresh processes.

Invariants:
- A process that is to be killed reports first what it acknowledged, and is killed with SIGKILL.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.harness.context import Context

ROOT = Path(__file__).parents[2]


def write_and_kill(path: Path, kind: str, count: int) -> dict[str, Any]:
    """Kills a writer after it has put `count` documents; returns what it acknowledged."""
    command = [sys.executable, "-m", "bench.harness.child", "write", str(path), kind, str(count)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        line = writer.stdout.readline()  # the child then waits to be killed
        writer.kill()
    if not line:
        raise RuntimeError(f"the writing process ended before it was killed: {command}")
    result: dict[str, Any] = json.loads(line)
    return result


def child(verb: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Runs a verb of bench/harness/child.py in a fresh process; returns the object it printed."""
    command = [sys.executable, "-m", "bench.harness.child", verb, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def with_byte_code(context: Context) -> dict[str, str]:
    """An environment in which byte code is cached, as with an installed package."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(context.directory / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
