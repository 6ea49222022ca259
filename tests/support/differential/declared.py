"""The collections of a run, and the indexes that come and go.

    main      its indexes and its version change all the time
    notes     the same documents under declarations that stay
    accounts  their sum stays; one document per account
    counter   one document that only grows
    spares    collections that come and go; each phase begins without any

Invariants:
- Values of `serial` are never the same in two documents, so that its Unique index can always be
  built; `code` may be, and its Unique index stays.
"""

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from amberdb import Database, Ordered, Text, Unique, Vector
from amberdb.index.registry import IndexSpec
from support.differential.difference import UPGRADED
from support.model import ModelCollection
from support.reference import Doc

MAIN: Final = "main"
NOTES: Final = "notes"
ACCOUNTS: Final = "accounts"
COUNTER: Final = "counter"
DIM: Final = 4
ACCOUNT_COUNT: Final = 10
BALANCE: Final = 100
EXPIRES_AT: Final = "t"
SPARES: Final = ("spare0", "spare1", "spare2")
SPOILED: Final = "spoiled"

CODE: Final = Unique("code", sparse=True)
FIXED: Final[tuple[IndexSpec, ...]] = (Ordered("owner", "n"), CODE)
PASSING: Final[tuple[IndexSpec, ...]] = (
    Ordered("n"),
    Ordered("-n", "owner"),
    Ordered("tags"),
    Ordered("maybe", sparse=True),
    Unique("serial", sparse=True),
)
TEXTS: Final = (
    Text("text"),
    Text("text", "title", weights={"title": 2.0}),
    Text("title", "text", language=None),
)
NOTES_TEXT: Final = TEXTS[1]
VECTORS: Final = (
    Vector("v", dim=DIM, metric="l2", name="far"),
    Vector("v", dim=DIM, metric="cosine", name="close"),
)
_NOTES: Final[tuple[IndexSpec, ...]] = (*FIXED, Ordered("tags"), NOTES_TEXT, VECTORS[0])
SPECS: Final = {spec.name: spec for spec in (*TEXTS, *VECTORS)}


def drawn_indexes(rng: random.Random) -> list[IndexSpec]:
    """For `main`: what stays, and some of what comes and goes; at most one index for each kind of
    search, so that scores tell which one answered."""
    passing = rng.sample(PASSING, rng.randrange(len(PASSING) + 1))
    texts = rng.sample(TEXTS, rng.randrange(2))
    return [*FIXED, *passing, *texts, *rng.sample(VECTORS, rng.randrange(2))]


def model() -> ModelCollection:
    """Of one owner's documents, in `main` as in `notes`."""
    return ModelCollection(EXPIRES_AT, [CODE])


def create(db: Database) -> None:
    """Everything that a new database of a run has."""
    db.collection(MAIN, indexes=[*FIXED, TEXTS[0]], expires_at=EXPIRES_AT)
    db.collection(NOTES, indexes=_NOTES, expires_at=EXPIRES_AT)
    accounts = db.collection(ACCOUNTS)
    accounts.put_many({"id": str(n), "balance": BALANCE} for n in range(ACCOUNT_COUNT))
    db.collection(COUNTER).put({"id": "c", "n": 0})


def upgrades(version: int) -> dict[int, Callable[[Doc], Doc]]:
    """For `migrate=`: every step up to a version."""

    def step(to: int) -> Callable[[Doc], Doc]:
        return lambda document: {**document, UPGRADED: to}

    return {to: step(to) for to in range(2, version + 1)}


@contextmanager
def used_again(db: Database) -> Generator[Database]:
    """The database of an earlier phase: it has the functions of its migrations, and no spares.
    Whatever comes: it is closed in the end."""
    with db:
        for name in (*SPARES, SPOILED):
            if name in db.collections():
                db.drop_collection(name)
        give_upgrades(db)
        yield db


def give_upgrades(db: Database) -> None:
    """Functions are not stored: gives those of the stored version of `main` again."""
    version = db.definition(MAIN).version
    if version > 1:
        db.collection(MAIN, version=version, migrate=upgrades(version))


def total(source: Any) -> int:
    """The sum of all accounts in a database, a snapshot or a transaction."""
    return sum(account["balance"] for account in source[ACCOUNTS].documents())
