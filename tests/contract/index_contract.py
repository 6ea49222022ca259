"""What every index over fields keeps: it finds what a scan of all documents finds, always.

A kind of index inherits IndexContract, and gives the declaration and documents. The same steps
are then gone through with all of it in memory, all of it in LMDB, and half in each.
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

import pytest

from amberdb import Collection, Database, Document, Ordered, Unique
from support import slices
from support.databases import FakeClock, OpenDatabase, assert_sound

Where = dict[str, Any]
Order = str | list[str]


@dataclass(frozen=True, kw_only=True)
class Case:
    """An index, documents, and questions."""

    index: Ordered | Unique
    documents: list[Document]
    """The first ones that are stored; ids are given by place."""
    changes: list[Document] = field(default_factory=list[Document])
    """What they are overwritten with, by place; when none are given, by each other."""
    filters: list[Where]
    """What is asked, among them some that the index can answer."""
    orders: list[Order]
    serves: Where
    """A filter that the index must be chosen for."""

    def __post_init__(self) -> None:
        if not self.changes:
            at = len(self.documents) // 3
            object.__setattr__(self, "changes", self.documents[at:] + self.documents[:at])


class IndexContract:
    """The suite. `indexed` has the index under test; `bare` the same documents and no index."""

    case: ClassVar[Case]

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def db(self, open_db: OpenDatabase, clock: FakeClock) -> Database:
        return open_db(clock=clock)

    def declare(self, db: Database) -> tuple[Collection, Collection]:
        return (
            db.collection("indexed", indexes=[self.case.index], expires_at="until"),
            db.collection("bare", expires_at="until"),
        )

    def put(self, db: Database, documents: list[Document]) -> None:
        for name in ("indexed", "bare"):
            db.collection(name).put_many(self.named(documents))

    @staticmethod
    def named(documents: list[Document]) -> list[Document]:
        return [{"id": f"{at:03d}", **document} for at, document in enumerate(documents)]

    def assert_same(self, db: Database) -> None:
        """Every filter and every order has the answer of a full scan; check() finds nothing."""
        indexed, bare = db.collection("indexed"), db.collection("bare")
        for where in (*self.case.filters, {}):
            wanted = bare.find(where)
            found = sorted(indexed.find(where), key=lambda document: document["id"])
            assert found == wanted, where
            assert indexed.count(where) == len(wanted), where
        for order in self.case.orders:
            assert indexed.find(order_by=order) == bare.find(order_by=order), order
        assert_sound(db)

    def assert_all_same(self, db: Database) -> None:
        """assert_same, and every filter with every order, page by page: in a slice some of them."""
        self.assert_same(db)
        indexed, bare = db.collection("indexed"), db.collection("bare")
        pairs = product((*self.case.filters, {}), (None, *self.case.orders))
        for where, order in slices.every(7, pairs):
            wanted = bare.find(where, order_by=order) if order else indexed.find(where)
            self.assert_pages(indexed, where, order, wanted)

    @staticmethod
    def assert_pages(
        indexed: Collection, where: Where, order: Order | None, wanted: list[Document]
    ) -> None:
        found: list[Document] = []
        cursor = None
        while True:
            page = indexed.find(where, order_by=order, limit=3, after=cursor)
            found += page
            cursor = page.cursor
            if cursor is None:
                break
        assert found == wanted, (where, order)

    # -- the suite ---------------------------------------------------------------------------

    @pytest.mark.sliced
    def test_put(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        self.assert_all_same(db)

    def test_index_is_chosen(self, db: Database) -> None:
        indexed, _ = self.declare(db)
        self.put(db, self.case.documents)
        assert indexed.explain(self.case.serves)["index"] == self.case.index.name

    @pytest.mark.sliced
    def test_half_in_memory_and_half_in_the_store(self, db: Database) -> None:
        self.declare(db)
        self.put(db, self.case.documents[::2])
        db.checkpoint()
        self.put(db, self.case.changes)
        self.assert_all_same(db)

    def test_overwrite(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        self.put(db, self.case.changes)
        self.assert_same(db)
        settle(db)
        self.assert_same(db)

    def test_update_of_another_field(
        self, db: Database, settle: Callable[[Database], None]
    ) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        for name in ("indexed", "bare"):
            db.collection(name).update("001", {"other": 5})
        self.assert_same(db)

    def test_delete(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        for at in range(0, len(self.case.documents), 2):
            for name in ("indexed", "bare"):
                assert db.collection(name).delete(f"{at:03d}")
        self.assert_same(db)
        settle(db)
        self.assert_same(db)
        for name in ("indexed", "bare"):
            db.collection(name).delete_many({})
        self.assert_same(db)

    def test_rollback(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        tx = db.transaction()
        with contextlib.suppress(KeyboardInterrupt), tx:
            assert tx["indexed"].delete_many({})
            raise KeyboardInterrupt
        self.assert_same(db)

    def test_inside_a_transaction(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        with db.transaction() as tx:
            for name in ("indexed", "bare"):
                tx[name].put_many(self.named(self.case.changes))
                tx[name].delete("000")
            for where in self.case.filters:
                found = sorted(tx["indexed"].find(where), key=lambda document: document["id"])
                assert found == tx["bare"].find(where), where
        self.assert_same(db)

    def test_snapshot(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        with db.snapshot() as at:
            self.put(db, self.case.changes)
            settle(db)
            for where in self.case.filters:
                found = sorted(at["indexed"].find(where), key=lambda document: document["id"])
                assert found == at["bare"].find(where), where

    def test_expire(
        self, db: Database, clock: FakeClock, settle: Callable[[Database], None]
    ) -> None:
        self.declare(db)
        soon = clock.now + 10
        self.put(
            db, [{**d, "until": soon} if n % 2 else d for n, d in enumerate(self.case.documents)]
        )
        settle(db)
        clock.advance(20)
        self.assert_same(db)
        assert db.expire() == 2 * (len(self.case.documents) // 2)
        self.assert_same(db)
        settle(db)
        self.assert_same(db)

    def test_reopen(
        self, open_db: OpenDatabase, db: Database, settle: Callable[[Database], None]
    ) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        self.put(db, self.case.changes)
        db.close()
        self.assert_same(open_db())

    @pytest.mark.sliced
    def test_build_over_documents(self, db: Database, settle: Callable[[Database], None]) -> None:
        db.collection("indexed", expires_at="until")
        db.collection("bare", expires_at="until")
        self.put(db, self.case.documents)
        settle(db)
        self.declare(db)
        self.assert_same(db)
        self.put(db, self.case.changes)
        self.assert_same(db)
        db.build_indexes()
        assert db.stats()["collections"]["indexed"]["indexes"] == {self.case.index.name: "ready"}
        self.assert_all_same(db)
        settle(db)
        self.assert_same(db)

    def test_drop_and_declare_again(self, db: Database, settle: Callable[[Database], None]) -> None:
        self.declare(db)
        self.put(db, self.case.documents)
        settle(db)
        db.collection("indexed", indexes=[])
        self.put(db, self.case.changes)
        self.assert_same(db)
        self.declare(db)
        db.build_indexes()
        self.assert_same(db)

    @pytest.mark.parametrize("seed", slices.parameters(2, range(2)))
    def test_any_order_of_writes(
        self, open_db: OpenDatabase, db: Database, clock: FakeClock, seed: int
    ) -> None:
        choose = random.Random(seed)
        self.declare(db)
        pool = self.case.documents + self.case.changes
        for _ in range(60):
            action = choose.random()
            at = choose.randrange(len(self.case.documents))
            if action < 0.6:
                # One of the documents that belong to this place, so that unique ones stay so.
                document = {**pool[at + choose.choice([0, len(self.case.documents)])]}
                if choose.random() < 0.2:
                    document["until"] = clock.now + choose.randrange(1, 20)
                for name in ("indexed", "bare"):
                    db.collection(name).put({"id": f"{at:03d}", **document})
            elif action < 0.8:
                for name in ("indexed", "bare"):
                    db.collection(name).delete(f"{at:03d}")
            elif action < 0.9:
                db.checkpoint()
            elif action < 0.95:
                clock.advance(5)
            else:
                db.close()
                db = open_db(clock=clock)
        self.assert_same(db)
