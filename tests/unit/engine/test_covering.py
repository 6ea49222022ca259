"""An index that has all fields of a projection answers without the documents, and never otherwise
than they do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import Collection, Database, Ordered, Unique
from amberdb._types import Document
from amberdb.engine.query.covering import EXPIRED_MAX
from amberdb.engine.schema import catalog
from amberdb.engine.schema.keyspace import end_of, prefix_of
from support import drawn
from support.databases import SMALL, FakeClock, OpenDatabase, assert_sound
from support.decoded import note_decoded
from support.inside import engine_of
from support.reference import same

TIME = datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=UTC)
LONG = "long " * 200


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the documents that queries decode."""
    count = [0]

    def counting(_: Document) -> None:
        count[0] += 1

    note_decoded(monkeypatch, counting)
    return count


@pytest.fixture
def notes(db: Database) -> Collection:
    notes = db.collection("note", indexes=[Ordered("who", "-at", name="who_at"), Ordered("m.x")])
    notes.put_many(
        {"id": f"{n:03d}", "who": f"u{n % 3}", "at": n, "text": "t" * 100, "m": {"x": n / 8 + 0.01}}
        for n in range(90)
    )
    return notes


FIELDS = ["at", "id", "who"]


@pytest.mark.parametrize("is_settled", [True, False], ids=["LMDB", "memtable"])
def test_no_document_is_read(
    db: Database, notes: Collection, reads: list[int], is_settled: bool
) -> None:
    if is_settled:
        db.checkpoint()
    where = {"who": "u1", "at": {"$gte": 60}}
    assert notes.explain(where, order_by="at", fields=FIELDS)["covering"]
    page = notes.find(where, order_by="at", fields=FIELDS, limit=4)
    rest = notes.find(where, order_by="at", fields=FIELDS, after=page.cursor)
    assert [*page, *rest] == [{"at": n, "id": f"{n:03d}", "who": "u1"} for n in range(61, 90, 3)]
    assert type(page[0]) is amberdb.Projection
    assert [list(each) for each in page] == [FIELDS] * 4
    assert notes.find({"who": "u1"}, limit=1, fields=[]) == [{}]
    assert notes.find({"m.x": {"$lt": 0.1}}, fields=["m.x"]) == [{"m": {"x": 0.01}}]
    assert reads == [0]
    with db.transaction() as tx:
        tx.collection("note").put({"id": "new", "who": "u1", "at": 1.5})
        found = tx.collection("note").find({"who": "u1"}, order_by="at", fields=["at"], limit=2)
        assert found == [{"at": 1}, {"at": 1.5}]
    assert reads == [0]


@pytest.mark.parametrize(
    ("where", "order", "fields"),
    [
        ({"who": "u1"}, None, ["who", "text"]),
        ({"who": "u1"}, None, ["m"]),
        ({"who": "u1", "text": "t"}, None, ["who"]),
        ({"who": {"$gt": "u1"}}, "at", ["who"]),
        ({}, None, ["who"]),
        ({"m.x": {"$gt": 1}}, None, ["m"]),
    ],
)
def test_explain_says_when_documents_are_read(
    notes: Collection, where: Any, order: str | None, fields: list[str]
) -> None:
    assert not notes.explain(where, order_by=order, fields=fields)["covering"]
    assert not notes.explain(where, order_by=order)["covering"]
    found = notes.find(where, order_by=order, fields=fields)
    assert sorted(map(str, found)) == sorted(
        str({name: document[name] for name in fields})
        for document in notes.find(where, order_by=order)
    )


def test_an_invalid_field_is_refused_by_explain(notes: Collection) -> None:
    with pytest.raises(amberdb.QueryError, match="fields"):
        notes.explain({"who": "u1"}, fields=["a..b"])


VALUES: list[tuple[Any, bool]] = [
    ("text", True),
    ("", True),
    ("a\0", True),
    ("é\U0001f600", True),
    (b"\0\xff\0", True),
    (True, True),
    (0, True),
    (-3, True),
    (2**53, True),
    (2**63 - 1, True),
    (-(2**63), True),
    (0.5, True),
    (-1e-300, True),
    (float("inf"), True),
    (float("-inf"), True),
    (TIME, True),
    (LONG, True),
    (LONG + "2", True),
    (None, True),
    ({"x": 1}, True),
    (1.0, False),
    (-0.0, False),
    (2.0**53, False),
    (1e300, False),
    (["text"], False),
    ([], False),
    ([None], False),
    ([["text"]], False),
]
"""Values, and whether an index that has one still covers."""


@pytest.mark.parametrize("spec", [Ordered("x", "-a"), Ordered("-x"), Unique("x"), Ordered("m.x")])
@pytest.mark.parametrize("later", [False, True], ids=["written", "built"])
def test_a_value_comes_back_as_it_is(db: Database, spec: Ordered | Unique, later: bool) -> None:
    """A collection for each value, in an index that is written along, or built later."""
    for number, (value, covers) in enumerate(VALUES):
        others = [{"id": "2", "x": "other", "m": {"x": "other"}, "a": 1}, {"id": "3", "a": 1}]
        if isinstance(spec, Unique):
            if value in ({"x": 1}, [["text"]]):  # which it refuses
                continue
            others = others[: 1 if value in (None, [], [None]) else 2]
        name, order, path = f"note{number}", list(spec.fields), spec.paths[0]
        notes = db.collection(name, indexes=[] if later else [spec])
        notes.put_many([{"id": "1", "x": value, "m": {"x": value}, "a": 1}, *others])
        if later:
            db.collection(name, indexes=[spec])
            db.build_indexes()
        plan = notes.explain(order_by=order, fields=["id", path])
        assert plan["covering"] == covers, value
        found = [dict(each) for each in notes.find(order_by=order, fields=["id", path])]
        kept = {"id", path.split(".")[0]}
        wanted = [
            {name: value for name, value in each.items() if name in kept}
            for each in notes.find(order_by=order)
        ]
        assert same(found, wanted), value


def test_a_mark_stays_when_its_document_has_changed(db: Database) -> None:
    notes = db.collection("note", indexes=[Ordered("x")])
    notes.put({"id": "a", "x": 1})
    with db.snapshot() as snapshot:
        notes.put({"id": "a", "x": 1.0})
        of_then = snapshot.collection("note")
        assert of_then.explain(order_by="x", fields=["x"])["covering"]
        assert same(of_then.find(order_by="x", fields=["x"])[0]["x"], 1)
        assert same(notes.find(order_by="x", fields=["x"])[0]["x"], 1.0)
    notes.put({"id": "a", "x": 2})
    assert not notes.explain(order_by="x", fields=["x"])["covering"]


def test_an_index_of_an_earlier_version_covers_ids_alone(
    open_db: OpenDatabase, reads: list[int]
) -> None:
    db = open_db()
    with patch.object(catalog, "identity_of", return_value=""):
        notes = db.collection("note", indexes=[Ordered("x")])
    notes.put_many([{"id": "a", "x": ["y"]}, {"id": "b", "x": 1.0}])
    db.close()
    db = open_db()
    notes = db.collection("note", indexes=[Ordered("x")])
    assert [index.identity for index in db.definition("note").indexes] == [""]
    notes.put({"id": "c", "x": "z"})
    assert not notes.explain(order_by="x", fields=["x"])["covering"]
    assert same([each["x"] for each in notes.find(order_by="x", fields=["x"])], [1.0, ["y"], "z"])
    assert notes.explain(order_by="x", fields=["id"])["covering"]


def test_a_rebuild_promises_no_mark_that_was_not_kept(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    with patch.object(catalog, "identity_of", return_value=""):
        notes = db.collection("note", indexes=[Ordered("x")])
    notes.put_many([{"id": "a", "x": ["y"]}, {"id": "b", "x": "z"}])
    db.checkpoint()
    index = db.definition("note").indexes[0]
    prefix = prefix_of(index.keyspace)
    with engine_of(db).committer.store.write() as writer:
        writer.delete_range(prefix, end_of(prefix), 1)
    db.backup(tmp_path / "full")
    db.drop_collection("note")
    report = amberdb.restore(tmp_path / "full", tmp_path / "r.amber", **SMALL)
    assert report.rebuilt == ["note: ordered:x"]
    with amberdb.open(tmp_path / "r.amber", **SMALL) as copy:
        notes = copy["note"]
        assert not notes.explain(order_by="x", fields=["x"])["covering"]
        assert notes.find(order_by="x", fields=["x"]) == [{"x": ["y"]}, {"x": "z"}]
        assert_sound(copy)


@pytest.mark.parametrize("expired", [0, 1, EXPIRED_MAX, EXPIRED_MAX + 1])
def test_documents_that_have_expired_are_left_out(
    open_db: OpenDatabase, clock: FakeClock, reads: list[int], expired: int
) -> None:
    db = open_db(clock=clock)
    notes = db.collection("note", indexes=[Ordered("x")], expires_at="until")
    notes.put_many({"id": f"{n:03d}", "x": n, "until": clock.now + 60 + n // 50} for n in range(5))
    notes.put_many({"id": f"x{n:03d}", "x": n, "until": clock.now + 10} for n in range(expired))
    clock.advance(30)
    wanted = [{"x": n} for n in range(5)]
    assert notes.find(order_by="x", fields=["x"]) == wanted
    assert notes.find({"x": {"$lt": 3}}, fields=["id"]) == [{"id": f"{n:03d}"} for n in range(3)]
    assert notes.count({"x": {"$lt": 3}}) == 3
    covers = expired <= EXPIRED_MAX
    assert notes.explain(order_by="x", fields=["x"])["covering"] == covers
    assert (reads == [0]) == covers


_spec = st.sampled_from(
    [Ordered("a", "b"), Ordered("-s", "a"), Ordered("u", "-s"), Ordered("m.x", "u"), Ordered("b")]
)
_plain = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([2**53 + 1, 0.5, "a", "a\0", b"\xff", True, TIME, float("inf")]),
    drawn.texts,
)
_any = st.one_of(_plain, _plain, _plain, st.none(), drawn.scalars, st.just(["a"]), st.just({}))
_bodies = st.fixed_dictionaries(
    {"a": _plain, "u": st.integers(0, 3)},
    optional={"b": _any, "s": drawn.texts, "m": st.fixed_dictionaries({"x": _any}) | _any},
)
_fields = st.lists(st.sampled_from(["id", "a", "b", "s", "u", "m.x"]), max_size=3)


@settings(max_examples=60)
@given(
    bodies=st.lists(st.tuples(st.sampled_from("pqrst"), _bodies), max_size=8),
    specs=st.lists(_spec, min_size=1, max_size=3, unique_by=lambda spec: spec.name),
    fields=_fields,
    is_built=st.booleans(),
    limit=st.sampled_from([None, 2]),
)
def test_covered_or_not_the_projection_is_that_of_the_documents(
    bodies: list[tuple[str, Any]],
    specs: list[Ordered],
    fields: list[str],
    is_built: bool,
    limit: int | None,
) -> None:
    with amberdb.open(":memory:", **SMALL) as db:
        plain = db.collection("plain")
        notes = db.collection("note", indexes=[] if is_built else specs)
        for at, (id, body) in enumerate(bodies):
            for each in (plain, notes):
                each.put({"id": id, **body})
            if at == 3:
                db.checkpoint()
        if is_built:
            db.collection("note", indexes=specs)
            db.build_indexes()
        for spec in specs:
            order = [*spec.fields]
            wanted = _pages(plain, order, fields, limit)
            assert same(_pages(notes, order, fields, limit), wanted)
        assert_sound(db)


def _pages(
    collection: Collection, order: list[str], fields: list[str], limit: int | None
) -> list[Any]:
    found: list[Any] = []
    after: str | None = None
    while True:
        page = collection.find(order_by=order, fields=fields, limit=limit, after=after)
        found += page
        after = page.cursor
        if after is None:
            return found
