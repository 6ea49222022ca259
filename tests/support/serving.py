"""`amberdb serve`, or another verb that serves, as a child process, for tests and campaigns.

Invariants:
- Entering returns when it listens; leaving kills what still runs.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-m", "amberdb.cli.__main__")
SERVE = (*PROGRAM, "serve")


@dataclass(frozen=True)
class Server:
    """One that listens."""

    process: "subprocess.Popen[str]"
    url: str


def _default_interrupt() -> None:
    """A shell starts background jobs with SIGINT ignored, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(
    path: Path, *arguments: str, verb: str = "serve", errors: int = subprocess.PIPE
) -> Generator[Server]:
    """On a free port, unless the arguments say another."""
    process = subprocess.Popen(
        [*PROGRAM, verb, str(path), "--json", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        preexec_fn=_default_interrupt,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told: dict[str, Any] = json.loads(line)
        assert told["pid"] == process.pid
        yield Server(process, told["url"])
    finally:
        process.kill()
        process.communicate()
