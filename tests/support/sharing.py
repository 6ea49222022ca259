"""A process that shares a database and leads.

python -m support.sharing PATH      leads, says so, and ends with its input
"""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import amberdb


@final
class Child:
    """A process that leads until its input ends."""

    def __init__(self, path: Path) -> None:
        paths = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.sharing", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"leads\n"

    def end(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def child_leads(path: Path) -> Generator[Child]:
    """A process that leads the database at `path`."""
    child = Child(path)
    try:
        yield child
    finally:
        if child.process.poll() is None:
            child.kill()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with amberdb.connect(place, checkpoint_bytes=64 << 10, segment_bytes_max=64 << 10) as db:
        assert db.leads
        print("leads", flush=True)
        sys.stdin.read()
