"""Databases to move: the data of all systems, and a program that is killed while it moves one.

python -m support.moving SOURCE TARGET BATCH     prints a line after each batch, with the most
                                                 memory that it has had more than at first: of its
                                                 own, and of mapped files; at last "done"
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from amberdb import Database, Ordered, Text, Unique, Vector
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Memory
from amberdb.move import move
from amberdb.profiles import UserProfiles

DAY = datetime(2026, 3, 1, tzinfo=UTC)
DIM = 16
TESTS = Path(__file__).parents[1]
_LOOK_S = 0.02
BATCH = 50
"""Documents at once, in the program that is killed."""
ODD: list[Any] = [1.0, 1, True, 1e300, -0.0, "a\0b", b"\0\xff", 2**63 - 1, None, {"x": [{}]}]


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text, from its bytes."""
    return [
        np.random.default_rng(list(text.encode()) or [0]).random(DIM).tolist() for text in texts
    ]


def fill_systems(db: Database, count: int) -> None:
    """Something of each system, `count` times."""
    memory = Memory(db, embed=embed, dim=DIM, model="of the test")
    memory.remember_many(
        [{"entity_id": f"u{n % 7}", "content": f"第{n}次会议 meeting"} for n in range(count)],
        memory_layer="event",
    )
    buffer = ChatBuffer(db, CollectionSink(db))
    events = AmberEventStore(db)
    profiles = UserProfiles(db, history_days=90)
    graph = KnowledgeGraph(db)
    context = AgentContext(db)
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    told = [
        AgentEvent(
            agent_name="agent",
            session_id=f"s{n % 3}",
            event_type=EventType.USER_MESSAGE,
            data={"n": n, "content": f"event {n}"},
        )
        for n in range(count)
    ]
    asyncio.run(events.store_many(told))
    for n in range(count):
        buffer.save_chat(f"question {n}", "好的", f"conv{n % 5}", f"u{n % 7}")
        profiles.save(f"u{n % 7}", basic_info={"visits": n})
        graph.add_entity(f"entity {n}", "thing", observations=[f"seen {n}"])
        context.append(session, "user", f"message {n}")
    for n in range(1, count):
        graph.relate(f"entity {n - 1}", "before", f"entity {n}")


def fill_documents(db: Database, count: int) -> None:
    """Documents of every type, with every kind of index, required fields and expiry."""
    things = db.collection(
        "thing",
        indexes=[
            Ordered("who", "-at"),
            Text("text"),
            Vector("v", dim=DIM),
            Unique("number", sparse=True),
        ],
        expires_at="until",
        required={"who": str, "at": datetime},
    )
    for begin in range(0, count, 1000):
        things.put_many(thing(n) for n in range(begin, min(begin + 1000, count)))
    db.collection("é 𝄞").put({"id": "a\0b", "odd": ODD})


def thing(n: int, salt: int = 0) -> dict[str, Any]:
    """One of these documents."""
    return {
        "id": f"t{n:06}",
        "who": f"u{n % 9}",
        "at": DAY + timedelta(seconds=n, microseconds=salt % 1000),
        "text": f"turn {n} 下午的会议 {salt}",
        "v": np.random.default_rng([n, salt]).random(DIM, np.float32),
        "number": n,
        "until": DAY.replace(year=2100) if n % 3 else None,
        "odd": ODD,
    }


def write_on(db: Database, count: int, rng: random.Random) -> None:
    """One more commit of a program that uses such documents: a put, a delete, or two that change
    their unique numbers."""
    things, n = db["thing"], rng.randrange(count)
    kind = rng.randrange(4)
    if kind == 0:
        things.delete(f"t{n:06}")
    elif kind == 1:
        swap(db, n, rng.randrange(count))
    else:
        stored = things.get(f"t{n:06}") or {"number": count + rng.randrange(1 << 40)}
        things.put({**thing(n, rng.randrange(1 << 30)), "number": stored["number"]})


def swap(db: Database, one: int, other: int) -> None:
    """Two documents change their unique numbers, in one commit."""
    with db.transaction() as tx:
        first, second = tx["thing"].get(f"t{one:06}"), tx["thing"].get(f"t{other:06}")
        if one != other and first and second:
            tx["thing"].update(first["id"], {"number": second["number"]})
            tx["thing"].update(second["id"], {"number": first["number"]})


@dataclass
class Killed:
    """What is known of a program that was to move a database."""

    is_done: bool = False
    """It had ended before it was killed."""
    own_mb: float = 0.0
    """The most memory of its own that it had more than at its beginning: heap and stacks."""
    mapped_mb: float = 0.0
    """The same of mapped files, which the system takes back when it needs memory."""


def killed_move(source: str, target: str, lines: int | None, batch: int = BATCH) -> Killed:
    """Moves in another process, which is killed after it has printed so many lines."""
    killed = Killed()
    command = [sys.executable, "-m", "support.moving", source, target, str(batch)]
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, 1):
            word, own, mapped = line.split()
            killed.own_mb = max(killed.own_mb, float(own))
            killed.mapped_mb = max(killed.mapped_mb, float(mapped))
            killed.is_done = word == "done"
            if number == lines:
                process.kill()
                break
    assert process.returncode in (0, -signal.SIGKILL)
    assert killed.is_done or process.returncode != 0
    return killed


class _Memory(Thread):
    """Looks at the memory of this process all the time, and keeps the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._first = self._most = _memory_mb()

    def run(self) -> None:
        pause = Event()
        while not pause.wait(_LOOK_S):
            self.most()

    def most(self) -> tuple[float, float]:
        """More than at first: of its own, of mapped files."""
        own, mapped = _memory_mb()
        self._most = max(self._most[0], own), max(self._most[1], mapped)
        return self._most[0] - self._first[0], self._most[1] - self._first[1]


def _memory_mb() -> tuple[float, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1000, int(status["RssFile"].split()[0]) / 1000


def main(source: str, target: str, batch: str) -> None:
    memory = _Memory()
    memory.start()

    def tell(name: str) -> None:
        print(name.replace(" ", "_"), *memory.most(), flush=True)

    move(source, target, batch=int(batch), progress=lambda name, count: tell(name))
    tell("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
