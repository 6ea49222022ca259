"""What a process sends arrives as it is: each call of a process that follows has the result, or the
error, of the same call where the database is open."""

import collections
import dataclasses
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, TypeAlias

import numpy as np
import pytest

import amberdb
from amberdb import (
    REMOVE,
    Database,
    Fusion,
    Lsn,
    Neighbors,
    Ordered,
    Recency,
    Record,
    Text,
    Vector,
)
from amberdb.engine.database.writable_collection import WritableCollection
from support.databases import SMALL, assert_sound
from support.sharing import child_leads

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux"),
]


Call: TypeAlias = Callable[[WritableCollection, Any], Any]


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


@dataclasses.dataclass
class Plain:
    x: int = 1


NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": -(1 << 63),
    "too large": 1 << 63,
    "float": -0.0,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "emoji": "\U0001f302",
    "NUL": "a\0b",
    "surrogate": "\ud83d",
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"ab"),
    "memoryview": memoryview(b"ab"),
    "datetime": NOW,
    "other zone": NOW.astimezone(timezone(timedelta(hours=8))),
    "without a zone": NOW.replace(tzinfo=None),
    "date": date(2026, 11, 30),
    "timedelta": timedelta(1),
    "Decimal": Decimal("1.5"),
    "UUID": uuid.UUID(int=1),
    "set": {1},
    "frozenset": frozenset({1}),
    "tuple": (1, "a"),
    "list": [1, [2, {"a": None}]],
    "deque": collections.deque([1]),
    "map": {"a": {"b": 1}},
    "OrderedDict": collections.OrderedDict(a=1),
    "key that is no str": {1: 2},
    "StrEnum": Colour.RED,
    "IntEnum": Size.LARGE,
    "numpy int": np.int64(3),
    "numpy float": np.float32(0.5),
    "numpy bool": np.bool_(True),
    "list of numpy floats": [np.float64(0.5), np.float64(1)],
    "array": np.array([1, 2], np.float64),
    "array of int": np.array([1, 2]),
    "object": object(),
    "dataclass": Plain(),
    "function": len,
    "REMOVE": REMOVE,
    "extension": __import__("msgspec").msgpack.Ext(5, b"x"),
}


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Database]]:
    """(one that follows another process, one of its own)."""
    path = tmp_path_factory.mktemp("sharing")
    with child_leads(path / "t.amber") as child:
        shared = amberdb.connect(path / "t.amber", **SMALL)
        own = amberdb.open(path / "own.amber", **SMALL)
        assert not shared.leads
        for db in (shared, own):
            db.collection(
                "note",
                indexes=[Ordered("g", "n"), Text("t"), Vector("v", dim=2)],
                expires_at="until",
            )
        yield shared, own
        for db in (shared, own):
            assert_sound(db)
            db.close()
        child.end()


@pytest.fixture
def pair(databases: tuple[Database, Database]) -> tuple[Database, Database]:
    """Both, with the same documents."""
    for db in databases:
        db.expire()
        db["note"].delete_many({})
        db["note"].put_many(
            {"id": f"d{n}", "n": n, "g": "x", "t": "tea" * (n + 1), "v": [n, 1]} for n in range(3)
        )
    return databases


TAKEN = {("find limit", "IntEnum"), ("find limit", "numpy int")}
"""Inside a transaction of a process that follows, as the int that it is."""
CALLS: dict[str, Call] = {
    "put": lambda notes, value: notes.put({"id": "new", "x": value}),
    "put deep": lambda notes, value: notes.put({"id": "new", "x": [{"y": value}]}),
    "put vector": lambda notes, value: notes.put({"id": "new", "v": value}),
    "put itself": lambda notes, value: notes.put(value),
    "insert": lambda notes, value: notes.insert({"id": "new", "x": value}),
    "put_many": lambda notes, value: notes.put_many([{"id": "new", "x": value}]),
    "put_records": lambda notes, value: notes.put_records(
        [Record("new", Lsn(1), NOW, NOW, {"id": "new", "x": value})]
    ),
    "put_records vector": lambda notes, value: notes.put_records(
        [Record("new", Lsn(1), NOW, NOW, {"id": "new", "v": value})]
    ),
    "update": lambda notes, value: bool(notes.update("d0", {"x": value})),
    "update deep": lambda notes, value: bool(notes.update("d0", {"x": {"y": value}})),
    "update vector": lambda notes, value: bool(notes.update("d0", {"v": value})),
    "update $set": lambda notes, value: bool(notes.update("d0", {"$set": {"x": value}})),
    "update $inc": lambda notes, value: bool(notes.update("d0", {"$inc": {"n": value}})),
    "update $push": lambda notes, value: bool(notes.update("d0", {"$push": {"l": value}})),
    "patch itself": lambda notes, value: bool(notes.update("d0", value)),
    "delete": lambda notes, value: notes.delete(value),
    "delete_many": lambda notes, value: notes.delete_many({"n": value}),
    "delete_many $in": lambda notes, value: notes.delete_many({"n": {"$in": [value, 1]}}),
    "delete_many ids": lambda notes, value: notes.delete_many(ids=value),
    "touch": lambda notes, value: (
        notes.put({"id": "d1", "n": 1}),
        notes.touch(["d1"], value),
    ),
    "get": lambda notes, value: notes.get(value),
    "get with a default": lambda notes, value: notes.get("nowhere", value) is value,
    "in": lambda notes, value: value in notes,
    "find": lambda notes, value: notes.find({"n": value}),
    "find $gte": lambda notes, value: notes.find({"n": {"$gte": value}}),
    "find limit": lambda notes, value: notes.find({}, limit=value),
    "find order": lambda notes, value: notes.find({}, order_by=value),
    "count": lambda notes, value: notes.count({"x": value}),
    "search": lambda notes, value: notes.search(value),
    "search vector": lambda notes, value: [hit.id for hit in notes.search(vector=value)],
    "search with options": lambda notes, value: [
        hit.id
        for hit in notes.search(
            "tea",
            vector=[1, 1],
            where={"n": {"$ne": value}},
            fusion=Fusion(method="reciprocal_rank", k=5),
            recency=Recency(field="at", half_life=timedelta(days=2)),
            neighbors=Neighbors(group=("g",), order="n", window=1),
        )
    ],
}


def outcome(call: Call, notes: WritableCollection, value: Any) -> Any:
    """The result, or the class of the error."""
    try:
        return call(notes, value)
    except (amberdb.AmberError, TypeError, ValueError, AttributeError) as error:
        return type(error)


def stored(db: Database) -> dict[str, Any]:
    """By id; ids that the database has made are not compared."""
    found: dict[str, Any] = {}
    for n, each in enumerate(db["note"].documents()):
        document = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in each.items()}
        id = document.pop("id")
        found[id if len(id) < 20 else f"made {n}"] = document
    return found


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_call_is_that_of_one_process(
    pair: tuple[Database, Database], name: str, inside: bool
) -> None:
    call = CALLS[name]
    differ: list[str] = []
    for what, value in VALUES.items():
        results: list[Any] = []
        for db in pair:
            with db.transaction() if inside else nullcontext(db) as source:
                results.append(outcome(call, source["note"], value))
        is_made = all(isinstance(each, str) and len(each) >= 20 for each in results)
        is_taken = inside and (name, what) in TAKEN
        if not is_made and not is_taken and repr(results[0]) != repr(results[1]):
            differ.append(f"{what}: {results[0]!r}, {results[1]!r}")
        left, right = map(stored, pair)
        if repr(left) != repr(right):
            differ.append(f"{what}: {left} is stored, {right}")
    assert not differ, "\n".join(differ)


ERASURES: dict[str, Callable[[Database, Any], Any]] = {
    "one filter": lambda db, value: db.erase("note", {"n": value}, reason="r").documents,
    "several filters": lambda db, value: (
        db.erase({"note": [{"n": value}, {"x": value}]}, reason="r").documents
    ),
    "filter itself": lambda db, value: db.erase("note", value, reason="r").documents,
}


@pytest.mark.parametrize("name", ERASURES)
def test_an_erasure_is_that_of_one_process(pair: tuple[Database, Database], name: str) -> None:
    differ: list[str] = []
    for what, value in VALUES.items():
        results: list[Any] = []
        for db in pair:
            try:
                results.append(ERASURES[name](db, value))
            except (amberdb.AmberError, TypeError, ValueError, AttributeError) as error:
                results.append(type(error))
        if results[0] != results[1]:
            differ.append(f"{what}: {results[0]!r}, {results[1]!r}")
    assert stored(pair[0]) == stored(pair[1])
    assert not differ, "\n".join(differ)
