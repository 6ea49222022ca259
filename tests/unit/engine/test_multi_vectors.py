"""Documents with several vectors as people use them: chunks of a text, and what is refused. That
searches are right in every mix of states is tests/contract/test_vector_contract.py's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amberdb
from amberdb import (
    Collection,
    Database,
    EmbeddingError,
    FormatError,
    Hits,
    InvalidDocumentError,
    Ordered,
    QueryError,
    Vector,
)
from amberdb.engine.schema.codec import decode, encode
from amberdb.index.vector.coercion import METRICS, Metric
from support.databases import OpenDatabase
from support.ranking import agree

DIM = 3

numbers = st.sampled_from([-2.0, -1.0, -0.25, 0.5, 1.0, 3.0])
lists = st.lists(st.lists(numbers, min_size=DIM, max_size=DIM), max_size=5)


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


@pytest.fixture
def pages(db: Database) -> Collection:
    return db.collection("page", indexes=[Ordered("n"), Vector("chunks", dim=DIM, multi=True)])


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_finds_what_numpy_finds(open_db: OpenDatabase, metric: Metric) -> None:
    db = open_db()

    @settings(max_examples=40)
    @given(st.lists(lists, max_size=6), st.lists(numbers, min_size=DIM, max_size=DIM))
    def find(drawn: list[list[list[float]]], query: list[float]) -> None:
        asked = np.array(query)
        for mean_of in (1, 2, 4):
            spec = Vector("chunks", dim=DIM, metric=metric, multi=True, mean_of=mean_of)
            pages = db.collection("page", indexes=[spec])
            pages.put_many({"id": f"{n}", "chunks": each} for n, each in enumerate(drawn))
            scores: dict[str, float] = {}
            for n, each in enumerate(drawn):
                if each:
                    vectors = np.array(each)
                    if metric == "l2":
                        of_each = -np.linalg.norm(vectors - asked, axis=1)
                    else:
                        of_each = vectors @ asked
                    if metric == "cosine":
                        of_each /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
                    scores[str(n)] = float(np.sort(of_each)[::-1][:mean_of].mean())
            for limit in (2, 100):
                agree(pages.search(vector=query, limit=limit), scores, limit)
            db.drop_collection("page")

    find()


def test_the_best_chunk_counts_or_the_mean_of_the_best(db: Database) -> None:
    documents = [
        {"id": "once", "v": [[1, 0, 0], [0, 1, 0], [0, 1, 0]]},
        {"id": "twice", "v": [[1, 0.5, 0], [1, 0.5, 0]]},
        {"id": "alone", "v": [[1, 0.75, 0]]},
    ]
    found: dict[int, list[str]] = {}
    for mean_of in (1, 2):
        spec = Vector("v", dim=DIM, multi=True, mean_of=mean_of)
        pages = db.collection("page", indexes=[spec])
        pages.put_many(documents)
        found[mean_of] = ids(pages.search(vector=[1, 0, 0]))
    assert found == {1: ["once", "twice", "alone"], 2: ["twice", "alone", "once"]}


def test_any_form_of_several_vectors_comes_back_as_one_array(pages: Collection) -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, DIM) + 1
    forms: dict[str, Any] = {
        "list": array.tolist(),
        "array": array,
        "arrays": list(array),
        "transposed": np.asfortranarray(array),
    }
    pages.put_many({"id": id, "chunks": value} for id, value in forms.items())
    array[:] = -1
    for id in forms:
        stored = pages[id]["chunks"]
        assert stored.dtype == np.float32
        assert stored.tolist() == [[1, 2, 3], [4, 5, 6]]
        with pytest.raises(ValueError, match="read-only"):
            stored[0, 0] = 9
    pages.put({**pages["list"], "id": "again"})
    assert amberdb.equal(pages["again"]["chunks"], forms["list"])
    pages.put({"id": "one", "chunks": [1, 2, 3]})
    assert pages["one"]["chunks"].shape == (1, DIM)


def test_no_vectors_are_stored_and_not_found(pages: Collection) -> None:
    given: dict[str, Any] = {"empty": [], "none": None, "array": np.empty((0, DIM))}
    pages.put_many({"id": id, "chunks": value} for id, value in given.items())
    pages.put({"id": "missing"})
    assert pages.search(vector=[1, 0, 0]) == []
    assert pages["empty"]["chunks"].shape == (0, DIM)
    assert amberdb.equal(pages["empty"], {"id": "empty", "chunks": []})
    assert not amberdb.equal(pages["empty"], {"id": "empty", "chunks": [[1, 2, 3]]})
    assert pages.count({"chunks": {"$exists": True}}) == len(given)
    pages.update("empty", {"chunks": [[1, 0, 0]]})
    assert ids(pages.search(vector=[1, 0, 0])) == ["empty"]
    pages.update("empty", {"chunks": []})
    assert pages.search(vector=[1, 0, 0]) == []


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([[1, 2, 3], [1, 2]], "chunks[1]"),
        ([[1, 2, 3], [0, 0, 0]], "chunks[1]"),
        ([[1, float("nan"), 3]], "chunks[0]"),
        ([[1, 2, 3], "text"], "chunks[1]"),
        ([1, 2], "chunks"),
        ("text", "chunks"),
    ],
)
def test_a_wrong_vector_is_named_and_nothing_is_stored(
    db: Database, pages: Collection, value: Any, field: str
) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        pages.put_many([{"id": "a", "chunks": [[1, 2, 3]]}, {"id": "b", "chunks": value}])
    assert caught.value.field == field
    assert repr(field) in str(caught.value)
    pages.put({"id": "a"})
    for call in (pages.update, db.collection("page").update):
        with pytest.raises(InvalidDocumentError):
            call("a", {"chunks": value})
    assert "chunks" not in pages["a"]


def test_several_vectors_need_the_declaration(db: Database) -> None:
    notes = db.collection("note", indexes=[Vector("v", dim=DIM)])
    with pytest.raises(InvalidDocumentError, match="multi=True"):
        notes.put({"v": [[1, 2, 3], [4, 5, 6]]})
    with pytest.raises(QueryError, match="2 dimensions"):
        notes.search(vector=[[1, 2, 3]])


def test_a_filter_compares_no_vectors(pages: Collection) -> None:
    with pytest.raises(QueryError, match="holds vectors"):
        pages.find({"chunks": [[1, 2, 3]]})
    with pytest.raises(QueryError, match="holds vectors"):
        pages.search(vector=[1, 2, 3], where={"chunks": [[1, 2, 3]]})


def test_what_is_searched_is_told(db: Database, pages: Collection) -> None:
    pages.put_many({"n": n % 2, "chunks": [[1, n, 0]] * 3} for n in range(10))
    how = pages.explain(vector=[1, 0, 0])["indexes"]["vector:chunks"]
    assert how == {"kind": "vector", "search": "exact", "vectors": 30}
    how = pages.explain({"n": 1}, vector=[1, 0, 0])["indexes"]["vector:chunks"]
    assert how["vectors"] == 15


def test_a_catalog_with_several_vectors_is_refused_by_what_does_not_know_them() -> None:
    stored = Vector("v", dim=2, multi=True).to_map()
    del stored["mean_of"]
    with pytest.raises(FormatError, match="newer version"):
        Vector.from_map(stored)


def test_arrays_as_they_are_stored() -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    again = decode(encode({"v": array, "none": array[:0], "one": array[0]}))
    assert again["v"].tolist() == array.tolist()
    assert not again["v"].flags.writeable
    assert again["none"].shape == (0, 3)
    assert again["one"].shape == (3,)
    whole = encode(array)
    assert whole[-28:] == (3).to_bytes(4, "little") + array.astype("<f4").tobytes()
    for data in (b"", b"\0\0", bytes(4), b"\3\0\0\0" + bytes(8), b"\2\0\0\0" + bytes(4)):
        with pytest.raises(amberdb.CorruptionError):
            decode(bytes([0xC7, len(data), 2]) + data)


# -- embedders -----------------------------------------------------------------------------------


def lengths(texts: list[str]) -> Sequence[Sequence[float]]:
    """A model of sorts: how long a text is, and how many e and words it has."""
    return [[float(len(t)), float(t.count("e")), float(t.count(" ") + 1)] for t in texts]


def embedded(db: Database, embed: Any, source: str = "texts", *, defer: bool = False) -> Collection:
    spec = Vector(
        "v", dim=DIM, metric="l2", multi=True, source=source, embed=embed, defer=defer
    )  # fmt: skip
    return db.collection("page", indexes=[spec])


def waiting(db: Database) -> int:
    count = db.stats()["collections"]["page"]["embedding"]["v"]["waiting"]
    assert isinstance(count, int)
    return count


def test_each_text_of_a_list_gets_a_vector(db: Database) -> None:
    batches: list[int] = []

    def embed(texts: list[str]) -> Any:
        batches.append(len(texts))
        return lengths(texts)

    pages = embedded(db, embed)
    pages.put_many({"id": f"p{n:02}", "texts": ["e" * n, "tea"] * 2} for n in range(1, 31))
    assert batches == [64, 56]
    assert pages["p07"]["v"].tolist() == lengths(["e" * 7, "tea"] * 2)
    assert pages.search(vector=[7, 7, 1], limit=1)[0].id == "p07"
    pages.put({"id": "text", "texts": "one text"})
    assert pages["text"]["v"].tolist() == lengths(["one text"])
    pages.put({"id": "tuple", "texts": ("a", "", 3, "be")})
    assert pages["tuple"]["v"].tolist() == lengths(["a", "be"])
    pages.put_many([{"id": "none", "texts": []}, {"id": "other", "texts": [1, None]}, {"id": "no"}])
    assert all("v" not in pages[id] for id in ("none", "other", "no"))
    assert waiting(db) == 0
    pages.update("text", {"texts": ["two", "texts"]})
    assert pages["text"]["v"].tolist() == lengths(["two", "texts"])


def test_the_texts_may_be_in_the_maps_of_a_list(db: Database) -> None:
    """What other stores write as chunks[*].text."""
    pages = embedded(db, lengths, "chunks.text")
    chunks = [{"text": "tea", "page": 1}, {"page": 2}, {"text": "cold coffee"}]
    pages.put({"id": "a", "chunks": chunks})
    assert pages["a"]["v"].tolist() == lengths(["tea", "cold coffee"])
    assert pages.search(vector=lengths(["cold coffee"])[0])[0].score == 0


@pytest.mark.parametrize("defer", [False, True])
def test_texts_wait_for_an_embedder_that_is_down(db: Database, defer: bool) -> None:
    def down(texts: list[str]) -> Any:
        raise ConnectionError("the model is not there")

    pages = embedded(db, down, defer=defer)
    with db.transaction() as tx:
        tx["page"].put_many({"id": f"{n}", "texts": ["tea", "e" * n]} for n in range(3))
    assert waiting(db) == 3
    with pytest.raises(EmbeddingError):
        pages.embed_missing()
    pages = embedded(db, lengths, defer=defer)
    assert pages.embed_missing() == 3
    assert waiting(db) == 0
    assert pages["2"]["v"].tolist() == lengths(["tea", "ee"])
    assert pages["0"]["v"].tolist() == lengths(["tea"])
    with db.transaction() as tx:
        tx["page"].update("2", {"$push": {"texts": "more"}})
    assert "v" not in pages["2"]
    assert pages.embed_missing() == 1
    assert len(pages["2"]["v"]) == 3


def test_texts_of_one_vector_that_turn_into_several(db: Database) -> None:
    one = Vector("v", dim=DIM, metric="l2", source="texts", embed=lengths)
    pages = db.collection("page", indexes=[one])
    pages.put_many([{"id": "list", "texts": ["tea", "cake"]}, {"id": "text", "texts": "tea"}])
    assert waiting(db) == 0
    pages = embedded(db, lengths)
    db.build_indexes()
    assert waiting(db) == 1
    assert pages.embed_missing() == 1
    assert [len(pages[id]["v"]) for id in ("list", "text")] == [2, DIM]
    assert set(ids(pages.search(vector=lengths(["tea"])[0]))) == {"list", "text"}
