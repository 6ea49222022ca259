"""Snapshots on a server beside declarations: one that has read a collection is waited for, and none
gives an answer of another state."""

from collections.abc import Callable
from typing import Any

import pytest

from amberdb import BusyError, Database, OpenOptions, Ordered, SnapshotExpiredError
from unit.engine.test_snapshot import DECLARATIONS, SEARCHED, searches


@pytest.fixture
def extensions() -> tuple[str, ...]:
    return ("vector",)


@pytest.fixture
def options() -> OpenOptions:
    return {"background": False, "busy_timeout_ms": 100}


def ordered_anew(db: Database) -> None:
    db.collection("s", indexes=[*SEARCHED, Ordered("n")])
    db.collection("s", indexes=SEARCHED)
    db.collection("s", indexes=[*SEARCHED, Ordered("n")])


def filled(db: Database) -> Any:
    notes = db.collection("s", indexes=[*SEARCHED, Ordered("n")])
    notes.put_many({"id": f"{n}", "n": n, "text": "amber owl", "v": [n, 0]} for n in range(4))
    return notes


DECLARED: dict[str, Callable[[Database], object]] = {
    "another index": lambda db: db.collection("s", indexes=[*SEARCHED, Ordered("id")]),
    "one index less": lambda db: db.collection("s", indexes=SEARCHED),
    "dropped": lambda db: db.drop_collection("s"),
}


@pytest.mark.parametrize("change", DECLARED.values(), ids=DECLARED.keys())
def test_declaration_waits_for_a_snapshot_that_has_read_the_collection(
    db: Database, change: Callable[[Database], object]
) -> None:
    wanted = searches(filled(db))
    with db.snapshot() as at:
        assert searches(at["s"]) == wanted
        with pytest.raises(BusyError):
            change(db)
        assert searches(at["s"]) == wanted
    change(db)


@pytest.mark.parametrize("change", [*DECLARATIONS, ordered_anew])
def test_snapshot_from_before_a_declaration_gives_its_own_answers_or_none(
    db: Database, change: Callable[[Database], None]
) -> None:
    wanted = {**searches(filled(db)), "ordered": db["s"].find(order_by="-n")}
    db.collection("beside").put({"id": "a"})
    asked: dict[str, Callable[[Any], dict[str, object]]] = {
        "searches": searches,
        "ordered": lambda notes: {"ordered": notes.find(order_by="-n")},
        "where": lambda notes: {"ordered": notes.find({"n": {"$gte": 0}}, order_by="-n")},
    }
    for ask in asked.values():
        with db.snapshot() as at:
            change(db)
            try:
                answer = ask(at["s"])
            except SnapshotExpiredError:
                with pytest.raises(SnapshotExpiredError, match="take a new one"):
                    at["beside"].get("a")
            else:
                assert answer == {name: wanted[name] for name in answer}
                assert at["beside"].get("a") == {"id": "a"}
        for name in db.collections():
            if name != "beside":
                db.drop_collection(name)
        filled(db)
