"""A process that shares a database with others, and notes what it was told.

    python -m support.sharing PATH NAME SEED
    python -m support.sharing lead PATH

appends a line to PATH.NAME.told after each call that returned, until PATH.stop is there. A call is
a put, an increment of a counter of its own, a transaction that moves an amount between two
accounts, or a read of its own last put. The second form leads, says so, and ends with its input.

Invariants:
- A transaction that was lost with its leader is run again, and is told once.
- It ends with code 3 when a read does not see what the process wrote before.
"""

import os
import random
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import amberdb
from amberdb import Database, Ordered, TransactionError, Unique
from amberdb.remote import SharedDatabase

ACCOUNTS: Final = 4
AMOUNT: Final = 1_000
SMALL: Final[dict[str, Any]] = {"checkpoint_bytes": 64 << 10, "segment_bytes_max": 64 << 10}


@final
class Child:
    """A process that leads until its input ends."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "support.sharing", "lead", str(path)]
        paths = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self.process = subprocess.Popen(
            command,
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


def opened(path: Path) -> SharedDatabase:
    """The database with its collection, and with its accounts if this process is the first."""
    db = amberdb.connect(path, **SMALL)
    notes = db.collection("note", indexes=[Ordered("name", "i"), Unique("key", sparse=True)])
    for number in range(ACCOUNTS):
        account = {"id": f"account/{number}", "amount": AMOUNT}
        notes.put_many([account], on_conflict="keep")
    return db


def move(db: Database, name: str, number: int, rng: random.Random) -> None:
    """One transaction, until it is done."""
    of, to = rng.sample(range(ACCOUNTS), 2)
    while True:
        try:
            with db.transaction() as tx:
                notes = tx["note"]
                left = notes[f"account/{of}"]["amount"]
                notes.update(f"account/{of}", {"amount": left - 1})
                notes.update(f"account/{to}", {"$inc": {"amount": 1}})
                notes.insert({"id": f"{name}/move/{number}", "key": f"{name} {number}"})
            return
        except TransactionError as error:
            if "run it again" not in str(error):
                raise


def main(path: Path, name: str, seed: int) -> int:
    """The exit code."""
    rng = random.Random(seed)
    stop = Path(f"{path}.stop")
    counter = f"counter/{name}"
    with opened(path) as db, open(f"{path}.{name}.told", "a", buffering=1) as told:
        notes = db["note"]
        notes.put({"id": counter, "n": 0})
        told.write("counter\n")
        number = 0
        while not stop.exists():
            number += 1
            kind = rng.randrange(4)
            if kind == 0:
                move(db, name, number, rng)
                told.write(f"move {number}\n")
            elif kind == 1:
                notes.update(counter, {"$inc": {"n": 1}})
                told.write("increment\n")
            else:
                notes.put({"id": f"{name}/{number}", "name": name, "i": number})
                told.write(f"put {number}\n")
                if notes.get(f"{name}/{number}") is None:
                    told.write(f"lost {number}\n")
                    return 3
    return 0


def lead(path: str) -> int:
    """The exit code."""
    with amberdb.connect(path, **SMALL) as db:
        assert db.leads
        print("leads", flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "lead":
        sys.exit(lead(sys.argv[2]))
    code = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    sys.stdout.flush()
    os._exit(code)
