"""Programs that do the same to one database on a server, round by round at once.

Invariants:
- Each is a process of its own, and gets the number of a round only when all have done the one
  before.
- An error of AmberDB is the outcome of its round, as "Type: message".
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import amberdb
from amberdb import AmberError, Database

Work = Callable[[Database, int], Callable[[int], Any]]
"""From the database and the side of a process, 0 or 1, to what it does in a round."""

_TESTS = Path(__file__).parents[1]


class Racers:
    """Some processes, which wait for races."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def race(self, url: str, work: Work, rounds: int) -> list[list[Any]]:
        """By round what each process returned. `work` is a function of a module of tests."""
        start = {"module": work.__module__, "name": work.__qualname__, "url": url}
        self._told(start)
        outcomes = [self._told(number) for number in range(rounds)]
        self._told(None)
        return outcomes

    def _told(self, what: Any) -> list[Any]:
        """Tells all of them, and then waits for what they answer."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
        return [self._answer(process) for process in self._processes]

    def _answer(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "a process has ended"
        return json.loads(line)


@contextmanager
def racers(count: int = 2) -> Generator[Racers]:
    """Processes that end with the block."""
    program = "from support import racing; racing.run()"
    path = os.pathsep.join([str(_TESTS), *sys.path])
    with ExitStack() as stack:
        processes: list[subprocess.Popen[str]] = []
        for side in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(side)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield Racers(processes)


def run() -> None:
    """The program of one process: its argument is its side."""
    side = int(sys.argv[1])
    for line in sys.stdin:
        start = json.loads(line)
        work: Work = getattr(import_module(start["module"]), start["name"])
        with amberdb.connect(start["url"]) as db:
            _race(work(db, side))
        _answer(None)


def _race(do: Callable[[int], Any]) -> None:
    _answer("ready")
    for line in sys.stdin:
        number = json.loads(line)
        if number is None:
            return
        try:
            _answer(do(number))
        except AmberError as error:
            _answer(f"{type(error).__name__}: {error}")


def _answer(outcome: Any) -> None:
    print(json.dumps(outcome), flush=True)
