"""Vector indexes on PostgreSQL: the answers of a directory, what is stored, and what is refused."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import amberdb
from amberdb import (
    Collection,
    Database,
    Fusion,
    InvalidDocumentError,
    NotSupportedHereError,
    Ordered,
    ServerAccessError,
    Text,
    Vector,
)
from support.databases import SMALL, FakeClock
from support.reference import same
from support.servers import PgBouncer, PostgreSQL

Array = NDArray[np.float32]
WORDS = ["tea", "umbrella", "garden", "river", "lamp"]


@pytest.fixture
def extensions() -> tuple[str, ...]:
    return ("vector",)


@pytest.fixture
def database(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture
def both(url: str, clock: FakeClock) -> Iterator[tuple[Database, Database]]:
    """A database in a directory, and one on a server."""
    with (
        amberdb.open(":memory:", **SMALL, clock=clock) as directory,
        amberdb.connect(url, clock=clock) as server,
    ):
        yield directory, server


def same_hits(both: tuple[Database, Database], name: str, **question: Any) -> None:
    """A search finds the same in both, page by page, and its scores and documents are the same."""
    here, there = [_hits(each[name], **question) for each in both]
    assert same(here, there), (here, there)


def same_documents(both: tuple[Database, Database], name: str) -> None:
    """The documents are the same, with the types of their values."""
    here, there = [list(each[name].find(order_by="id")) for each in both]
    assert same(here, there), (here, there)


def _hits(notes: Collection, *, pages: int = 100, **question: Any) -> list[Any]:
    found, after = list[Any](), None
    for _ in range(pages):
        page = notes.search(**question, after=after)
        found += [[hit.id, hit.score, hit.document, hit.ranks] for hit in page]
        if (after := page.cursor) is None:
            break
    return found


# -- the answers of a directory --------------------------------------------------------------


@pytest.mark.parametrize(("metric", "mean_of"), [("cosine", 1), ("ip", 2), ("l2", 3)])
def test_searches_give_the_answers_of_a_directory(
    both: tuple[Database, Database], clock: FakeClock, metric: Any, mean_of: int
) -> None:
    indexes: list[Vector | Text | Ordered] = [
        Vector("v", dim=3, metric=metric),
        Vector("parts", dim=2, metric=metric, multi=True, mean_of=mean_of),
        Text("text"),
        Ordered("n"),
    ]
    for db in both:
        db.collection("note", expires_at="until", indexes=indexes)
    draw = random.Random(7)

    def vector(dim: int) -> list[int]:  # small ones, so that many scores are equal
        return [draw.randint(-2, 2) or 1 for _ in range(dim)]

    def document() -> dict[str, Any]:
        fields: dict[str, Any] = {
            "v": vector(3),
            "parts": [vector(2) for _ in range(draw.randint(0, 4))],
            "text": " ".join(draw.choices(WORDS, k=3)),
            "until": clock.now + draw.randint(1, 60),
            "flag": draw.random() < 0.5,
        }
        return {name: value for name, value in fields.items() if draw.random() < 0.8}

    for turn in range(22):
        ids = [f"d{draw.randint(0, 60)}" for _ in range(5)]
        new = [{**document(), "id": id, "n": draw.randint(0, 9)} for id in ids]
        patch, gone = document(), f"d{draw.randint(0, 60)}"
        for db in both:
            db["note"].put_many(new)
            db["note"].update(ids[0], patch)
            db["note"].update(ids[1], {"n": turn})
            db["note"].delete(gone)
        clock.advance(1)
        if turn % 7 == 0:
            assert both[0].expire() == both[1].expire()
        query, part = vector(3), vector(2)
        questions: list[dict[str, Any]] = [
            {"vector": {"v": query}},
            {"vector": {"parts": part}, "limit": 3},
            {"vector": {"v": query}, "where": {"flag": True}, "limit": 4},
            {"vector": {"v": query}, "where": {"n": {"$lt": 4}}, "limit": 4},
            {"vector": {"parts": part}, "where": {"text": {"$ne": None}}, "limit": 7},
            {"vector": {"v": query, "parts": part}, "text": "tea lamp", "limit": 5},
            {"vector": {"v": query}, "text": "tea", "fusion": Fusion(method="reciprocal_rank")},
            {"vector": {"v": query}, "diversity": 0.5, "limit": 60},
        ]
        for question in questions:
            same_hits(both, "note", **question)
        same_documents(both, "note")


def test_many_vectors_are_compared_by_the_server_and_scored_here(
    both: tuple[Database, Database],
) -> None:
    """More than are read to score every one, of a dimension that no graph takes, and in several
    for a document."""
    rng = np.random.default_rng(5)
    for db in both:
        db.collection("wide", indexes=[Vector("v", dim=2_500)])
        db.collection("parts", indexes=[Vector("v", dim=8, multi=True, mean_of=2, metric="l2")])
    wide = rng.normal(size=(500, 2_500)).astype(np.float32)
    parts = rng.normal(size=(900, 3, 8)).astype(np.float32)
    for db in both:
        db["wide"].put_many({"id": f"{n}", "v": each, "n": n} for n, each in enumerate(wide))
        db["parts"].put_many({"id": f"{n}", "v": each, "n": n} for n, each in enumerate(parts))
    where = {"n": {"$lt": 450}}
    for n in range(2):
        near = wide[n] + rng.normal(scale=0.5, size=2_500)
        same_hits(both, "wide", vector=near, limit=100, pages=3)
        same_hits(both, "wide", vector=near, where=where, pages=3)
        same_hits(both, "parts", vector=parts[n, 0], limit=300, pages=2)
    assert both[1]["wide"].explain(vector=wide[0])["indexes"]["vector:v"]["search"] == "exact"


@pytest.mark.parametrize("multi", [False, True])
def test_a_graph_gives_as_many_as_are_asked_for_under_any_filter(db: Database, multi: bool) -> None:
    rng = np.random.default_rng(7)
    count, dim = 12_000, 32
    centres = rng.normal(size=(120, dim))
    vectors: Array = (
        centres[rng.integers(0, 120, count)] + rng.normal(scale=0.4, size=(count, dim))
    ).astype(np.float32)
    notes = db.collection("note")
    each = 3 if multi else 1
    owners = np.arange(count) // each
    for start in range(0, count // each, 3_000 // each):
        rows = range(start, start + 3_000 // each)
        notes.put_many(
            {
                "id": f"d{n}",
                "v": [v.tolist() for v in vectors[n * each : n * each + each]]
                if multi
                else vectors[n].tolist(),
                "half": n % 2 == 0,
                "kind": str(n % 100),
                "rare": str(n % 10_000),
            }
            for n in rows
        )
    notes = db.collection("note", indexes=[Vector("v", dim=dim, multi=multi)])
    assert notes.explain(vector=vectors[0])["indexes"]["vector:v"]["search"] == "graph"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found_of_wanted: list[float] = []
    for where, passes in (
        ({}, owners >= 0),
        ({"half": True}, owners % 2 == 0),
        ({"kind": "7"}, owners % 100 == 7),
        ({"rare": "77"}, owners % 10_000 == 77),
    ):
        for _ in range(5):
            query = vectors[rng.integers(count)] + rng.normal(scale=0.3, size=dim)
            scores = np.where(passes, unit @ query, -np.inf)
            order = [f"d{owners[n]}" for n in np.argsort(-scores)]
            wanted = list(dict.fromkeys(order))[: min(10, len(set(owners[passes])))]
            found = notes.search(vector=query, where=where, limit=10)
            assert len(found) == len(wanted)
            found_of_wanted.append(len({hit.id for hit in found} & set(wanted)) / len(wanted))
    assert np.mean(found_of_wanted) >= 0.98
    assert len(notes.search(vector=vectors[0], limit=1_500)) == 1_500


def test_a_transaction_and_a_snapshot_search_what_they_see(db: Database) -> None:
    notes = db.collection("note", indexes=[Vector("v", dim=2)])
    notes.put_many([{"id": "a", "v": [1, 0]}, {"id": "b", "v": [0, 1]}])

    def ids(notes: Any) -> list[str]:
        return [hit.id for hit in notes.search(vector=[1, 0.1])]

    with db.snapshot() as at:
        with db.transaction() as tx:
            tx["note"].put({"id": "c", "v": [1, 0.1]})
            tx["note"].delete("a")
            tx["note"].update("b", {"v": [1, 1]})
            assert ids(tx["note"]) == ["c", "b"]
            assert ids(notes) == ids(at["note"]) == ["a", "b"]
        assert ids(notes) == ["c", "b"]
        assert ids(at["note"]) == ["a", "b"]
        assert at["note"]["b"]["v"].tolist() == [0, 1]


def test_what_waits_for_another_writer_goes_on_with_what_it_has_written(
    db: Database, url: str, postgres18: PostgreSQL
) -> None:
    """A lock brings the newest row of a document, with other vectors than the statement saw."""
    notes = db.collection("note", indexes=[Vector("v", dim=2)])
    notes.put_many([{"id": "a", "v": [1, 0]}, {"id": "b", "v": [1, 1]}, {"id": "c", "v": [0, 1]}])

    def found() -> list[str]:
        with other.transaction() as tx:
            return [hit.id for hit in tx["note"].search(vector=[1, 0], limit=2)]

    def update() -> None:
        other["note"].update("a", {"n": 1})

    with amberdb.connect(url) as other, ThreadPoolExecutor(1) as thread:
        for call, vector, result in ((update, [2, 1], None), (found, [-1, 0], ["b", "c"])):
            with db.transaction() as tx:
                tx["note"].update("a", {"v": vector})
                tx["note"].count()
                running = thread.submit(call)
                while postgres18.execute("SELECT 1 FROM pg_locks WHERE NOT granted") == "":
                    pass
            assert running.result() == result
            assert notes["a"]["v"].tolist() == vector
            assert notes["a"]["n"] == 1


def test_what_waits_for_a_vector_gets_it_by_embed_missing(db: Database, url: str) -> None:
    is_down = True

    def embed(texts: list[str]) -> list[list[float]]:
        if is_down:
            raise ConnectionError("down")
        return [[len(text), 1.0] for text in texts]

    def waiting() -> int:
        return int(db.stats().collections["note"]["embedding"]["v"]["waiting"])

    index = Vector("v", dim=2, source="text", embed=embed, defer=True)
    notes = db.collection("note", indexes=[index])
    notes.put({"id": "a", "text": "tea"})
    with amberdb.connect(url) as other:  # which has no function
        other["note"].put_many([{"id": "b", "text": "umbrella"}, {"id": "c"}])
    assert waiting() == 2
    is_down = False
    assert notes.embed_missing() == 2
    assert waiting() == 0
    assert [hit.id for hit in notes.search(vector=[8, 1])] == ["b", "a"]


@pytest.mark.parametrize("server", ["postgres16", "pgbouncer18"])
def test_an_older_server_and_a_pooler_of_transactions(
    request: pytest.FixtureRequest, server: str
) -> None:
    found: PostgreSQL | PgBouncer = request.getfixturevalue(server)
    database = found.new_database("vector")
    options = "prepared_statements=false&connections=2"
    vectors = np.random.default_rng(3).normal(size=(10_500, 8)).astype(np.float32)
    with amberdb.connect(f"{found.url('postgresql', database)}?{options}") as db:
        notes = db.collection("note")
        notes.put_many({"id": f"d{n}", "v": each.tolist()} for n, each in enumerate(vectors))
        notes = db.collection("note", indexes=[Vector("v", dim=8, metric="l2")])
        for n in (7, 5_000, 10_400):
            assert notes.explain(vector=vectors[n])["indexes"]["vector:v"]["search"] == "graph"
            assert notes.search(vector=vectors[n], limit=1)[0].id == f"d{n}"
            assert notes[f"d{n}"]["v"] == vectors[n].tolist()
        notes.put({"id": "new", "v": vectors[7]})
        assert notes["new"]["v"].tolist() == vectors[7].tolist()
        assert [hit.id for hit in notes.search(vector=vectors[7], limit=2)] == ["new", "d7"]


# -- what is stored --------------------------------------------------------------------------


def test_vectors_come_back_as_they_were_put(db: Database) -> None:
    notes = db.collection(
        "note", indexes=[Vector("v", dim=4, metric="ip"), Vector("w", dim=2, multi=True)]
    )
    v = np.array([-0.0, 1e-40, 3.4e17, 1 / 3], np.float32)
    w = np.array([[1e-45, 1], [0.1, 16777217]], np.float32)
    notes.put({"id": "a", "v": v, "w": w, "x": [1.0]})
    (found,) = notes.find()
    for document in (notes["a"], found, *notes.documents(), *notes.get_many(["a"])):
        assert document is not None
        assert document["v"].tobytes() == v.tobytes()
        assert document["w"].tobytes() == w.tobytes()
        assert not document["v"].flags.writeable
        assert not document["w"].flags.writeable
    notes.update("a", {"x": [2.0]})
    assert same(notes["a"], {"id": "a", "v": v, "w": w, "x": [2.0]})


def test_an_index_may_come_later_and_go(
    both: tuple[Database, Database], postgres18: PostgreSQL, database: str
) -> None:
    """Lists of numbers that were there before are found, and stay lists; vectors whose index is
    dropped stay arrays."""
    for db in both:
        notes = db.collection("note")
        notes.put_many({"id": f"d{n}", "v": [n, 1.0], "n": n} for n in range(30))
        notes.put_many([{"id": "short", "v": [1]}, {"id": "text", "v": "x"}, {"id": "none"}])
        db.collection("note", indexes=[Vector("v", dim=2)])
        db.build_indexes()
    same_hits(both, "note", vector=[1, 1])
    for db in both:
        db["note"].put({"id": "new", "v": [3, 3]})
        db["note"].update("d2", {"v": [1, 1]})
        db["note"].delete("d3")
    declarations: list[list[Vector | Ordered]] = [
        [],
        [Vector("v", dim=2, metric="l2")],
        [Vector("v", dim=1)],
        [Ordered("n")],
    ]
    for specs in declarations:
        for db in both:
            db.collection("note", indexes=specs)
            db.build_indexes()
            db["note"].put({"id": f"after{len(specs)}", "n": 1})
        same_documents(both, "note")
        for dim in [spec.dim for spec in specs if isinstance(spec, Vector)]:
            same_hits(both, "note", vector=[1] * dim)
    assert _tables_of_vectors(postgres18, database) == []


def test_nothing_is_left_of_what_is_gone(
    url: str, clock: FakeClock, postgres18: PostgreSQL, database: str
) -> None:
    with amberdb.connect(url, clock=clock) as db:
        notes = db.collection("note", expires_at="until", indexes=[Vector("v", dim=2, multi=True)])
        notes.put_many(
            {"id": f"d{n}", "v": [[n, 1], [1, n]], "until": clock.now + n} for n in range(1, 11)
        )
        notes.delete("d10")
        notes.delete_many(ids=["d9"])
        notes.delete_many({"id": "d8"})
        notes.update("d7", {"v": [[1, 1]]})
        with db.transaction() as tx:
            for value in ([[2, 2]], [[3, 3], [4, 4]]):
                tx["note"].update("d6", {"v": value})
                tx["note"].count()
        clock.advance(5)
        assert len(notes.search(vector=[1, 1])) == 2
        assert db.expire() == 5
        (table,) = _tables_of_vectors(postgres18, database)
        assert _rows(postgres18, database, table) == 3
        assert same(notes["d6"]["v"], np.array([[3, 3], [4, 4]], np.float32))
        db.drop_collection("note")
    assert _tables_of_vectors(postgres18, database) == []


def test_an_older_declaration_writes_no_row_without_its_vectors(url: str, db: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a", "v": [1, 0]})
    with amberdb.connect(url) as other:
        newer = other.collection("note", indexes=[Vector("v", dim=2)])
        notes.put({"id": "b", "v": [0, 1]})
        notes.put_many([{"id": "c", "v": [1, 1]}])
        notes.update("a", {"v": [2, 1]})
        assert [hit.id for hit in newer.search(vector=[1, 1])] == ["c", "a", "b"]
        with pytest.raises(InvalidDocumentError):
            notes.put({"id": "d", "v": [1, 2, 3]})


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [[1], [1, float("nan")], [1, float("inf")], [0, 0], "x", [[1, 2]]]
)
def test_a_wrong_vector_is_refused(db: Database, wrong: Any) -> None:
    notes = db.collection("note", indexes=[Vector("v", dim=2)])
    with pytest.raises(InvalidDocumentError) as caught:
        notes.put({"id": "a", "v": wrong})
    assert caught.value.field == "v"
    assert notes.count() == 0


def test_a_missing_extension_is_said_and_nothing_is_declared(postgres18: PostgreSQL) -> None:
    database = postgres18.new_database()
    with amberdb.connect(postgres18.url("postgresql", database)) as db:
        db.collection("note").put({"id": "a", "v": [1, 2]})
        for name in ("note", "other"):
            with pytest.raises(ServerAccessError, match="CREATE EXTENSION vector"):
                db.collection(name, indexes=[Vector("v", dim=2), Ordered("n")])
        assert db.collections() == ["note"]
        assert db.definition("note").indexes == ()
        postgres18.execute("CREATE EXTENSION vector", database)
        notes = db.collection("note", indexes=[Vector("v", dim=2), Ordered("n")])
        assert [hit.id for hit in notes.search(vector=[1, 2])] == ["a"]


def test_a_dimension_that_the_server_does_not_have_is_refused(db: Database) -> None:
    with pytest.raises(NotSupportedHereError, match="at most 16000"):
        db.collection("note", indexes=[Vector("v", dim=16_001)])
    assert db.collections() == []
    notes = db.collection("note", indexes=[Vector("v", dim=16_000)])
    notes.put({"id": "a", "v": np.ones(16_000)})
    (hit,) = notes.search(vector=np.ones(16_000))
    assert hit.score == pytest.approx(1, rel=1e-4)


def _tables_of_vectors(server: PostgreSQL, database: str) -> list[str]:
    sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'amberdb' AND tablename ~ '^v'"
    return server.execute(sql, database).split()


def _rows(server: PostgreSQL, database: str, table: str) -> int:
    return int(server.execute(f"SELECT count(*) FROM amberdb.{table}", database))
