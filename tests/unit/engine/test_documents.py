"""Checks of documents: values that come back as they were, values that are refused, ids, sizes."""

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from amberdb import (
    REMOVE,
    Collection,
    Database,
    DocumentTooLargeError,
    InvalidDocumentError,
    Projection,
    ProjectionError,
    TransactionTooLargeError,
)
from amberdb.engine.schema.documents import DEPTH_MAX, ID_BYTES_MAX, IdMaker
from support.databases import OpenDatabase
from unit.engine.helpers import got

PARIS = timezone(timedelta(hours=1))
LIMA = timezone(timedelta(hours=-5))


class Kind(StrEnum):
    NOTE = "note"


class Level(IntEnum):
    HIGH = 3


class Weight(float): ...


class Moment(datetime): ...


class Nowhere(tzinfo):
    """A time zone without an offset: a datetime in it counts as naive."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    def tzname(self, dt: datetime | None) -> None:
        return None

    def dst(self, dt: datetime | None) -> None:
        return None


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("note")


def nested(levels: int, leaf: object) -> dict[str, Any]:
    document: dict[str, Any] = {"a": leaf}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


# -- what comes back -------------------------------------------------------------------------

SAME: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "largest": (1 << 63) - 1,
    "smallest": -(1 << 63),
    "float": 0.1,
    "negative zero": -0.0,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "smallest float": 5e-324,
    "empty str": "",
    "chinese": "下午的会议",
    "nul": "a\0b",
    "beyond the plane": "\U0001f600",
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "microseconds": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "first instant": datetime.min.replace(tzinfo=UTC),
    "last instant": datetime.max.replace(tzinfo=UTC),
    "empty list": [],
    "empty map": {},
    "mixed": [1, [2.5, {"a": [None, True]}], "x", b"y"],
    "map": {"a": {"b": {"": [{}]}}},
}


@pytest.mark.parametrize("value", SAME.values(), ids=SAME.keys())
def test_value_comes_back_as_it_was(notes: Collection, value: object) -> None:
    notes.put({"id": "a", "x": value})
    fresh = got(notes, "a")
    assert fresh == {"id": "a", "x": value}
    assert type(fresh["x"]) is type(value)
    assert repr(fresh["x"]) == repr(value)  # -0.0 is not 0.0, and True not 1


def test_every_value_survives_reopening(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("note").put({"id": "a", **SAME})
    db.close()
    assert open_db().collection("note").get("a") == {"id": "a", **SAME}


PLAIN: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2, "a")), [1, [2, "a"]]),
    "tuple in map": ({"a": (1,)}, {"a": [1]}),
    "str subclass": (Kind.NOTE, "note"),
    "int subclass": (Level.HIGH, 3),
    "float subclass": (Weight(2.5), 2.5),
    "datetime subclass": (Moment(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    "ordered map": (OrderedDict[str, Any](b=1, a=OrderedDict(c=2)), {"b": 1, "a": {"c": 2}}),
    "mapping": (MappingProxyType({"a": 1}), {"a": 1}),
    "bytearray": (bytearray(b"ab"), b"ab"),
    "memoryview": (memoryview(b"ab"), b"ab"),
    "other zone": (datetime(2026, 1, 1, 1, tzinfo=PARIS), datetime(2026, 1, 1, tzinfo=UTC)),
    "list subclass": (type("Row", (list,), {})([1]), [1]),
}


@pytest.mark.parametrize(("given", "stored"), PLAIN.values(), ids=PLAIN.keys())
def test_value_is_stored_in_plain_types(notes: Collection, given: object, stored: object) -> None:
    notes.put({"id": "a", "x": given})
    fresh = got(notes, "a")
    assert fresh["x"] == stored
    assert type(fresh["x"]) is type(stored)


def test_time_of_another_zone_comes_back_in_utc(notes: Collection) -> None:
    east = datetime(2026, 6, 1, 9, 30, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    notes.put({"id": "a", "at": east})
    at = got(notes, "a")["at"]
    assert at.tzinfo is UTC
    assert at.isoformat() == "2026-06-01T01:30:00.123456+00:00"


def test_a_mapping_that_is_no_dict_is_a_document(notes: Collection) -> None:
    assert notes.put(MappingProxyType({"id": "a", "x": 1})) == "a"
    assert notes.get("a") == {"id": "a", "x": 1}


def test_order_of_fields_is_kept(notes: Collection) -> None:
    notes.put({"z": 1, "id": "a", "b": 2})
    assert list(got(notes, "a")) == ["z", "id", "b"]


def test_the_dict_of_the_caller_is_never_changed(notes: Collection) -> None:
    document: dict[str, Any] = {"x": (1, 2), "m": {"t": (3,)}, "id": None}
    notes.put(document)
    assert document == {"x": (1, 2), "m": {"t": (3,)}, "id": None}
    without_id = {"x": 1}
    notes.put(without_id)
    assert without_id == {"x": 1}


def test_what_was_put_does_not_follow_the_dict_of_the_caller(notes: Collection) -> None:
    document: dict[str, Any] = {"id": "a", "l": [1]}
    notes.put(document)
    document["l"].append(2)
    document["x"] = 1
    assert notes.get("a") == {"id": "a", "l": [1]}


def test_a_returned_dict_is_the_callers_to_change(notes: Collection) -> None:
    notes.put({"id": "a", "l": [1]})
    for read in (got(notes, "a"), notes.find()[0], next(notes.documents())):
        read["l"].append(2)
        read["x"] = 1
    assert notes.get("a") == {"id": "a", "l": [1]}


# -- what is refused -------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": ({"x": math.nan}, "x"),
    "NaN in a list": ({"m": {"l": [0.0, math.nan]}}, "m.l[1]"),
    "naive datetime": ({"at": datetime(2026, 1, 1)}, "at"),
    "zone without offset": ({"at": datetime(2026, 1, 1, tzinfo=Nowhere())}, "at"),
    "after the last instant": ({"at": datetime.max.replace(tzinfo=LIMA)}, "at"),
    "before the first instant": ({"at": datetime.min.replace(tzinfo=PARIS)}, "at"),
    "too large": ({"x": 1 << 63}, "x"),
    "too small": ({"m": {"x": -(1 << 63) - 1}}, "m.x"),
    "set": ({"x": {1}}, "x"),
    "object": ({"l": [1, object()]}, "l[1]"),
    "complex": ({"x": 1j}, "x"),
    "key that is no str": ({"m": {1: 2}}, "m"),
    "key that is None": ({None: 2}, ""),
    "surrogate": ({"x": "\ud800"}, "x"),
    "surrogate in a list": ({"m": {"l": ["a", "\udfff"]}}, "m.l[1]"),
    "surrogate in a key": ({"m": {"\ud800": 1}}, "m"),
    "removed field": ({"x": REMOVE}, "x"),
    "too deep": (nested(DEPTH_MAX + 2, 1), ".".join(["a"] * (DEPTH_MAX + 1))),
}


@pytest.mark.parametrize(("document", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_refusal_names_the_field(notes: Collection, document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        notes.put({"id": "a", **document})
    assert caught.value.field == field
    assert notes.get("a") is None


@pytest.mark.parametrize("given", [None, 5, "text", [("id", "a")], {"id"}])
def test_a_document_is_a_map(notes: Collection, given: Any) -> None:
    with pytest.raises(InvalidDocumentError, match="a document is a map"):
        notes.put(given)


@pytest.mark.parametrize("extra", [(), "plain"], ids=["with a tuple", "plain"])
@pytest.mark.parametrize("leaf", [1, "a", [1], None], ids=repr)
def test_nesting_limit_is_the_same_whatever_else_is_there(
    notes: Collection, leaf: Any, extra: Any
) -> None:
    deepest = nested(DEPTH_MAX + 1, 1 if leaf == [1] else leaf)
    notes.put({"id": "a", "extra": extra, **deepest})
    assert got(notes, "a")["a"] == deepest["a"]
    with pytest.raises(InvalidDocumentError, match="nesting"):
        notes.put({"id": "b", "extra": extra, **nested(DEPTH_MAX + 2, leaf)})


@pytest.mark.parametrize("extra", [(), "plain"], ids=["with a tuple", "plain"])
def test_a_list_is_a_level_too(notes: Collection, extra: Any) -> None:
    notes.put({"id": "a", "extra": extra, **nested(DEPTH_MAX, [1, "a", None])})
    with pytest.raises(InvalidDocumentError, match="nesting"):
        notes.put({"id": "b", "extra": extra, **nested(DEPTH_MAX + 1, [1, "a", None])})


def test_a_map_that_holds_itself_is_refused(notes: Collection) -> None:
    loop: dict[str, Any] = {}
    loop["me"] = loop
    with pytest.raises(InvalidDocumentError, match="nesting"):
        notes.put(loop)
    notes.put({"id": "a"})
    with pytest.raises(InvalidDocumentError, match="nesting"):
        notes.update("a", loop)


def test_projection_is_refused_by_every_write(notes: Collection) -> None:
    notes.put({"id": "a", "x": 1, "y": 2})
    (projection,) = notes.find(fields=["id", "x"])
    assert type(projection) is Projection
    writes: list[Callable[[], object]] = [
        lambda: notes.put(projection),
        lambda: notes.insert(projection),
        lambda: notes.put_many([projection]),
    ]
    for write in writes:
        with pytest.raises(ProjectionError):
            write()
    assert notes.get("a") == {"id": "a", "x": 1, "y": 2}
    notes.put(dict(projection))  # as a plain dict it may be stored


# -- ids -------------------------------------------------------------------------------------


def test_made_ids_sort_in_the_order_they_were_made(notes: Collection) -> None:
    ids = [notes.put({"n": n}) for n in range(50)] + notes.put_many({"n": n} for n in range(50))
    assert ids == sorted(ids)
    assert len(set(ids)) == 100
    assert list(notes) == ids
    assert got(notes, ids[3])["id"] == ids[3]


def test_made_ids_are_unique_among_threads() -> None:
    make = IdMaker()
    found: list[list[str]] = []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        found.append([make() for _ in range(2000)])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id for ids in found for id in ids}) == 8000
    assert all(ids == sorted(ids) for ids in found)


@pytest.mark.parametrize("id", ["a", "下" * 160, "x" * ID_BYTES_MAX, " ", "a/b\0c"])
def test_id_is_any_short_text(notes: Collection, id: str) -> None:
    assert notes.put({"id": id}) == id
    assert id in notes
    assert list(notes) == [id]


BAD_IDS: list[Any] = ["", "x" * (ID_BYTES_MAX + 1), "下" * 161, "\ud800", 5, b"a", True, 1.5, ["a"]]


@pytest.mark.parametrize("id", BAD_IDS, ids=lambda id: repr(id)[:12])
def test_what_cannot_be_an_id_is_refused(notes: Collection, id: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: notes.put({"id": id}),
        lambda: notes.insert({"id": id}),
        lambda: notes.put_many([{"id": "fine"}, {"id": id}]),
        lambda: notes.get(id),
        lambda: notes.record(id),
        lambda: notes.update(id, {}),
        lambda: notes.delete(id),
        lambda: notes.__delitem__(id),
    ]
    for call in calls:
        with pytest.raises(InvalidDocumentError) as caught:
            call()
        assert caught.value.field == "id"
    assert notes.count() == 0


@pytest.mark.parametrize("id", BAD_IDS, ids=lambda id: repr(id)[:12])
def test_what_cannot_be_an_id_is_not_in_a_collection(notes: Collection, id: Any) -> None:
    assert id not in notes


# -- sizes -----------------------------------------------------------------------------------


def test_document_at_the_limit_is_stored_and_past_it_refused(open_db: OpenDatabase) -> None:
    notes = open_db(document_bytes_max=1000).collection("note")
    room = 1000 - 11  # map, "id", "a", "x", and the length of the bytes
    notes.put({"id": "a", "x": bytes(room)})
    with pytest.raises(DocumentTooLargeError) as caught:
        notes.put({"id": "a", "x": bytes(room + 1)})
    assert caught.value.size == 1001
    assert len(got(notes, "a")["x"]) == room


def test_transaction_over_its_limit_stores_nothing(open_db: OpenDatabase) -> None:
    notes = open_db(transaction_bytes_max=10_000).collection("note")
    with pytest.raises(TransactionTooLargeError):
        notes.put_many({"x": bytes(1000)} for _ in range(20))
    assert notes.count() == 0
    notes.put_many({"x": bytes(1000)} for _ in range(5))
    assert notes.count() == 5


@pytest.mark.parametrize("patch", [None, 5, "text", [1]], ids=repr)
def test_a_patch_is_a_map(notes: Collection, patch: Any) -> None:
    notes.put({"id": "a"})
    with pytest.raises(InvalidDocumentError, match="a map"):
        notes.update("a", patch)


MERGES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "new field": ({"x": 1}, {"y": 2}, {"x": 1, "y": 2}),
    "replaced": ({"x": 1}, {"x": [2]}, {"x": [2]}),
    "None is stored": ({"x": 1}, {"x": None}, {"x": None}),
    "removed": ({"x": 1, "y": 2}, {"x": REMOVE}, {"y": 2}),
    "removed where it is not": ({"x": 1}, {"y": REMOVE}, {"x": 1}),
    "maps are merged": (
        {"m": {"a": 1, "b": {"c": 2}}},
        {"m": {"b": {"d": 3}}},
        {"m": {"a": 1, "b": {"c": 2, "d": 3}}},
    ),
    "removed inside": ({"m": {"a": 1, "b": 2}}, {"m": {"a": REMOVE}}, {"m": {"b": 2}}),
    "map over a scalar": ({"m": 1}, {"m": {"a": 1, "b": REMOVE}}, {"m": {"a": 1}}),
    "map over nothing": ({}, {"m": {"a": {"b": REMOVE}}}, {"m": {"a": {}}}),
    "scalar over a map": ({"m": {"a": 1}}, {"m": 2}, {"m": 2}),
    "lists are replaced": ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
    "nothing": ({"x": 1}, {}, {"x": 1}),
    "the same id": ({"x": 1}, {"id": "a"}, {"x": 1}),
}


@pytest.mark.parametrize(("before", "patch", "after"), MERGES.values(), ids=MERGES.keys())
def test_update_merges(
    notes: Collection,
    before: Mapping[str, Any],
    patch: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    notes.put({"id": "a", **before})
    notes.update("a", patch)
    assert notes.get("a") == {"id": "a", **after}


@pytest.mark.parametrize("id", ["b", None, REMOVE, 5], ids=repr)
def test_update_cannot_change_the_id(notes: Collection, id: Any) -> None:
    notes.put({"id": "a", "x": 1})
    with pytest.raises(InvalidDocumentError) as caught:
        notes.update("a", {"id": id, "x": 2})
    assert caught.value.field == "id"
    assert notes.get("a") == {"id": "a", "x": 1}
    assert notes.count() == 1


def test_remove_says_what_it_is_and_is_there_once() -> None:
    assert repr(REMOVE) == "amberdb.REMOVE"
    assert copy.deepcopy(REMOVE) is REMOVE
