"""Collections with an owner: nobody else changes what a system declared, and no system changes what
the program declared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    CollectionError,
    Database,
    IndexSpec,
    Ordered,
    Text,
    TransactionError,
    Unique,
    Vector,
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with amberdb.open(tmp_path / "db") as db:
        yield db
        db.check()


def test_a_system_changes_no_collection_of_the_program(db: Database) -> None:
    orders = db.collection("event", indexes=[Unique("key")])
    orders.put({"id": "a", "key": 1})
    with pytest.raises(CollectionError, match=r"made by the program.*name="):
        db.collection("event", owner="memory", indexes=[Ordered("created_at")])
    assert db.definition("event").specs == [Unique("key")]
    with pytest.raises(amberdb.DuplicateKeyError):
        orders.put({"id": "b", "key": 1})


def test_the_program_changes_no_collection_of_a_system(db: Database) -> None:
    db.collection("event", owner="memory", indexes=[Ordered("created_at")], required=["content"])
    changes: list[dict[str, Any]] = [
        {"indexes": []}, {"required": ["x"]}, {"expires_at": "end"}, {"version": 2}
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(CollectionError, match=r"of the system 'memory'.*name="):
            db.collection("event", **change)
    # A declaration that changes nothing is free to all.
    db.collection("event").put({"content": "x"})
    db.collection("event", indexes=[Ordered("created_at")])
    assert db.definition("event").owner == "memory"


def test_two_systems_do_not_share_a_collection(db: Database) -> None:
    db.collection("event", owner="memory")
    with pytest.raises(CollectionError, match="the system 'memory'"):
        db.collection("event", owner="events")


def test_the_mark_is_in_the_catalog(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "db") as db:
        db.collection("event", owner="memory", indexes=[Text("content")])
        db.rename_collection("event", "shop_event")
        db.checkpoint()
    with amberdb.open(tmp_path / "db") as db:
        assert db.definition("shop_event").owner == "memory"
        db.collection("shop_event", owner="memory", indexes=[Text("content"), Ordered("a")])
        assert len(db.definition("shop_event").specs) == 2
        db.collection("event", indexes=[Unique("key")])  # the name is free again
        db.check()


def test_a_system_takes_over_what_an_earlier_version_made(db: Database) -> None:
    """Databases from before there were marks: the indexes are those of the system."""
    older: list[IndexSpec] = [Ordered("a"), Ordered("old"), Vector("v", dim=2)]
    db.collection("event", indexes=older, required={"a": int})
    db["event"].put({"a": 1, "v": [0.0, 1.0]})
    indexes = [Ordered("a"), Ordered("b")]
    db.collection("event", owner="memory", indexes=indexes, required={"a": int})
    assert db.definition("event").owner == "memory"
    db.collection("config").put({"name": "x"})
    db.collection("config", owner="memory")
    three = Ordered("a", "b", "-c")
    db.collection("archive", indexes=[three])
    db.collection("archive", owner="chat", indexes=[three, Ordered("a")])
    assert db.definition("archive").owner == "chat"


def test_what_differs_from_the_system_is_of_the_program(db: Database) -> None:
    db.collection("event", indexes=[Ordered("a")])
    db.collection("users")
    db["users"].put({"name": "Lin"})
    for name in ("event", "users"):
        with pytest.raises(CollectionError, match="made by the program"):
            db.collection(name, owner="x", indexes=[Ordered("a")], required={"a": int})
    db.collection("empty")
    db.collection("empty", owner="x", indexes=[Ordered("a")])


@pytest.mark.parametrize("owner", ["", 1, "x" * 101])
def test_a_name_of_an_owner(db: Database, owner: object) -> None:
    with pytest.raises(CollectionError, match="owner="):
        db.collection("event", owner=owner)  # type: ignore[arg-type]


def test_a_transaction_of_the_caller(db: Database, tmp_path: Path) -> None:
    with (
        amberdb.open(tmp_path / "other") as other,
        other.transaction() as theirs,
        pytest.raises(TransactionError, match="not one of"),
    ):
        db.check_transaction(theirs)
    with db.transaction() as tx:
        db.check_transaction(tx)
        with amberdb.open(tmp_path / "db") as same:
            same.check_transaction(tx)
    with pytest.raises(amberdb.ClosedError):
        db.check_transaction(tx)
    with pytest.raises(TransactionError, match="give what"):
        db.check_transaction(db.transaction)  # type: ignore[arg-type]
