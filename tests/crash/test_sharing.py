"""Several processes share a database, and the one that leads is killed again and again: what was
told is there, and nothing was done twice."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

import amberdb
from support import slices
from support.databases import assert_sound
from support.sharing import ACCOUNTS, AMOUNT

TESTS: Final = Path(__file__).parent.parent
PROCESSES: Final = 4
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs Linux")


class Workers:
    """The processes, by name."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path = path
        self.rng = rng
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: set[str] = set()

    def start(self) -> None:
        name = f"w{len(self.running) + len(self.killed)}"
        command = [sys.executable, "-m", "support.sharing", str(self.path), name]
        paths = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        environment = {**os.environ, "PYTHONPATH": paths}
        self.running[name] = subprocess.Popen(
            [*command, str(self.rng.randrange(1 << 30))], env=environment
        )

    def told(self, name: str) -> list[str]:
        """The whole lines; the last one of a process that was killed may be cut short."""
        try:
            return Path(f"{self.path}.{name}.told").read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def wait_for(self, more: int) -> None:
        """Waits until the processes have been told that many things more."""
        wanted = sum(len(self.told(name)) for name in self.running) + more
        while sum(len(self.told(name)) for name in self.running) < wanted:
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended with {process.returncode}"
            threading.Event().wait(0.01)

    def kill_leader(self) -> None:
        """SIGKILL for the process that holds the lock."""
        leaders: list[str] = []
        while not leaders:
            text = (self.path / "LOCK").read_text().split(" ")[0]
            leaders = [n for n, each in self.running.items() if str(each.pid) == text]
        name = leaders[0]
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.killed.add(name)

    def stop(self) -> None:
        Path(f"{self.path}.stop").touch()
        for name, process in self.running.items():
            assert process.wait(60) == 0, name


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.timeout(600)
def test_leaders_that_are_killed_lose_nothing_and_nothing_is_done_twice(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    workers = Workers(tmp_path / "t.amber", random.Random(seed))
    for _ in range(PROCESSES):
        workers.start()
    try:
        for _ in range(slices.size(60, 3)):
            workers.wait_for(workers.rng.randrange(20, 120))
            workers.kill_leader()
            workers.start()
        workers.wait_for(100)
        workers.stop()
    finally:
        for process in workers.running.values():
            process.kill()
            process.wait()
    compare(workers)


def compare(workers: Workers) -> None:
    with amberdb.open(workers.path) as db:
        assert_sound(db)
        notes = db["note"]
        moves = 0
        for name in (*workers.running, *workers.killed):
            told = workers.told(name)
            may_be_one_more = name in workers.killed
            for line in told:
                kind, _, number = line.partition(" ")
                assert kind != "lost", f"{name} did not see its own put {number}"
                if kind == "put":
                    assert f"{name}/{number}" in notes
                elif kind == "move":
                    assert f"{name}/move/{number}" in notes
            increments = told.count("increment")
            if told:
                n = notes[f"counter/{name}"]["n"]
                assert increments <= n <= increments + may_be_one_more, name
            own = [line for line in told if line.startswith("move ")]
            there = sum(f"{name}/move/{k}" in notes for k in range(1, len(told) + 2))
            assert len(own) <= there <= len(own) + may_be_one_more
            moves += there
        amounts = [notes[f"account/{number}"]["amount"] for number in range(ACCOUNTS)]
        assert sum(amounts) == ACCOUNTS * AMOUNT
        assert moves
