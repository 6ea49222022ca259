"""A thread that writes and reads the documents of one owner, and knows what each answer has to be.

Invariants:
- After each action that has returned it acknowledges its number; actions of a seed and their
  effect on the models are the same in every process (models_after).
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import amberdb
from amberdb import Database, SnapshotExpiredError
from support.differential.actor import Actor, Stage
from support.differential.declared import ACCOUNT_COUNT, ACCOUNTS, COUNTER, MAIN
from support.differential.drawer import drawer
from support.differential.held import Held
from support.differential.reads import Known, Read
from support.differential.writes import Models, Transaction, Write

_HELD_MAX: Final = 2
_KINDS: Final = {
    "write": 30,
    "read": 12,
    "transfer": 4,
    "count up": 3,
    "hold": 1.5,
    "look": 6,
    "let go": 1,
    "another handle": 0.7,
}


@final
@dataclass(frozen=True)
class Transfer:
    """From one account to another."""

    giver: str
    taker: str
    amount: int


Action: TypeAlias = tuple[str, Write | Transaction | Read | Transfer | None]
"""What kind of action, and what is to be done."""


def drawn_actions(seed: str, owner: str, now: Callable[[], float]) -> Iterator[Action]:
    """The endless actions of an owner; the same for each seed as long as time stands still."""
    rng = random.Random(f"{seed}/{owner}")
    of = drawer(rng, owner, now)
    kinds, weights = list(_KINDS), list(_KINDS.values())
    while True:
        (kind,) = rng.choices(kinds, weights)
        if kind == "write":
            yield kind, of.write()
        elif kind in ("read", "look"):
            yield kind, of.read()
        elif kind == "transfer":
            a, b = rng.sample(range(ACCOUNT_COUNT), 2)
            yield kind, Transfer(str(a), str(b), rng.randrange(5))
        else:
            yield kind, None


def models_after(models: Models, action: Action, now_us: int) -> Models:
    """What an action leaves, without a database."""
    _, what = action
    return what.attempt(models, now_us)[1] if isinstance(what, Write | Transaction) else models


@final
class Writer(Actor):
    """Of one owner."""

    def __init__(self, stage: Stage, seed: str, owner: str, db: Database, models: Models) -> None:
        super().__init__(stage, random.Random(f"{seed}/{owner}/here"), owner)
        self.models = models
        self._actions = drawn_actions(seed, owner, stage.shared.clock)
        self._done = 0
        self._db = db
        self._own_handle: Database | None = None
        self._held: list[Held] = []

    def step(self) -> None:
        with self.stage.shared.still() as now_us:
            kind, what = action = next(self._actions)
            name = type(what).__name__ if isinstance(what, Write | Transaction | Read) else kind
            self.note(f"{kind} {name}" if kind == "look" else name, action)
            self._act(kind, what, now_us)
            self._done += 1
            self.stage.shared.acknowledge(self.name, self._done)

    def _act(self, kind: str, what: object, now_us: int) -> None:
        if isinstance(what, Write | Transaction):
            self.models = what.compare(self._db, self.models, now_us)
        elif isinstance(what, Read) and kind == "read":
            model, may_refuse = self.models[what.collection], what.collection == MAIN
            live = Known(model, now_us, is_fixed=False, may_refuse=may_refuse)
            self.count["refused"] += not what.compare(self._db[what.collection], live)
        elif isinstance(what, Read):
            self._look(what)
        elif isinstance(what, Transfer):
            self._transfer(what)
        elif kind == "count up":
            self._count_up()
        elif kind == "hold" and len(self._held) < _HELD_MAX:
            known = {
                name: Known(model, now_us, is_fixed=True, may_refuse=name == MAIN)
                for name, model in self.models.items()
            }
            self._held.append(Held(self._db, known))
        elif kind == "let go" and self._held:
            self._held.pop(0).close()
        elif kind == "another handle":
            self._change_handle()

    def _look(self, read: Read) -> None:
        for held in list(self._held):
            try:
                held.look(read)
            except SnapshotExpiredError:
                if "snapshot_max_age_ms" not in self.stage.options:
                    raise
                self._held.remove(held)
                held.close()

    def _transfer(self, what: Transfer) -> None:
        with self._db.transaction() as tx:
            accounts = tx[ACCOUNTS]
            for id, change in ((what.giver, -what.amount), (what.taker, what.amount)):
                accounts.put({"id": id, "balance": accounts[id]["balance"] + change})

    def _count_up(self) -> None:
        with self._db.transaction(sync="always") as tx:
            n = tx[COUNTER]["c"]["n"] + 1
            tx[COUNTER].put({"id": "c", "n": n})
        self.stage.shared.count_up(n)

    def _change_handle(self) -> None:
        """Goes on with another handle of its own, opened before the one it had is closed."""
        for held in self._held:
            held.close()
        self._held.clear()
        before, self._own_handle = self._own_handle, amberdb.open(self.stage.path)
        self._db = self._own_handle
        if before is not None:
            before.close()

    def close(self) -> None:
        for held in self._held:
            held.close()
        if self._own_handle is not None:
            self._own_handle.close()
