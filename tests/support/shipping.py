"""A process that puts documents and ships them, until it is killed.

python -m support.shipping PATH TARGET EVERY_MS      prints the number and the time of each put that
                                                     was acknowledged, in seconds since 1970
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import amberdb
from amberdb.ship import S3Options, restore_from, ship


@final
@dataclass
class Writer:
    """What is known of such a process."""

    acknowledged: list[float] = field(default_factory=list[float])
    """The time of each put, by its number."""
    killed: float = 0.0


def killed_after(
    seconds: float, path: Path, target: str, *, every_ms: int, environment: dict[str, str]
) -> Writer:
    """A process that was killed with SIGKILL so long after its first put."""
    writer = Writer()
    command = [sys.executable, "-m", "support.shipping", str(path), target, str(every_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            note(writer, line)
            if time.time() - writer.acknowledged[0] > seconds:
                break
        process.kill()
        writer.killed = time.time()
        for line in process.stdout:
            if line.endswith("\n"):
                note(writer, line)
    return writer


def note(writer: Writer, line: str) -> None:
    number, at = line.split()
    assert int(number) == len(writer.acknowledged)
    writer.acknowledged.append(float(at))


def behind_s(writer: Writer, target: str, path: Path, *, s3: S3Options | None = None) -> float:
    """Restores, checks that it is a prefix of what was acknowledged, and tells how much older than
    the kill the first put is that is missing; 0 when none is."""
    restore_from(target, path, s3=s3)
    with amberdb.open(path) as db:
        assert db.check().ok
        found = sorted(int(document["n"]) for document in db["x"].find())
    assert found == list(range(len(found)))
    assert len(found) <= len(writer.acknowledged) + 1  # one may have been under way
    missing = writer.acknowledged[len(found) :]
    return writer.killed - missing[0] if missing else 0.0


def main(path: str, target: str, every_ms: str) -> None:
    """Puts until it is killed."""
    with amberdb.open(path) as db, ship(db, target, every_ms=float(every_ms)) as shipper:
        documents = db.collection("x", indexes=[amberdb.Ordered("n")])
        documents.put({"id": "0", "n": 0})
        shipper.ship_now()
        print(0, time.time(), flush=True)
        number = 1
        while True:
            documents.put({"id": f"{number}", "n": number, "t": "x" * 200})
            print(number, time.time(), flush=True)
            number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
