"""A thread that declares: indexes and versions of `main`, and collections of its own that are
created, renamed, dropped and declared anew while snapshots of before are held.

Invariants:
- Nobody else writes into the spare collections: what they hold, and what a snapshot of them
  finds, is known exactly.
"""

import random
from dataclasses import dataclass, field
from typing import Final, final

from amberdb import Database, SnapshotExpiredError, Text, Vector
from amberdb.index.registry import IndexSpec
from support.differential.actor import Actor, Stage
from support.differential.declared import (
    CODE,
    DIM,
    EXPIRES_AT,
    FIXED,
    MAIN,
    PASSING,
    SPARES,
    drawn_indexes,
    model,
    upgrades,
)
from support.differential.drawer import Drawer
from support.differential.held import Held
from support.differential.reads import Known, Read, SearchText, SearchVector
from support.model import ModelCollection

OWNER: Final = "spare"
_HELD_MAX: Final = 3
_TEXTS: Final = (Text("text"), Text("text", language=None), Text("title", "text"))
_VECTORS: Final = (Vector("v", dim=DIM, metric="l2"), Vector("v", dim=DIM, metric="cosine"))
_KINDS: Final = {
    "indexes": 4,
    "migrate": 1,
    "create": 3,
    "declare": 4,
    "fill": 8,
    "rename": 2,
    "drop": 2,
    "hold": 4,
    "look": 14,
    "let go": 1,
    "checkpoint": 2,
}


@dataclass
class Spare:
    """A collection that comes and goes; it has at most one index for each kind of search."""

    indexes: list[IndexSpec]
    model: ModelCollection = field(default_factory=model)

    def can(self, read: Read) -> bool:
        """Whether its declaration answers this kind."""
        if isinstance(read, SearchText):
            return any(isinstance(index, Text) for index in self.indexes)
        if isinstance(read, SearchVector):
            return any(isinstance(index, Vector) for index in self.indexes)
        return True

    def known(self, now_us: int, *, may_refuse: bool = False) -> Known:
        """Nobody else writes here, and time stands still: all reads see one state."""
        specs = {index.name: index for index in self.indexes}
        return Known(self.model, now_us, True, may_refuse, specs)


@final
class Declarer(Actor):
    """Of the catalog."""

    def __init__(self, stage: Stage, seed: str, db: Database) -> None:
        super().__init__(stage, random.Random(f"{seed}/declarer"), "declarer")
        self._db = db
        self._spares: dict[str, Spare] = {}
        self._held: list[tuple[Held, dict[str, Spare]]] = []

    def step(self) -> None:
        (kind,) = self.rng.choices(list(_KINDS), list(_KINDS.values()))
        if kind in ("indexes", "migrate"):
            self.pause(0.1)
            getattr(self, f"_{kind}")()
        elif kind == "checkpoint":
            self._checkpoint()
        else:
            with self.stage.shared.still() as now_us:
                getattr(self, f"_{kind.replace(' ', '_')}")(now_us)

    # -- main ------------------------------------------------------------------------------------

    def _indexes(self) -> None:
        indexes = drawn_indexes(self.rng)
        self.note("declare main", ("main", indexes))
        self._db.collection(MAIN, indexes=indexes)
        if self.rng.random() < 0.3:
            self.note("build indexes")
            self._db.build_indexes()

    def _migrate(self) -> None:
        version = self._db.definition(MAIN).version + 1
        self.note("migrate", ("migrate", version))
        self._db.collection(MAIN, version=version, migrate=upgrades(version))
        if self.rng.random() < 0.5:
            self._db.migrate()

    # -- spares ----------------------------------------------------------------------------------

    def _create(self, now_us: int) -> None:
        free = [name for name in SPARES if name not in self._spares]
        if free:
            name, indexes = self.rng.choice(free), self._drawn()
            self.note("create", ("create", name, indexes))
            self._db.collection(name, indexes=indexes, expires_at=EXPIRES_AT)
            self._spares[name] = Spare(indexes)
            self._fill(now_us)

    def _declare(self, now_us: int) -> None:
        if name := self._any():
            indexes, spare = self._drawn(), self._spares[name]
            self.note("declare", ("declare", name, indexes))
            self._db.collection(name, indexes=indexes)
            self._spares[name] = Spare(indexes, spare.model)
            if self.rng.random() < 0.3:
                self._db.build_indexes()

    def _fill(self, now_us: int) -> None:
        if name := self._any():
            spare, draw = self._spares[name], self._drawer(name)
            for _ in range(self.rng.randrange(1, 9)):
                write = draw.single()
                self.note("fill", write)
                models = write.compare(self._db, {name: spare.model}, now_us)
                spare.model = models[name]

    def _rename(self, now_us: int) -> None:
        free = [name for name in SPARES if name not in self._spares]
        if free and (name := self._any()):
            new = self.rng.choice(free)
            self.note("rename", ("rename", name, new))
            self._db.rename_collection(name, new)
            self._spares[new] = self._spares.pop(name)

    def _drop(self, now_us: int) -> None:
        if name := self._any():
            self.note("drop", ("drop", name))
            self._db.drop_collection(name)
            del self._spares[name]

    # -- snapshots -------------------------------------------------------------------------------

    def _hold(self, now_us: int) -> None:
        if len(self._held) >= _HELD_MAX:
            self._let_go(now_us)
        is_complete = self.rng.random() < 0.7
        self.note("hold", ("hold", is_complete, sorted(self._spares)))
        if is_complete:
            self._db.build_indexes()
        known = {
            name: spare.known(now_us, may_refuse=not is_complete)
            for name, spare in self._spares.items()
        }
        spares = {name: Spare(spare.indexes) for name, spare in self._spares.items()}
        self._held.append((Held(self._db, known), spares))

    def _let_go(self, now_us: int) -> None:
        if self._held:
            self.note("let go")
            self._held.pop(self.rng.randrange(len(self._held)))[0].close()

    def _look(self, now_us: int) -> None:
        """At everything, as it is and as it was."""
        for name, spare in self._spares.items():
            read = self._drawer(name).read()
            if spare.can(read):
                self.note(f"spare {type(read).__name__}", read)
                read.compare(self._db[name], spare.known(now_us))
        for held, spares in list(self._held):
            for name, spare in spares.items():
                read = self._drawer(name).read()
                if spare.can(read):
                    self.note(f"look {type(read).__name__}", read)
                    self._look_at(held, read)

    def _look_at(self, held: Held, read: Read) -> None:
        try:
            held.look(read)
        except SnapshotExpiredError:
            if "snapshot_max_age_ms" not in self.stage.options:
                raise
            self._held = [each for each in self._held if each[0] is not held]
            held.close()

    def _checkpoint(self) -> None:
        self.note("checkpoint")
        self._db.checkpoint()

    # -- inside ----------------------------------------------------------------------------------

    def _any(self) -> str | None:
        return self.rng.choice(sorted(self._spares)) if self._spares else None

    def _drawer(self, name: str) -> Drawer:
        return Drawer(self.rng, OWNER, self.stage.shared.clock, (name,))

    def _drawn(self) -> list[IndexSpec]:
        rng = self.rng
        texts, vectors = (
            rng.sample(_TEXTS, rng.randrange(2)),
            rng.sample(_VECTORS, rng.randrange(2)),
        )
        passing = rng.sample(PASSING, rng.randrange(3))
        return [*FIXED[:1], CODE, *passing, *texts, *vectors]

    def close(self) -> None:
        for held, _ in self._held:
            held.close()
