"""A soak over all memory systems of one database: a child writes to each in a thread of its own, is
killed with -9, and the parent reads back all that was acknowledged, and forgets what is older.

    PYTHONPATH=tests python tests/crash/systems.py [--seconds S] [--round-s S] [--seed X]
        [--json PATH] [--directory DIR]

In each round all that is written is of one person, whose name has the number of the round. A thread
prints a line for each call that returned; the last one of each may be done without its line. The
result counts what is lost (acknowledged, and not there as it was told) and what is strange (there
twice, out of order, or left after it was forgotten); it fails unless both are 0 and the database is
sound after each kill. Memory of the child is read at its end: it is to stay where it is.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import amberdb
from amberdb import Database
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.context import AgentContext
from amberdb.events import AgentEvent, AmberEventStore, EventType, Filters
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Memory
from amberdb.privacy import export, forget
from amberdb.profiles import UserProfiles

KEPT_ROUNDS = 3
WORDS = ("tea", "umbrella", "meeting", "report", "\u4f1a\u8bae", "\u5496\u5561", "\u4e0b\u5348")
Say = Callable[..., None]
Told = dict[str, list[list[Any]]]
"""By system the calls that returned, in their order."""


def person(number: int) -> str:
    return f"person-{number}"


# -- the child -----------------------------------------------------------------------------------


class Systems:
    """All systems over one database."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.memory = Memory(db)
        self.chat = ChatBuffer(db, CollectionSink(db))
        self.context = AgentContext(db, token_budget=200)
        self.events = AmberEventStore(db)
        self.graph = KnowledgeGraph(db)
        self.profiles = UserProfiles(db)


def _text(rng: random.Random, number: int) -> str:
    return f"{number} {' '.join(rng.choices(WORDS, k=8))}"


def _write_memory(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    ids: list[tuple[Any, str]] = []
    for number in count():
        layer: Any = rng.choice(("profile", "event"))
        if ids and rng.random() < 0.3:
            layer, id = ids[rng.randrange(len(ids))]
            text = _text(rng, number)
            say("before", id, text)
            systems.memory.update(layer, id, content=text)
            say("put", layer, id, text)
        elif ids and rng.random() < 0.1:
            layer, id = ids.pop(rng.randrange(len(ids)))
            say("before", id, None)
            systems.memory.delete(layer, id)
            say("gone", layer, id)
        else:
            text = _text(rng, number)
            (outcome,) = systems.memory.remember(who, text, memory_layer=layer)
            ids.append((layer, outcome.memory_id))
            say("put", layer, outcome.memory_id, text)
        yield


def _write_chat(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    for number in count():
        saved = systems.chat.save_chat(
            _text(rng, number), "ok", f"with-{who}", who, important=rng.random() < 0.1
        )
        say(saved["cid"])
        if rng.random() < 0.05:
            systems.chat.flush()
        yield


def _write_context(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    session = systems.context.sessions.create(
        systems.context.sessions.create_user(who), "helper", session_id=f"session-{who}"
    )
    for number in count():
        systems.context.append(session, "user", str(number))
        say(number)
        yield


def _write_events(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    for number in count():
        event = AgentEvent(
            agent_name="a",
            session_id=f"session-{who}",
            event_type=EventType.USER_MESSAGE,
            data={"message": _text(rng, number)},
            metadata={"user_id": who},
        )
        asyncio.run(systems.events.store(event))
        say(event.event_id)
        yield


def _write_graph(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    systems.graph.add_entity(who, "person")
    for number in count():
        systems.graph.add_entity(who, "person", observations=[_text(rng, number % 50)])
        systems.graph.relate(who, f"liked {number}", who)
        say(f"liked {number}")
        yield


def _write_profiles(systems: Systems, who: str, rng: random.Random, say: Say) -> Iterator[None]:
    for _ in count():
        say(systems.profiles.count_conversation(who))
        yield


WRITERS = {
    "memory": _write_memory,
    "chat": _write_chat,
    "context": _write_context,
    "events": _write_events,
    "graph": _write_graph,
    "profiles": _write_profiles,
}


def child(path: str, number: int, seed: int) -> None:
    """Writes until it is killed."""
    print_lock, pause = threading.Lock(), threading.Event()
    with amberdb.open(path) as db:
        systems = Systems(db)

        def write(name: str) -> None:
            def say(*what: Any) -> None:
                with print_lock:
                    print(json.dumps([name, *what]), flush=True)

            rng = random.Random(f"{seed}/{number}/{name}")
            for _ in WRITERS[name](systems, person(number), rng, say):
                pause.wait(0.002)  # so that none of six threads has the writer lock alone

        threads = [threading.Thread(target=write, args=(name,)) for name in WRITERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


# -- the parent ----------------------------------------------------------------------------------


@dataclass
class Figures:
    """Of all rounds."""

    calls: Counter[str] = field(default_factory=Counter[str])
    kills: int = 0
    forgotten: int = 0
    lost: list[str] = field(default_factory=list[str])
    strange: list[str] = field(default_factory=list[str])
    unsound: list[str] = field(default_factory=list[str])
    rss_mib: list[float] = field(default_factory=list[float])
    database_mib: list[float] = field(default_factory=list[float])
    reopened_s: list[float] = field(default_factory=list[float])

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.strange or self.unsound)


def run_child(path: Path, number: int, seed: int, seconds: float, figures: Figures) -> Told:
    """Runs the child and kills it; what it said."""
    command = [sys.executable, __file__, "--child", str(path), str(number), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told: Told = {name: [] for name in WRITERS}
    killer = threading.Timer(seconds, process.kill)
    first = process.stdout.readline()
    killer.start()
    lines = [first, *_lines(process, figures)]
    process.stdout.close()
    process.wait()
    killer.cancel()
    figures.kills += 1
    for line in lines:
        if line.endswith("\n"):
            name, *what = json.loads(line)
            told[name].append(what)
            figures.calls[name] += what[0] != "before"
    return told


def _lines(process: "subprocess.Popen[str]", figures: Figures) -> Iterator[str]:
    assert process.stdout is not None
    size = 0.0
    read = time.monotonic()
    for line in process.stdout:
        if time.monotonic() - read > 1:
            read, size = time.monotonic(), rss_mib(process.pid) or size
        yield line
    figures.rss_mib.append(round(size, 1))


def rss_mib(pid: int) -> float:
    """0 where there is no /proc, or no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def compare(systems: Systems, who: str, told: Told, figures: Figures) -> None:
    """Reads all back that was acknowledged."""

    def lost(system: str, what: object) -> None:
        figures.lost.append(f"{who}, {system}: {what}")

    memories: dict[str, set[str | None]] = {}
    for what, *rest in told["memory"]:
        if what == "before":
            memories.setdefault(rest[0], set()).add(rest[1])
        else:
            memories[rest[1]] = {rest[2] if what == "put" else None}
    found = {
        memory["id"]: memory["content"]
        for page in (systems.memory.profile(who), systems.memory.events(who, limit=10**9))
        for memory in page
    }
    for id, contents in memories.items():
        if found.get(id) not in contents:
            lost("memory", f"{id}: {contents}, and there is {found.get(id)!r}")

    turns = [t["id"] for t in systems.chat.load_recent_context(f"with-{who}", 10**7)]
    _ordered("chat", who, turns, [cid for (cid,) in told["chat"]], figures)

    if told["context"]:
        session = f"session-{who}"
        left = [m["content"] for m in systems.context.external.recall(session, limit=None)][::-1]
        queue = [m["content"] for m in systems.context.queue(session, limit=None)]
        said = [str(number) for (number,) in told["context"]]
        _ordered("context", who, left + queue, said, figures)

    filters = Filters(session_id=f"session-{who}")
    stored = asyncio.run(systems.events.retrieve(filters, limit=None, oldest_first=True))
    ids = [event.event_id for event in stored]
    _ordered("events", who, ids, [id for (id,) in told["events"]], figures)

    relations = {each["relation_type"] for each in systems.graph.relations(source=who, limit=None)}
    for (relation,) in told["graph"]:
        if relation not in relations:
            lost("graph", relation)

    profile = systems.profiles.get(who)
    counted = 0 if profile is None else profile["conversation_count"]
    acknowledged = told["profiles"][-1][0] if told["profiles"] else 0
    if counted not in (acknowledged, acknowledged + 1):
        lost("profiles", f"{acknowledged}, and there is {counted}")


def _ordered(system: str, who: str, found: list[str], said: list[str], figures: Figures) -> None:
    """What was said is there, once, in its order; one more may be."""
    if found[: len(said)] == said and len(found) <= len(said) + 1:
        return
    gone = [each for each in said if each not in set(found)]
    figures.lost += [f"{who}, {system}: {each}" for each in gone]
    if not gone:
        figures.strange.append(f"{who}, {system}: {len(found)} for {len(said)}, or another order")


def soak(path: Path, seed: int, seconds: float, round_s: float) -> Figures:
    """Rounds until the time is over."""
    figures, rng = Figures(), random.Random(seed)
    until = time.monotonic() + seconds
    for number in count():
        told = run_child(path, number, seed, round_s * rng.uniform(0.5, 1.5), figures)
        began = time.monotonic()
        with amberdb.open(path) as db:
            figures.reopened_s.append(round(time.monotonic() - began, 3))
            systems = Systems(db)
            compare(systems, person(number), told, figures)
            old = person(number - KEPT_ROUNDS)
            if number >= KEPT_ROUNDS:
                figures.forgotten += forget(db, old, reason="it is old").documents
                figures.strange += [f"{old} is not forgotten: {name}" for name in export(db, old)]
            report = db.check()
            if not report.ok:
                figures.unsound.append(str(report))
        files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        figures.database_mib.append(round(sum(files) / 2**20, 1))
        print(
            f"round {number}: {sum(figures.calls.values())} calls, {figures.rss_mib[-1]} MiB, "
            f"{figures.database_mib[-1]} MiB on disk, {len(figures.lost)} lost, "
            f"{len(figures.strange)} strange",
            flush=True,
        )
        if time.monotonic() > until:
            break
    return figures


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description="a soak over all memory systems, with kills")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--round-s", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="amberdb-soak-", dir=options.directory) as directory:
        figures = soak(Path(directory) / "t.amber", seed, options.seconds, options.round_s)
    third = max(1, len(figures.rss_mib) // 3)
    result: dict[str, Any] = {
        "seed": seed,
        "seconds": options.seconds,
        **vars(figures),
        "calls": dict(figures.calls),
        "rss_mib_first_third": median(figures.rss_mib[:third]),
        "rss_mib_last_third": median(figures.rss_mib[-third:]),
    }
    text = json.dumps(result, ensure_ascii=False, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if figures.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
