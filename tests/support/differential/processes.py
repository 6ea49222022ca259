"""The other processes of a run: one that reads beside the writer, and writers that are killed.

Both are forked while the parent has no database open and no thread runs.

Invariants:
- A child ends with os._exit: nothing of the parent's runs in it. What it found is in a file.
"""

import os
import random
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from amberdb import CollectionVersionError, Database, MigrationError, SnapshotExpiredError
from support.differential.actor import Actor, Stage
from support.differential.caretaker import Caretaker, audit
from support.differential.declared import (
    COUNTER,
    MAIN,
    NOTES,
    NOTES_TEXT,
    give_upgrades,
    used_again,
)
from support.differential.declarer import Declarer
from support.differential.difference import Difference, plain
from support.differential.drawer import WORDS
from support.differential.reads import search_text, text_scores
from support.differential.shared import OWNERS
from support.differential.writer import Writer
from support.differential.writes import Models
from support.ranking import agree

FAILED: Final = 3
_JOIN_S: Final = 60.0


@final
class Child:
    """A forked process; `name` is for what it finds."""

    def __init__(self, stage: Stage, name: str, work: Callable[[], None]) -> None:
        self._stage = stage
        self._name = name
        self._report = stage.directory / f"{name}.txt"
        self._pid = os.fork()
        if self._pid == 0:
            self._run(work)

    def _run(self, work: Callable[[], None]) -> None:
        code = FAILED
        try:
            work()
            code = 0
        except BaseException:
            self._report.write_text(traceback.format_exc() + "\n".join(self._stage.findings))
        finally:
            os._exit(code)

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def kill(self) -> None:
        """At once, and waits for its end. Raises Difference when it had ended by itself."""
        os.kill(self._pid, signal.SIGKILL)
        self.wait(-signal.SIGKILL)

    def wait(self, wanted: int = 0) -> None:
        """Until it ends. Raises Difference with what it found."""
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != wanted:
            said = self._report.read_text() if self._report.exists() else ""
            raise Difference(f"{self._name} ended with {code}:\n{said}")


# -- the reader ----------------------------------------------------------------------------------


def read_beside(stage: Stage, seed: str) -> None:
    """Opens read-only, reads and closes until the end: each read has all that was acknowledged."""
    rng = random.Random(f"{seed}/reader")
    last = 0
    while not stage.shared.is_over:
        with stage.open(read_only=True) as db:
            for _ in range(rng.randrange(1, 30)):
                acknowledged = max(last, stage.shared.counter)
                last = db[COUNTER]["c"]["n"]
                if last < acknowledged:
                    raise Difference(f"the reader sees {last}, and {acknowledged} before")
                _read_snapshot(db, rng)
                if stage.shared.is_over:
                    break


def _read_snapshot(db: Database, rng: random.Random) -> None:
    try:
        give_upgrades(db)
        with db.snapshot() as at:
            audit(at)
            word = rng.choice(WORDS)
            documents = [plain(each) or {} for each in at[NOTES].documents()]
            hits = search_text(at[NOTES], word, {}, 1_000)
            agree(hits, text_scores(NOTES_TEXT, word, documents, documents), 1_000)
    except (SnapshotExpiredError, CollectionVersionError):
        pass  # or it was declared between the look at its version and the functions
    except MigrationError as error:  # declared since its functions were given
        if error.collection != MAIN:
            raise


# -- writers that die ----------------------------------------------------------------------------


def write_until_killed(stage: Stage, seed: str, models: dict[str, Models]) -> None:
    """All threads but the clock, until the signal comes. Raises when one of them fails."""
    with used_again(stage.open()) as db:
        actors: list[Actor] = [Writer(stage, seed, each, db, models[each]) for each in OWNERS]
        actors += [Declarer(stage, seed, db), Caretaker(stage, seed, db, turns=False)]
        for actor in actors:
            actor.start()
        stage.stop.wait()
        for actor in actors:
            actor.join(_JOIN_S)
    raise Difference("a thread of the child failed")


def leftovers(directory: Path) -> list[Path]:
    """Archives and restored databases that killed children have left."""
    return [*directory.glob("*.amberbak*"), *directory.glob("restored.amber*")]
