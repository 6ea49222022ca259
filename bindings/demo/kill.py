"""The demo's crash: a process that writes is killed, and its acknowledged writes are counted.

Invariants:
- A write counts as acknowledged when its whole line arrived through the pipe. The time of the kill
  is random and does not depend on the state of either process.
- The kill shows process death. A program cannot show power loss; tests/crash simulates it.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from amberdb import AmberError, Database
from amberdb.demo.data import DemoClock
from amberdb.demo.writer import documents, stream_name

STREAMS = 4
_FIRST_LINE_S_MAX = 60
_STREAMING_S = (0.4, 1.2)


class DemoError(AmberError):
    """The demo could not run."""


@dataclass(slots=True)
class Kill:
    """One killed writer."""

    round: int
    acknowledged: dict[str, int]
    """For each stream the number of acknowledged transactions, which are numbered from 0."""
    streamed_ms: float


@dataclass(slots=True)
class Aftermath:
    """What a reopened database holds of the writes of all killed writers."""

    acknowledged: int = 0
    found: int = 0
    lost: list[str] = field(default_factory=list[str])
    """Acknowledged, but missing."""
    half: list[str] = field(default_factory=list[str])
    """Present, but not in all three collections or not as written."""
    unexpected: list[str] = field(default_factory=list[str])
    """Streams with more than the one unacknowledged transaction that was running."""


def kill_writer(path: str, round: int, clock: DemoClock, chance: random.Random) -> Kill:
    """Starts a writer on a closed database, and kills it while it writes. Raises DemoError."""
    # -P: a directory named amberdb in the current directory must not be imported.
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
            child.kill()  # SIGKILL: no handler and no flush runs
            reader.join()
            assert child.stderr is not None
            output = child.stderr.read().decode("utf-8", "replace").strip()
    if ended_early or not lines:
        last = output.splitlines()[-1] if output else "it wrote nothing"
        raise DemoError(f"the writer ended before it was killed: {last}")
    return Kill(round, _counted(round, lines), streaming_s * 1000)


def aftermath(db: Database, kills: list[Kill]) -> Aftermath:
    """Compares the documents of the killed writers with those that they must have written."""
    result = Aftermath()
    with db.snapshot() as at:
        layers = [at["event"], at["log"]]
        for kill in kills:
            for name, count in kill.acknowledged.items():
                counter = at["profile"].get(name)
                event, log = (
                    {document["id"]: document for document in layer.find({"entity_id": name})}
                    for layer in layers
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
    """Adds the comparison of one stream to the result."""
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
    """Acknowledged transactions by stream, from the lines of the pipe. Raises DemoError."""
    counts = {stream_name(round, stream): 0 for stream in range(STREAMS)}
    for line in lines:
        if line.endswith(b"\n"):  # the kill may have cut the last one
            name, number = line.decode("ascii").split()
            if int(number) != counts[name]:
                raise DemoError(f"{name}: {number} was acknowledged out of order")
            counts[name] += 1
    return counts
