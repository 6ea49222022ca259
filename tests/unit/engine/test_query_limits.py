"""The limits of a query: each is named in the error or in `hits.how`, and can be set at open."""

# What `how` holds has no static type.
# pyright: reportUnknownVariableType=false

from typing import Any

import numpy as np
import pytest

from amberdb import Collection, Fusion, Ordered, QueryError, Text, Vector
from amberdb.index.registry import IndexSpec
from support.databases import OpenDatabase

INDEXES: list[IndexSpec] = [Ordered("n"), Text("content"), Vector("embedding", dim=2)]


@pytest.fixture
def notes(open_db: OpenDatabase) -> Collection:
    return open_db().collection("note", indexes=INDEXES)


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"n": 1}
    for _ in range(levels):
        where = {"$not": where}
    return where


TOO_LARGE: list[tuple[str, dict[str, Any]]] = [
    ("query_depth_max", nested(40)),
    ("query_depth_max", {"n": {"$eq": nested(40)}}),
    ("query_operators_max", {"$and": [{"n": 1}] * 1_000}),
    ("query_operators_max", {"$or": [{"n": {"$gt": 1, "$lt": 2}}] * 500}),
    ("query_operators_max", {"$or": [{"$not": {"$not": {"n": 1}}}] * 400}),
    ("query_operators_max", {f"n{number}": 1 for number in range(1_001)}),
    ("query_bytes_max", {"content": "x" * 65_536}),
    ("query_bytes_max", {"content": {"$contains": "x" * 65_536}}),
    ("query_bytes_max", {"content": {"$gt": "x" * 65_536}}),
    ("query_bytes_max", {"content": {"$not": {"$eq": "会" * 22_000}}}),
    ("query_bytes_max", {"n": list(range(10_000))}),
    ("query_bytes_max", {"n": {"$in": [list(range(10_000))]}}),
    ("query_bytes_max", {"n": {"$in": [{"x" * 65_536: 1}]}}),
    ("query_bytes_max", {".".join("a" * 40_000): 1}),
    ("query_bytes_max", {"x" * 40_000: 1, "y" * 40_000: 1}),
]


@pytest.mark.parametrize(("limit", "where"), TOO_LARGE)
def test_a_filter_past_a_limit_is_refused_by_its_name(
    notes: Collection, limit: str, where: dict[str, Any]
) -> None:
    for ask in (notes.find, notes.count, notes.explain, notes.delete_many):
        with pytest.raises(QueryError, match=limit) as caught:
            ask(where)
        assert len(str(caught.value)) < 300
    with pytest.raises(QueryError, match=limit):
        notes.search("tea", where=where)


def test_a_filter_within_the_limits_is_answered(notes: Collection) -> None:
    notes.put_many({"id": f"{n}", "n": n} for n in range(3))
    assert notes.count({"$or": [{"n": n} for n in range(998)]}) == 3
    assert notes.count({"content": {"$ne": "x" * 65_000}}) == 3
    assert notes.count({"n": {"$in": list(range(1, 10_001))}}) == 2
    names = [f"{n:030}" for n in range(9_997)]
    assert notes.count({"id": {"$in": ["0", "1", "2", *names]}}) == 3
    assert notes.count({"id": {"$nin": names}}) == 3


def test_the_limits_of_filters_are_options(open_db: OpenDatabase) -> None:
    db = open_db(query_depth_max=2, query_operators_max=3, query_bytes_max=40)
    notes = db.collection("note", indexes=INDEXES)
    notes.put({"n": 1})
    assert notes.count(nested(2)) == 1
    for limit, where in (
        ("query_depth_max", nested(3)),
        ("query_operators_max", {"a": 1, "b": 1, "c": 1, "d": 1}),
        ("query_bytes_max", {"n": "x" * 40}),
    ):
        with pytest.raises(QueryError, match=limit):
            notes.find(where)
    db.close()
    with pytest.raises(ValueError, match="query_depth_max"):
        open_db(query_depth_max=101)
    assert open_db(query_operators_max=5_000)["note"].count({"$and": [{"n": 1}] * 3_000}) == 1


@pytest.mark.parametrize("indexed", [True, False])
def test_an_and_counts_as_an_operator_and_a_level(open_db: OpenDatabase, indexed: bool) -> None:
    db = open_db(query_operators_max=4, query_depth_max=2)
    notes = db.collection("n", indexes=[Ordered("a", "b")] if indexed else [])
    notes.put({"id": "x", "a": 1, "b": 2})
    for _ in range(2):
        assert len(notes.find({"$and": [{"a": 1}, {"b": 2}]})) == 1
        assert len(notes.find({"$and": [{"$and": [{"a": 1}]}]})) == 1
        assert len(notes.find({"$and": [{"$not": {"a": 2}}]})) == 1
        for where in ({"c": 1, "d": 1}, {"$not": {"a": 2}}):
            with pytest.raises(QueryError, match="query_operators_max"):
                notes.find({"$and": [{"a": 1}, {"b": 2, **where}]})
        with pytest.raises(QueryError, match="query_depth_max"):
            notes.find({"$and": [{"$and": [{"$and": [{}]}]}]})
        with pytest.raises(QueryError, match="query_depth_max"):
            notes.find({"a": 1, "$and": [{"$not": {"$not": {}}}]})


def test_a_long_text_is_cut_and_how_says_so(notes: Collection) -> None:
    notes.put({"id": "a", "content": "tea"})
    hits = notes.search("tea", fields=[])
    assert hits.how["cut"] == {}
    hits = notes.search("tea " + "x" * 70_000)
    assert [hit.id for hit in hits] == ["a"]
    assert hits.how["cut"] == {"query_bytes_max": {"used": 3, "of": 70_004}}
    hits = notes.search("tea " + " ".join(f"w{n}" for n in range(5_000)))
    assert [hit.id for hit in hits] == ["a"]
    assert hits.how["cut"] == {"query_terms_max": {"used": 1_000, "of": 5_001}}
    assert notes.search("+tea " * 5_000, fields=[]) == notes.search("tea", fields=[])
    for limit, text in (
        ("query_bytes_max", "+tea " + "x" * 70_000),
        ("query_terms_max", "+tea " + " ".join(f"w{n}" for n in range(5_000))),
        ("query_operators_max", " ".join(f"w{n}*" for n in range(1_001))),
    ):
        with pytest.raises(QueryError, match=limit) as caught:
            notes.search(query=text)
        assert len(str(caught.value)) < 300


def test_errors_do_not_repeat_a_long_text(notes: Collection) -> None:
    for text in ("+ " * 20_000, '"' + "x " * 20_000, "-x " * 900, '""' * 20_000):
        with pytest.raises(QueryError) as caught:
            notes.search(query=text)
        assert len(str(caught.value)) < 300


def test_diversity_chooses_among_the_best_rows(open_db: OpenDatabase) -> None:
    db = open_db(diversity_rows_max=4)
    notes = db.collection("note", indexes=INDEXES)
    angles = [0.0, 0.001, 0.002, 0.9, 1.0, 1.1]
    for n, angle in enumerate(angles):
        notes.put({"id": f"{n}", "embedding": [np.cos(angle), np.sin(angle)]})
    few = notes.search(vector=[1.0, 0.0], diversity=0.9, limit=4, fusion=Fusion(depth=4))
    assert [hit.id for hit in few][:2] == ["0", "3"]
    assert few.how["cut"] == {}
    hits = notes.search(vector=[1.0, 0.0], diversity=0.9, limit=6)
    assert [hit.id for hit in hits] == [*(hit.id for hit in few), "4", "5"]
    assert hits.how["cut"] == {"diversity_rows_max": {"used": 4, "of": 6}}


def test_snippets_read_a_bounded_part_of_the_documents(open_db: OpenDatabase) -> None:
    db = open_db(snippet_characters_max=2_000)
    notes = db.collection("note", indexes=INDEXES)
    notes.put_many({"id": f"{n}", "content": "x " * 2_000 * n + "tea"} for n in range(2))
    found = notes.search("tea", snippets=True)
    hits = {hit.id: hit for hit in found}
    assert hits["0"].snippet == "**tea**"
    snippet = hits["1"].snippet
    assert snippet is not None
    assert snippet.startswith("x x")
    assert "tea" not in snippet
    assert found.how["cut"] == {"snippet_characters_max": {"used": 1, "of": 2}}
    assert notes.search("tea").how["cut"] == {}


def test_diversity_of_no_hits_is_no_hits(notes: Collection) -> None:
    assert notes.search("absent", diversity=0.5) == []
    notes.put({"content": "tea", "embedding": [1.0, 0.0]})
    assert notes.search("absent", diversity=0.5) == []
    assert notes.search("tea", diversity=0.5, limit=0) == []
