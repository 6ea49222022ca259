"""Runs bench/harness/child.py and bench/turn.py in fresh processes.

Invariants:
- A process that is to be killed reports first what it acknowledged, and is killed with SIGKILL.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def write_and_kill(path: Path, kind: str, count: int) -> dict[str, Any]:
    """Kills a writer after it has put `count` documents; returns what it acknowledged."""
    return _killed(["bench.harness.child", "write", str(path), kind, str(count)])


def put_and_kill(task: dict[str, Any]) -> None:
    """Kills a process after it has put documents: see bench/turn.py."""
    _killed(["bench.turn", "put", json.dumps(task)])


def _killed(arguments: list[str]) -> dict[str, Any]:
    """Kills the process when it has printed an object; returns that."""
    command = [sys.executable, "-m", *arguments]
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
    return _result(["bench.harness.child", verb, *arguments], environment)


def turn(task: dict[str, Any]) -> dict[str, Any]:
    """Runs the calls of one round in a fresh process: see bench/turn.py."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return _result(["bench.turn", "call", json.dumps(task)], environment)


def _result(arguments: list[str], environment: dict[str, str] | None) -> dict[str, Any]:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"{' '.join(arguments[:2])} failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def with_byte_code(directory: Path) -> dict[str, str]:
    """An environment in which byte code is cached, as with an installed package."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment
