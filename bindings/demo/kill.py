"""The demo's proof by murder: a writing process is killed, and what it was promised is counted.

Invariants:
- A write counts as acknowledged when its line came through the pipe, read to its end; the kill
  comes at a moment that neither process chose by looking at the other.
- The kill shows process death. Power loss cannot be shown by a program; tests/crash replays it.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from amberdb._errors import AmberError
from amberdb.demo.data import DemoClock
from amberdb.demo.writer import documents, stream_name
from amberdb.engine.database.database import Database

STREAMS = 4
_FIRST_LINE_S_MAX = 60
_STREAMING_S = (0.4, 1.2)


class DemoError(AmberError):
    """The demo could not be carried out."""


@dataclass(slots=True)
class Kill:
    """One killed writer."""

    round: int
    acknowledged: dict[str, int]
    """Per stream how many transactions were acknowledged: numbers 0 to this, without it."""
    streamed_ms: float


@dataclass(slots=True)
class Aftermath:
    """What a reopened database has of all writers killed so far."""

    acknowledged: int = 0
    found: int = 0
    lost: list[str] = field(default_factory=list[str])
    """Acknowledged, and not there."""
    half: list[str] = field(default_factory=list[str])
    """There, but not in all three collections, or not as written."""
    unexpected: list[str] = field(default_factory=list[str])
    """Later than the one transaction that may have been under way."""


def kill_writer(path: str, round: int, clock: DemoClock, chance: random.Random) -> Kill:
    """Starts a writer on a closed database, and kills it in mid-stream. Raises DemoError."""
    # -P: a folder named amberdb in the current directory is not us.
    command = [sys.executable, "-P", "-m", "amberdb.demo.writer"]
    arguments = [path, str(round), str(STREAMS), repr(clock())]
    streaming_s = chance.uniform(*_STREAMING_S)
    began = threading.Event()
    lines: list[bytes] = []
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:

        def read() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line)
                began.set()
            began.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            began.wait(_FIRST_LINE_S_MAX)
            threading.Event().wait(streaming_s)
            ended_early = child.poll() is not None
        finally:
            child.kill()  # SIGKILL: no handler, no flush, no goodbye
            reader.join()
            assert child.stderr is not None
            told = child.stderr.read().decode("utf-8", "replace").strip()
    if ended_early or not lines:
        last = told.splitlines()[-1] if told else "it wrote nothing"
        raise DemoError(f"the writer ended before it was killed: {last}")
    return Kill(round, _counted(round, lines), streaming_s * 1000)


def aftermath(db: Database, kills: list[Kill]) -> Aftermath:
    """Compares everything that the killed writers left with what they must have left."""
    result = Aftermath()
    with db.snapshot() as at:
        layers = [at["event"], at["log"]]
        for kill in kills:
            for name, count in kill.acknowledged.items():
                counter = at["profile"].get(name)
                event, log = (
                    {one["id"]: one for one in layer.find({"entity_id": name})} for layer in layers
                )
                _compare(result, name, count, counter, event, log)
    return result


def _compare(
    result: Aftermath,
    name: str,
    acknowledged: int,
    counter: object,
    event: Mapping[str, object],
    log: Mapping[str, object],
) -> None:
    found = max(len(event), len(log))
    result.acknowledged += acknowledged
    result.found += found
    for number in range(max(found, acknowledged)):
        _, wanted_event, wanted_log = documents(name, number)
        id = wanted_event["id"]
        if number < acknowledged and id not in event and id not in log:
            result.lost.append(id)
        elif event.get(id) != wanted_event or log.get(id) != wanted_log:
            result.half.append(id)
    wanted_counter = documents(name, found - 1)[0] if found else None
    if counter != wanted_counter or event.keys() != log.keys():
        result.half.append(name)
    if found > acknowledged + 1:
        result.unexpected.append(name)


def _counted(round: int, lines: list[bytes]) -> dict[str, int]:
    counts = {stream_name(round, stream): 0 for stream in range(STREAMS)}
    for line in lines:
        if line.endswith(b"\n"):  # the kill may have cut the last one
            name, number = line.decode("ascii").split()
            if int(number) != counts[name]:
                raise DemoError(f"{name}: {number} was acknowledged out of turn")
            counts[name] += 1
    return counts
