"""Values and ids of subclasses and of numpy are taken, or refused, by every door alike."""

import asyncio
import enum
import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from amberdb import (
    AmberError,
    Collection,
    Database,
    InvalidDocumentError,
    Ordered,
    QueryError,
    Text,
    Unique,
    Vector,
    aio,
)
from amberdb._jsonl.importer import Importer, ImportOptions
from amberdb._jsonl.reader import numbered_lines
from amberdb._jsonl.text import dumps
from support.databases import OpenDatabase


class Key(enum.StrEnum):
    A = "a"
    FIELD = "field"


class Mixed(str, enum.Enum):  # noqa: UP042
    """Unlike a StrEnum it prints as Mixed.A."""

    A = "a"
    FIELD = "field"


class Str(str):
    """Prints and compares as it likes."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"

    def __repr__(self) -> str:
        return "Str()"


class One(enum.IntEnum):
    ONE = 1


class Int(int):
    def __int__(self) -> int:
        return 99


class Float(float):
    pass


class Time(datetime):
    pass


class NotATime(datetime):
    """As pandas.NaT: an instance of datetime that has no time."""

    def utcoffset(self) -> timedelta | None:
        raise ValueError("NotATime does not support utcoffset")

    def astimezone(self, tz: Any = None) -> Any:
        raise ValueError("NotATime does not support astimezone")

    def __repr__(self) -> str:
        return "NaT"


AT = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS: dict[str, tuple[Any, Any]] = {
    "StrEnum": (Key.A, Key.FIELD),
    "str, Enum": (Mixed.A, Mixed.FIELD),
    "str": (Str("a"), Str("field")),
    "numpy": (np.str_("a"), np.str_("field")),
}
TAKEN: dict[str, tuple[Any, Any]] = {
    "StrEnum": (Key.A, "a"),
    "str, Enum": (Mixed.A, "a"),
    "str": (Str("a"), "a"),
    "numpy str": (np.str_("a"), "a"),
    "IntEnum": (One.ONE, 1),
    "int": (Int(1), 1),
    "numpy int": (np.int64(1), 1),
    "numpy uint": (np.uint64(2**63 - 1), 2**63 - 1),
    "float": (Float(1.5), 1.5),
    "numpy float": (np.float64(1.5), 1.5),
    "numpy float32": (np.float32(1.5), 1.5),
    "numpy bool": (np.bool_(True), True),
    "numpy bytes": (np.bytes_(b"x"), b"x"),
    "numpy without dimensions": (np.array(3), 3),
    "bytearray": (bytearray(b"x"), b"x"),
    "datetime": (Time(2026, 1, 1, tzinfo=UTC), AT),
}
REFUSED: dict[str, Any] = {
    "NaT": NotATime(2026, 1, 1),
    "NaT of numpy": np.datetime64("NaT", "us"),
    "datetime of numpy": np.datetime64("2026-01-01"),
    "duration of numpy": np.timedelta64(1, "s"),
    "complex": np.complex64(1),
    "long double": np.longdouble(1),
    "NaN of numpy": np.float32("nan"),
    "NaN": Float("nan"),
    "array": np.array([1, 2]),
    "beyond 64 bits": Int(2**63),
    "beyond 64 bits of numpy": np.uint64(2**63),
    "half an emoji": Str("\ud83d"),
    "half an emoji of numpy": np.str_("\ud83d"),
    "naive": Time(2026, 1, 1),
    "date": date(2026, 1, 1),
    "decimal": Decimal("1.5"),
    "uuid": UUID(int=1),
    "path": Path("x"),
    "object": object(),
}


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("n", indexes=[Ordered("v"), Unique("key", sparse=True), Text("text")])


# -- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("id", "field"), TEXTS.values(), ids=TEXTS.keys())
def test_an_id_of_a_subclass_is_its_text_for_every_door(
    db: Database, notes: Collection, id: Any, field: Any
) -> None:
    assert type(notes.put({"id": id, "v": 1, field: field})) is str
    assert id in notes
    documents: list[Any] = [notes.get(id), notes[id], notes.record(id).document, notes.get("a")]
    for stored in documents:
        assert stored == {"id": "a", "v": 1, "field": "field"}
        assert all(type(part) is str for part in (stored["id"], stored["field"], *stored))
    assert type(notes.record(id).id) is str
    notes.update(id, {field: {field: id}})
    assert notes["a"]["field"] == {"field": "a"}
    wheres: list[Any] = [
        {"id": id}, {"id": {"$in": [id]}}, {field: {"$eq": {field: id}}},
        {f"{'field'}.field": id}, {"field.field": {"$gte": id, "$lte": id}},
    ]  # fmt: skip
    for where in wheres:
        assert [document["id"] for document in notes.find(where)] == ["a"]
        assert notes.explain(where) == notes.explain(dict(where))
    with db.transaction() as tx, db.snapshot() as at:
        assert id in tx["n"]
        assert at["n"].get(id) == tx["n"].get(id)
        tx["n"].put_many([{"id": id, "v": id}])
        assert tx["n"].find({"v": id})[0]["id"] == "a"
    assert notes.delete(id)
    notes.insert({"id": id})
    del notes[id]
    assert "a" not in notes


@pytest.mark.parametrize(("id", "field"), TEXTS.values(), ids=TEXTS.keys())
def test_names_of_a_subclass_declare_and_order_alike(
    open_db: OpenDatabase, id: Any, field: Any
) -> None:
    def declared(db: Database) -> Collection:
        return db.collection(
            id,
            indexes=[Ordered(field), Unique(id, sparse=True), Text(field, name=id)],
            expires_at=field,
            required={id: str},
        )

    db = open_db()
    notes = declared(db)
    assert (notes.name, db.collections()) == ("a", ["a"])
    assert type(notes.name) is str
    notes.put_many({"id": str(n), "a": str(n), "field": 2e9 + n} for n in range(4))
    before = db.stats().last_lsn
    declared(db)
    assert db.stats().last_lsn == before, "nothing has changed"
    page = notes.find({field: {"$gt": 0}}, order_by=field, limit=2, fields=[field])
    assert list(map(type, page[0])) == [str]
    again = notes.find({"field": {"$gt": 0}}, order_by="field", limit=2, after=page.cursor)
    assert [document["id"] for document in again] == ["2", "3"]
    page = notes.find({"a": {"$ne": id}}, order_by=id, limit=2)
    assert len(notes.find({"a": {"$ne": "a"}}, order_by="a", limit=2, after=page.cursor)) == 2
    assert db[id].count() == db.definition(id).number * 4
    feed = db.subscriber(id)
    assert "a" in db.stats().subscribers
    feed.remove()
    assert db.erase(id, {id: "1"}, reason=field).reason == "field"
    db.close()
    db = open_db()
    before = db.stats().last_lsn
    assert declared(db).count() == 3
    assert db.stats().last_lsn == before
    db.rename_collection(id, field)
    assert db.collections() == ["field"]
    db.drop_collection(field)


@pytest.mark.parametrize("id", [5, One.ONE, np.int64(5), b"a", 1.5, True, ("a",), {"$ne": ""}])
def test_what_is_no_text_is_no_id_for_any_door(db: Database, notes: Collection, id: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: notes.put({"id": id}),
        lambda: notes.insert({"id": id}),
        lambda: notes.put_many([{"id": id}]),
        lambda: notes.get(id),
        lambda: notes[id],
        lambda: notes.record(id),
        lambda: notes.update(id, {"x": 1}),
        lambda: notes.delete(id),
        lambda: notes.__delitem__(id),
        lambda: db.snapshot().__enter__()["n"].get(id),
    ]
    for call in calls:
        with pytest.raises(InvalidDocumentError, match=r"an id is a str, .*: give text") as caught:
            call()
        assert caught.value.field == "id"
    assert id not in notes


# -- values ----------------------------------------------------------------------------------


def doors(notes: Collection, value: Any) -> dict[str, Callable[[], object]]:
    return {
        "put": lambda: notes.put({"id": "x", "v": value}),
        "insert": lambda: notes.insert({"v": value}),
        "put_many": lambda: notes.put_many([{"id": "y"}, {"v": value}]),
        "update": lambda: notes.update("old", {"v": value}),
        "in a list": lambda: notes.put({"v": [0, value]}),
        "in a map": lambda: notes.put({"v": {"w": value}}),
        "$eq": lambda: notes.find({"v": value}),
        "$ne": lambda: notes.find({"v": {"$ne": value}}),
        "$in": lambda: notes.find({"v": {"$in": [0, value]}}),
        "$gte": lambda: notes.count({"v": {"$gte": value}}),
        "$contains": lambda: notes.find({"v": {"$contains": value}}),
        "in a map of a filter": lambda: notes.find({"v": {"$eq": {"w": value}}}),
        "delete_many": lambda: notes.delete_many({"v": {"$eq": [value]}}),
    }


@pytest.mark.parametrize(("value", "plain"), TAKEN.values(), ids=TAKEN.keys())
def test_a_value_of_a_subclass_is_stored_and_found_as_the_plain_one(
    notes: Collection, value: Any, plain: Any
) -> None:
    notes.put({"id": "old"})
    for name, call in doors(notes, value).items():
        call()
        if name == "delete_many":
            break
    for id in ("x", "old"):
        stored = notes[id]["v"]
        assert stored == plain
        assert type(stored) is type(plain)
    notes.put({"id": "last", "v": plain})
    for given in (value, plain):
        for where in ({"v": given}, {"v": {"$in": [given]}}, {"v": {"$gte": given, "$lte": given}}):
            assert {"x", "old", "last"} <= {document["id"] for document in notes.find(where)}
    pages = [notes.find({"v": given}, order_by="-v", limit=1) for given in (value, plain)]
    assert pages[0].cursor == pages[1].cursor
    assert pages[0] == pages[1]


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_refused_by_every_door_with_its_field(
    notes: Collection, value: Any
) -> None:
    notes.put({"id": "old"})
    before = list(notes.documents())
    for name, call in doors(notes, value).items():
        with pytest.raises(AmberError, match=r"\bv\b.*: \w") as caught:
            call()
        wanted = QueryError if "$" in name or "filter" in name or "delete" in name else None
        assert type(caught.value) is (wanted or InvalidDocumentError), name
        if wanted is None:
            assert caught.value.field.startswith("v")
    assert list(notes.documents()) == before


@pytest.mark.parametrize("value", [*REFUSED.values()][:4], ids=[*REFUSED][:4])
def test_the_field_that_expires_and_a_unique_one_name_it_too(db: Database, value: Any) -> None:
    notes = db.collection("e", indexes=[Unique("u", sparse=True)], expires_at="until")
    for field in ("until", "u"):
        with pytest.raises(InvalidDocumentError, match=field) as caught:
            notes.put({field: value})
        assert caught.value.field == field
    if not isinstance(value, datetime):
        assert notes.get(notes.put({"until": np.int64(2**31)})) is not None


@pytest.mark.parametrize(
    "vector", [[One.ONE, 2], [np.float32(1), np.int64(2)], (Float(1), 2), np.array([1, 2])]
)
def test_numbers_of_subclasses_make_a_vector(db: Database, vector: Any) -> None:
    notes = db.collection("v", indexes=[Vector("e", dim=2)])
    id = notes.put({"e": vector})
    assert notes[id]["e"].tolist() == [1, 2]
    assert [hit.id for hit in notes.search(vector=vector)] == [id]


@pytest.mark.parametrize(
    "vector", [[True, False], ["1", "2"], [1, float("nan")], [1e999, 0], [10**400, 1], [None, 1],
               [NotATime(2026, 1, 1), 1], np.array([1j, 2])],
)  # fmt: skip
def test_what_is_no_vector_is_refused_by_both_doors(db: Database, vector: Any) -> None:
    notes = db.collection("v", indexes=[Vector("e", dim=2)])
    with pytest.raises(InvalidDocumentError, match=r"'e'.*: ") as caught:
        notes.put({"e": vector})
    assert caught.value.field == "e"
    with pytest.raises(QueryError, match=r"'e'.*: "):
        notes.search(vector=vector)


def test_from_an_event_loop_alike(tmp_path: Path) -> None:
    async def run() -> None:
        async with aio.open(tmp_path / "a.amber", background=False) as db:
            notes = await db.collection("n")
            await notes.put({"id": Key.A, "v": np.int64(1)})
            assert await notes.get(Mixed.A) == {"id": "a", "v": 1}
            assert await notes.contains(np.str_("a"))
            assert len(await notes.find({"v": One.ONE})) == 1
            with pytest.raises(InvalidDocumentError, match="'v'"):
                await notes.put({"v": NotATime(2026, 1, 1)})
            with pytest.raises(QueryError, match="NaT"):
                await notes.find({"v": NotATime(2026, 1, 1)})

    asyncio.run(run())


# -- imports ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e999", "1e999 is beyond the range of float: write it as text"),
        ("[1, -1E+400]", "beyond the range of float"),
        ("1" * 400 + ".5", "beyond the range of float"),
        ("123456789012345678901234567890", "'v' holds an int beyond 64 bits: "),
        ("1" * 5000, "a number has 5000 digits: write it as text"),
        ('"x \\ud83d"', "'v' holds a str with a lone surrogate .*: "),
        ('{"\\udfff": 1}', "'v' holds a str with a lone surrogate .*: "),
        ("NaN", "NaN is not JSON"),
    ],
)
@pytest.mark.parametrize("id_from", [(), ("id",), ("id", "v")])
def test_a_line_with_a_number_or_text_that_cannot_be_stored_is_bad_and_no_other(
    notes: Collection, text: str, reason: str, id_from: tuple[str, ...]
) -> None:
    lines = f'{{"id": "a", "v": 1}}\n{{"id": "b", "v": {text}}}\n{{"id": "c", "v": 1.5e308}}\n'
    importer = Importer(notes, "x.jsonl", ImportOptions(skip_bad=True, id_from=id_from))
    report = importer.run(numbered_lines(io.BytesIO(lines.encode())))
    assert (report.stored, report.bad, report.bad_lines[0].line) == (2, 1, 2)
    assert re.search(reason, report.bad_lines[0].reason)
    assert notes.count({"v": 1.5e308}) == 1


def test_infinities_that_were_stored_are_imported(notes: Collection) -> None:
    line = dumps({"id": "a", "v": float("inf"), "w": [float("-inf")]})
    Importer(notes, "x.jsonl", ImportOptions()).run(numbered_lines(io.BytesIO(line.encode())))
    assert notes["a"] == {"id": "a", "v": float("inf"), "w": [float("-inf")]}
