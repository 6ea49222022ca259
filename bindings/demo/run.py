"""The demo: a dialogue stored in layers, a writer that is killed, memories with reasons, and
proofs.

Invariants:
- Each claim is proved: it is computed from the input and compared with the answers of the database,
  and fails if the database is wrong.
- Stored times do not come from the machine's clock, so two runs differ only in the times of the
  kills and the timings.
"""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any, cast, final

from amberdb import Change, Database, Document
from amberdb.demo.ask import TOP, Answer, ask, read_questions
from amberdb.demo.data import (
    LAYERS,
    DemoClock,
    Turn,
    declare,
    end_of,
    open_demo,
    read_turns,
    sessions,
)
from amberdb.demo.kill import Aftermath, Kill, aftermath, kill_writer
from amberdb.demo.memory import Entry, MemoryDemo

NOTES = 20
_PAGE = 25
_QUERIES = 200
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim, and whether it holds."""

    claim: str
    ok: bool
    detail: str


@dataclass(slots=True)
class DemoReport:
    """The result of a run."""

    path: str
    seed: int
    proofs: list[Proof] = field(default_factory=list[Proof])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])
    recent: list[Document] = field(default_factory=list[Document])
    """The newest turns of the entity with the most turns."""
    answers: list[Answer] = field(default_factory=list[Answer])
    """Answers to the questions about the packaged dialogue."""
    changes: list[Change] = field(default_factory=list[Change])
    """The last changes of the feed."""
    memories: list[Entry] = field(default_factory=list[Entry])
    """The log of the memories, before one person was forgotten."""

    @property
    def ok(self) -> bool:
        """Whether all claims hold."""
        return all(proof.ok for proof in self.proofs)


@final
class Demo:
    """One run. `on_step` is called with a line before each step, and with each proof."""

    def __init__(
        self,
        path: str,
        turns: list[Turn],
        *,
        has_questions: bool,
        kills: int,
        seed: int,
        on_step: Callable[[str | Proof], None],
    ) -> None:
        self._has_questions = has_questions
        self.report = DemoReport(path, seed)
        self._path = path
        self._turns = turns
        self._kills = kills
        self._on_step = on_step
        self._chance = random.Random(seed)
        self._clock = DemoClock(end_of(turns))
        self._events = {
            turn.document["id"]: turn.document for turn in turns if turn.layer == "event"
        }

    def run(self) -> DemoReport:
        """Runs all steps. Raises DemoError, AmberError."""
        with self._timed("all"):
            self._on_step(f"storing a dialogue of {len(self._turns)} turns in {', '.join(LAYERS)}")
            with open_demo(self._path, self._clock, create=True) as db:
                self._load(db)
            db = self._kill_and_reopen()
            with db:
                self._query(db)
                self._page(db)
                if self._has_questions:
                    self._ask(db)
                feed = db.subscriber("demo")  # keeps the log of the next step
                removed = self._expire(db)
                self._read_changes(list(feed.changes()), removed)
                self._check(db, "after all steps, check() finds every index equal to a rebuild")
            self._remember()
        return self.report

    # -- steps -------------------------------------------------------------------------------

    def _load(self, db: Database) -> None:
        declare(db)
        commits = 0
        with self._timed("load"):
            for session in sessions(self._turns):
                with db.transaction() as tx:
                    for turn in session:
                        tx["log"].put(turn.document)
                        tx[turn.layer].put(turn.document)
                commits += 1
        layers = Counter(turn.layer for turn in self._turns)
        self.report.counts |= {"turns": len(self._turns), "sessions": commits, **layers}
        stored = {document["id"]: document for document in db.collection("log").documents()}
        turns = {turn.document["id"]: turn.document for turn in self._turns}
        self._prove(
            "every turn is stored as given",
            stored == turns,
            f"{len(stored)} documents in {commits} transactions",
        )

    def _kill_and_reopen(self) -> Database:
        """The database, open again after the last kill."""
        kills: list[Kill] = []
        while True:
            self._on_step(
                f"a child process writes and is killed: {len(kills) + 1} of {self._kills}"
            )
            kills.append(kill_writer(self._path, len(kills) + 1, self._clock, self._chance))
            with self._timed(f"reopen {len(kills)}"):
                db = open_demo(self._path, self._clock)
            try:
                self._judge(db, kills)
            except BaseException:
                db.close()
                raise
            if len(kills) == self._kills:
                return db
            db.close()

    def _judge(self, db: Database, kills: list[Kill]) -> None:
        left = aftermath(db, kills)
        replayed = db.recovery.records if db.recovery is not None else 0
        acknowledged = sum(kills[-1].acknowledged.values())
        counts = self.report.counts
        counts["acknowledged"] = left.acknowledged
        counts[f"acknowledged_at_kill_{len(kills)}"] = acknowledged
        counts["unacknowledged_but_kept"] = left.found - left.acknowledged
        self._prove(
            "no acknowledged write is lost",
            acknowledged > 0 and not left.lost and not left.unexpected,
            f"{acknowledged} acknowledged in {kills[-1].streamed_ms:.0f} ms, "
            f"{left.acknowledged} in all, {_named(left.lost, 'lost')}; {replayed} replayed",
        )
        self._prove(
            "no transaction is stored in part",
            not left.half,
            f"{left.found} compared in three collections, {_named(left.half, 'half')}",
        )
        self._prove_dialogue(db, left)
        self._check(db, "check() finds every index equal to a rebuild")

    def _prove_dialogue(self, db: Database, left: Aftermath) -> None:
        turns = {turn.document["id"]: turn.document for turn in self._turns}
        with db.snapshot() as at:
            kept = sum(at["log"].get(id) == document for id, document in turns.items())
            extra = len(at["log"]) - len(turns) - left.found
        self._prove(
            "documents stored before are unchanged",
            kept == len(turns) and extra == 0,
            f"{kept} of {len(turns)} turns, nothing else",
        )

    def _query(self, db: Database) -> None:
        entity = self._busiest()
        log = db.collection("log")
        wanted = sorted(
            (turn.document for turn in self._turns if turn.document["entity_id"] == entity),
            key=lambda document: cast(datetime, document["created_at"]),
            reverse=True,
        )
        times: list[float] = []
        recent: list[Document] = []
        for _ in range(_QUERIES):
            began = time.perf_counter()
            recent = log.find({"entity_id": entity}, order_by="-created_at", limit=_SHOWN)
            times.append((time.perf_counter() - began) * 1000)
        self.report.timings_ms["recent turns of one entity, median"] = median(times)
        self.report.recent = list(recent)
        # Compared by time: turns with the same time may come in either order.
        stamps = [document["created_at"] for document in recent]
        plan = log.explain({"entity_id": entity}, order_by="-created_at")
        self._prove(
            "the newest turns of an entity are read through the index",
            stamps == [document["created_at"] for document in wanted[:_SHOWN]]
            and all(document in wanted for document in recent)
            and plan["index"] is not None,
            f"{plan['index']}, {plan['direction']}",
        )

    def _page(self, db: Database) -> None:
        entity = self._busiest()
        log = db.collection("log")
        query = {"entity_id": entity}
        everything = log.find(query, order_by="-created_at")
        paged: list[Document] = []
        pages = 0
        cursor: str | None = None
        while pages == 0 or cursor is not None:
            page = log.find(query, order_by="-created_at", limit=_PAGE, after=cursor)
            paged += page
            cursor = page.cursor
            pages += 1
        self._prove(
            "pages continue without gap or repetition",
            paged == everything and len(paged) == len({document["id"] for document in paged}),
            f"{len(paged)} turns of {entity} in {pages} pages of {_PAGE}",
        )

    def _ask(self, db: Database) -> None:
        log = db.collection("log")
        began = time.perf_counter()
        self.report.answers = [ask(log, question) for question in read_questions()]
        took_ms = (time.perf_counter() - began) * 1000
        self.report.timings_ms["one question, mean"] = took_ms / len(self.report.answers)
        for lang, name in (("en", "English"), ("zh", "Chinese")):
            answers = [answer for answer in self.report.answers if answer.lang == lang]
            correct = sum(answer.rank is not None for answer in answers)
            self._prove(
                f"full-text search answers questions in {name}",
                2 * correct >= len(answers) > 0,
                f"{correct} of {len(answers)} among the first {TOP} hits",
            )

    def _expire(self, db: Database) -> int:
        """Proves expiry; how many documents were removed."""
        self._on_step("notes that expire, and a clock that is advanced by 30 days")
        event = db.collection("event")
        now = datetime.fromtimestamp(self._clock(), UTC)
        notes = [
            {
                "id": f"note-{number}",
                "entity_id": "demo",
                "created_at": now,
                "content": "good for one hour",
                "expires_at": now + timedelta(hours=1),
            }
            for number in range(NOTES)
        ]
        event.put_many(notes)
        self._events |= {str(note["id"]): note for note in notes}
        before = len(event)
        alive = self._alive()
        self._clock.advance(30 * 86_400)
        alive_later = self._alive()
        vanished = len(alive) - len(alive_later)
        dead = [id for id in self._events if id not in alive_later]
        unseen = all(event.get(id) is None for id in dead)
        found = {note["id"] for note in event.find({"entity_id": "demo"})}
        self._prove(
            "no read shows expired documents",
            before - len(event) == vanished >= NOTES and unseen and not found,
            f"{vanished} expired now and {len(dead) - vanished} earlier, all of them still on disk",
        )
        stored = self._stored(db)
        with self._timed("remove expired"):
            removed = db.expire()
        self._prove(
            "expire() removes exactly these from disk",
            removed == len(dead) == stored - self._stored(db) and self._stored(db) == len(event),
            f"{stored} stored, {removed} removed, {len(event)} left",
        )
        self.report.counts["expired"] = removed
        return removed

    def _read_changes(self, changes: list[Change], removed: int) -> None:
        operations = Counter((change.collection, change.op) for change in changes)
        wanted = Counter({("event", "put"): NOTES, ("event", "expire"): removed})
        in_order = all(earlier.lsn <= later.lsn for earlier, later in pairwise(changes))
        self._prove(
            "the change feed has each of these changes once, in order",
            operations == wanted and in_order,
            ", ".join(f"{count} {op}" for (_, op), count in operations.items()),
        )
        self.report.changes = changes[-_SHOWN:]

    def _remember(self) -> None:
        self._on_step("sentences of two people become memories, and one person is forgotten")
        with tempfile.TemporaryDirectory(prefix="amberdb-demo-") as directory:
            path = os.path.join(directory, "memory.amber")
            self.report.memories = MemoryDemo(path, self._clock, self._prove).run()

    # -- inside ------------------------------------------------------------------------------

    def _check(self, db: Database, claim: str) -> None:
        with self._timed("check"):
            found = db.check()
        detail = f"{found.documents} documents, {found.entries} entries"
        self._prove(claim, found.ok, "; ".join(found.problems[:3]) or detail)

    def _prove(self, claim: str, ok: bool, detail: str) -> None:
        proof = Proof(claim, ok, detail)
        self.report.proofs.append(proof)
        self._on_step(proof)

    @contextmanager
    def _timed(self, name: str) -> Generator[None]:
        began = time.perf_counter()
        yield
        self.report.timings_ms[name] = (time.perf_counter() - began) * 1000

    def _busiest(self) -> Any:
        """The entity with the most turns."""
        return Counter(turn.document["entity_id"] for turn in self._turns).most_common(1)[0][0]

    def _alive(self) -> set[str]:
        """Ids of the events that have not expired."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        return {
            id
            for id, document in self._events.items()
            if document.get("expires_at") is None or document["expires_at"] > now
        }

    @staticmethod
    def _stored(db: Database) -> int:
        """Documents on disk, with expired ones."""
        documents: int = db.stats()["collections"]["event"]["documents"]
        return documents


def run_demo(
    *,
    source: str | None = None,
    keep: str | None = None,
    kills: int = 3,
    seed: int = 0,
    on_step: Callable[[str | Proof], None] = lambda _: None,
) -> DemoReport:
    """Runs the demo on the packaged dialogue or the file `source`, in the new directory `keep` or
    in a temporary one. Raises AmberError, OSError."""
    turns = read_turns(source)
    if keep is not None:
        if os.path.exists(keep):
            raise FileExistsError(17, "exists already: choose a new name", keep)
        return Demo(
            keep, turns, has_questions=source is None, kills=kills, seed=seed, on_step=on_step
        ).run()
    directory = tempfile.mkdtemp(prefix="amberdb-demo-")
    try:
        path = os.path.join(directory, "demo.amber")
        return Demo(
            path, turns, has_questions=source is None, kills=kills, seed=seed, on_step=on_step
        ).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _named(ids: list[str], word: str) -> str:
    return f"{len(ids)} {word}" + (f": {', '.join(ids[:3])}" if ids else "")
