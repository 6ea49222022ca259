"""The campaign of a killed server: SIGKILL for PostgreSQL under load, again and again.

    PYTHONPATH=tests python tests/crash/server_kills.py [--kills N] [--seed X] [--json PATH]

Threads of one Database put, update and delete documents of their own, alone, many at once, and
with a counter that they share, in transactions over two collections. After each kill every document
is compared with what the calls have said, and the same Database goes on.

Invariants:
- A call that returned is stored, and one that raised CommitUnknownError is stored whole or not at
  all. One that raised anything else has stored nothing.
- A thread whose call failed does not go on before all is compared, so it has one call at most of
  which the outcome is unknown.
- A counter is the number of its entries, and no two acknowledged transactions got one number.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Final, TypeAlias

import amberdb
from amberdb import (
    BusyError,
    CommitUnknownError,
    Database,
    Document,
    Ordered,
    ServerUnreachableError,
    Text,
    Unique,
    Vector,
)
from support.servers import postgres

_WRITERS: Final = 6
_COUNTERS: Final = 3
_OWN: Final = 40
"""Documents of one writer, that are written again and again."""
_MANY: Final = 20
_CALLS_MAX: Final = 400
"""Acknowledged between two kills."""
_DIM: Final = 4
_WAIT_S: Final = 60.0
Stored: TypeAlias = dict[tuple[str, str], Document | None]
"""Documents by collection and id; None: there is none."""


class Pace:
    """Lets writers stop together, and counts what is acknowledged."""

    def __init__(self) -> None:
        self.calls = 0
        self._changed = Condition()
        self._stops = True
        self._stopped = 0
        self._round = 0
        self.is_over = False

    def go_on(self, *, is_over: bool = False) -> None:
        """Begins the next round, or ends the last one."""
        with self._changed:
            self._round += 1
            self._stops, self._stopped, self.is_over = False, 0, is_over
            self._changed.notify_all()

    def stop(self) -> None:
        """Returns when no writer is in a call."""
        with self._changed:
            self._stops = True
            assert self._changed.wait_for(lambda: self._stopped == _WRITERS, _WAIT_S)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until it is true of what was acknowledged."""
        with self._changed:
            assert self._changed.wait_for(condition, _WAIT_S)

    def acknowledged(self) -> None:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()

    def rest(self, *, has_failed: bool) -> bool:
        """Stops here if writers are to stop, or if this one's call has failed; whether to go on."""
        with self._changed:
            if has_failed or self._stops:
                now = self._round
                self._stopped += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.is_over or self._round != now)
            return not self.is_over


class Writer:
    """A thread that writes, and keeps what its calls have said."""

    def __init__(self, db: Database, side: int, pace: Pace, rng: random.Random) -> None:
        self.sure: Stored = {}
        """What is stored of its documents."""
        self.unknown: Stored | None = None
        """What the call has written whose answer was lost."""
        self.failure: BaseException | None = None
        self.last_at = 0.0
        """When its last call was acknowledged."""
        self.errors: Counter[str] = Counter()
        self._db, self._side, self._pace, self._rng = db, side, pace, rng
        self._kinds = (
            *(self._put, self._update, self._delete, self._put_many),
            *(self._count, self._count),
        )
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        has_failed = False
        while self._pace.rest(has_failed=has_failed):
            writes: Stored = {}
            try:
                self._rng.choice(self._kinds)(writes)
            except CommitUnknownError:
                self.unknown, has_failed = writes, True
                self.errors["CommitUnknownError"] += 1
            except (ServerUnreachableError, BusyError) as error:
                has_failed = True
                self.errors[type(error).__name__] += 1
            except BaseException as error:
                self.failure, has_failed = error, True
            else:
                has_failed = False
                self.sure |= writes
                self.last_at = time.monotonic()
                self._pace.acknowledged()

    def _note(self) -> Document:
        n = self._rng.randrange(1 << 30)
        return {"id": f"{self._side}-{self._rng.randrange(_OWN)}", "n": n, "text": "x" * 200}

    # Each is one call, and fills `writes` with what it is to store.

    def _put(self, writes: Stored) -> None:
        note = self._note()
        writes["note", note["id"]] = note
        self._db["note"].put(note)

    def _update(self, writes: Stored) -> None:
        note = self._note()
        writes["note", note["id"]] = note
        if self.sure.get(("note", note["id"])) is None:
            self._db["note"].insert(note)
        else:
            self._db["note"].update(note["id"], {"n": note["n"]})

    def _delete(self, writes: Stored) -> None:
        id = self._note()["id"]
        writes["note", id] = None
        self._db["note"].delete(id)

    def _put_many(self, writes: Stored) -> None:
        notes = {note["id"]: note for note in (self._note() for _ in range(_MANY))}
        writes.update({("note", id): note for id, note in notes.items()})
        self._db["note"].put_many(notes.values())

    def _count(self, writes: Stored) -> None:
        """A counter and the entry of its new number, in one commit."""
        name = f"c{self._rng.randrange(_COUNTERS)}"
        with self._db.transaction() as tx:
            n = tx["counter"][name]["n"] + 1
            tx["counter"].put({"id": name, "n": n})
            id = f"{name}-{n}"
            entry = {
                "id": id,
                "counter": name,
                "number": f"{name} {n}",
                "text": f"word {self._side}",
                "v": [float(n), *[1.0] * (_DIM - 1)],
            }
            tx["entry"].put(entry)
            writes["entry", id] = entry


class Campaign:
    """One server, its clients, and what came of them."""

    def __init__(self, db: Database, rng: random.Random) -> None:
        self.total: Counter[str] = Counter()
        self.back_s_max = 0.0
        """From when they go on after a kill until every thread had a call acknowledged."""
        self._db, self._rng = db, rng
        db.collection("note", indexes=[Ordered("n")])
        db.collection("entry", indexes=[Unique("number"), Text("text"), Vector("v", dim=_DIM)])
        counters = db.collection("counter")
        counters.put_many({"id": f"c{n}", "n": 0} for n in range(_COUNTERS))
        self._pace = Pace()
        self._writers = [
            Writer(db, side, self._pace, random.Random(rng.random())) for side in range(_WRITERS)
        ]

    def run(self, kills: int, kill: Callable[[], None], restart: Callable[[], None]) -> None:
        """Kills the server so often; fails with what is not as the calls have said."""
        for writer in self._writers:
            writer.thread.start()
        try:
            for number in range(1, kills + 1):
                self._pace.go_on()
                self._load()
                kill()
                self.total["kills"] += 1
                restart()
                self._pace.stop()
                self._compare()
                self._go_on_after()
                if number % 10 == 0:
                    print(f"{number} kills, {self._pace.calls} acknowledged", flush=True)
        finally:
            self._pace.go_on(is_over=True)
            for writer in self._writers:
                writer.thread.join(_WAIT_S)
        self._compare()
        self.total["acknowledged"] = self._pace.calls
        for writer in self._writers:
            self.total.update(writer.errors)

    def _load(self) -> None:
        """Waits for some calls, and for a moment of the next ones."""
        wanted = self._pace.calls + self._rng.randrange(1, _CALLS_MAX)
        self._wait_for(lambda: self._pace.calls >= wanted)
        Event().wait(self._rng.random() * 0.005)

    def _go_on_after(self) -> None:
        """Every thread writes again, with the connections that the kill has left it."""
        began = time.monotonic()
        self._pace.go_on()
        self._wait_for(lambda: all(each.last_at > began for each in self._writers))
        self.back_s_max = max(self.back_s_max, time.monotonic() - began)
        self._pace.stop()
        self._compare()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        self._pace.wait_for(
            lambda: condition() or any(each.failure is not None for each in self._writers)
        )
        self._raise_failures()

    def _raise_failures(self) -> None:
        for writer in self._writers:
            if writer.failure is not None:
                raise writer.failure

    def _compare(self) -> None:
        self._raise_failures()
        with self._db.snapshot() as at:
            stored: Stored = {
                (name, document["id"]): document
                for name in ("note", "entry")
                for document in at[name].find(limit=None)
            }
            counters = {each["id"]: each["n"] for each in at["counter"].find()}
        for writer in self._writers:
            self._compare_writer(writer, stored)
        assert not stored, f"nobody has written {list(stored)[:5]}"
        numbers = Counter(
            document["counter"]
            for writer in self._writers
            for (name, _), document in writer.sure.items()
            if name == "entry" and document is not None
        )
        assert counters == {name: numbers[name] for name in counters}, (counters, numbers)
        self.total["comparisons"] += 1

    def _compare_writer(self, writer: Writer, stored: Stored) -> None:
        """Takes a writer's documents out of `stored`, when they are as it was told."""
        unknown, writer.unknown = writer.unknown, None
        if unknown is not None and all(
            _plain(stored.get(key)) == it for key, it in unknown.items()
        ):
            writer.sure |= unknown
            self.total["unknown_that_were_stored"] += 1
        for key, document in writer.sure.items():
            found = _plain(stored.pop(key, None))
            assert found == document, f"{key} is {found}, and was to be {document}"
            self.total["documents_compared"] += 1


def _plain(document: Document | None) -> Document | None:
    """With lists in place of arrays."""
    if document is None or "v" not in document:
        return document
    return {**document, "v": [float(each) for each in document["v"]]}


def campaign(kills: int, seed: int, *, fsync: bool = True) -> dict[str, Any]:
    """The figures of all kills. Fails with what was lost, or stored unasked."""
    began = time.monotonic()
    with postgres(18, fsync=fsync) as server:
        url = server.url("postgresql", server.new_database("vector"))
        with amberdb.connect(f"{url}?connections={_WRITERS}") as db:
            one = Campaign(db, random.Random(seed))
            one.run(kills, server.kill, server.restart)
            report = db.check()
            assert report.ok, report
    return {
        "seed": seed,
        **one.total,
        "lost": 0,
        "seconds_until_all_write_again_max": round(one.back_s_max, 3),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    result = campaign(given.kills, given.seed)
    print(json.dumps(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
